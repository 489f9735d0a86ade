"""How alike titles are by their names: "Aliens" and "Alien 3", not "Toy Story" and "The Philadelphia Story".

Two names are as alike as the cosine of their words, each weighed by how few titles have it and known by its first
letters, numbers left out. Of the names of two titles, in all languages, the best pair counts. Words alone mislead: what
they say counts by the company they have, the square root of the likeness of the two titles' genres. Names that are the
same up to a number or a colon ("Die Hard 2", "Die Hard: With a Vengeance") need no company.
Axis letters: T titles, N names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from scipy import sparse

from playbill.arrays import Bools, Floats32, Ints64
from playbill.datasets.encoding.text import STEM_LETTERS, fold
from playbill.ranking.scoring.text_match import every_name

UNKNOWN_COMPANY = 0.5  # how much shared words count where one of the two titles has no genres
_NUMBER = re.compile(r"\d+|ii|iii|iv|vi{0,3}|ix|xi{0,2}")
_PARTS = frozenset(
    ("part", "episode", "chapter", "volume", "vol", "teil", "folge", "kapitel", "partie", "chapitre")
) | {"parte", "episodio", "capitulo", "volumen", "deel"}
"""Words that stand before the number of a sequel, in some languages, folded."""
_REST = re.compile(r"[:(\uff1a\u2013\u2014]|\s-\s")  # what the name of a sequel of its own begins with


@dataclass(frozen=True)
class NameLikeness:
    """The names of T titles, ready to be compared."""

    words: sparse.csr_array  # [N, any] unit rows, the product of two is their cosine
    base: Ints64  # [N] number of what `base_of` leaves of the name, equal = one series; 0 = nothing is left
    owner: Ints64  # [N] whose name it is, ascending
    titles: int  # T

    @classmethod
    def of(cls, titles: pl.DataFrame, rows: Ints64, count: int) -> NameLikeness:
        """Read the names of canonical titles, each with its row's number below `count`."""
        line, names = every_name(titles)
        owner = rows[line]
        order = np.argsort(owner, kind="stable")
        owner, names = owner[order], [names[place] for place in order.tolist()]
        bases = pl.Series(values=[base_of(name) or None for name in names], dtype=pl.String)
        series = bases.rank("dense").fill_null(0).to_numpy().astype(np.int64)
        return cls(_unit_words(names, owner, count), series, owner, count)

    def near(self, source: int, genres: Callable[[Ints64], Floats32], described: Bools) -> tuple[Ints64, Floats32]:
        """Return the titles whose names are like one title's, ascending, and how much, in (0, 1].

        `genres` tells how like some titles' genres are to its own, `described` [T] which titles have any.
        """
        own = np.arange(*np.searchsorted(self.owner, [source, source + 1]))
        if not len(own):
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        # Few names share a word with this one, and only these are looked at.
        shared = self.words[own] @ self._by_word
        owners = self.owner[shared.indices]
        alike = np.zeros(self.titles, np.float32)
        np.maximum.at(alike, owners, shared.data)
        order, ends = self._series
        series = [self.owner[order[ends[base] : ends[base + 1]]] for base in set(self.base[own].tolist()) - {0}]
        met = np.zeros(self.titles, np.bool_)
        met[owners] = True
        some = np.flatnonzero(met)
        known = described[some] & described[source]
        alike[some] *= np.where(known, np.sqrt(np.maximum(genres(some), 0)), np.float32(UNKNOWN_COMPANY))
        for titles in series:
            alike[titles] = 1.0
        found = np.flatnonzero(alike)
        return found, alike[found]

    @cached_property
    def _by_word(self) -> sparse.csr_array:
        return self.words.T.tocsr()

    @cached_property
    def _series(self) -> tuple[Ints64, Ints64]:
        """[N] names in order of their series, and [series + 2] where each begins."""
        order = np.argsort(self.base, kind="stable")
        return order, np.searchsorted(self.base[order], np.arange(self.base.max(initial=0) + 2))


def base_of(name: str) -> str:
    """Return a name without the number and the name of a sequel: "die hard" of "Die Hard 2" and "Die Hard: Part 3"."""
    words = fold(_REST.split(name)[0]).split()
    kept = _without_numbers(words)
    while len(kept) < len(words) and len(kept) > 1 and kept[-1] in _PARTS:
        kept = kept[:-1]
    return " ".join(kept or fold(name).split())


def _without_numbers(words: list[str]) -> list[str]:
    end = len(words)
    while end > 1 and _NUMBER.fullmatch(words[end - 1]):
        end -= 1
    return words[:end]


def _stems(name: str) -> list[str]:
    """Return the first letters of the different words of a name that are no numbers; of all, if all are."""
    words = fold(name).split()
    kept = [word for word in words if not _NUMBER.fullmatch(word)] or words
    return sorted({word[:STEM_LETTERS] for word in kept})


def _unit_words(names: Sequence[str], owner: Ints64, titles: int) -> sparse.csr_array:
    """Return [N, words] unit rows, a word weighed by the logarithm of how few titles have it."""
    stems = [_stems(name) for name in names]
    line = np.repeat(np.arange(len(stems)), [len(own) for own in stems])
    flat = pl.Series(values=[stem for own in stems for stem in own], dtype=pl.String)
    word = flat.rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1
    size = int(word.max(initial=-1)) + 1
    had = np.unique(owner[line] * max(size, 1) + word)
    rarity = np.log((titles + 1) / (np.bincount(had % max(size, 1), minlength=size) + 1))
    lengths = np.sqrt(np.bincount(line, rarity[word] ** 2, minlength=len(names)))
    values = (rarity[word] / np.maximum(lengths[line], 1e-9)).astype(np.float32)
    return sparse.csr_array((values, (line, word)), shape=(len(names), size))
