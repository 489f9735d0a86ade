"""What members type (growing prefixes of names, with slips, of titles that may not be there), and matching it.

A query means one title, by its name in the member's language, in its original language or in English. People start at
the first word or at a later one, write without accents, and slip now and then: a letter left out, doubled, changed or
swapped with the next. Names are matched by prefixes of words with binary search, slips by letters in common.

Axis letters: N queries, T titles, W letters, E entries (a name from one of its words on), H buckets of letter pairs.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import AnyInts, Floats32, Ints64
from playbill_lab.simulator.world.catalogue import WorldCatalogue
from playbill_lab.simulator.world.title_words import TONGUES, make_names

ABSENT = -1  # Stands for a title that the catalogue does not have
ABSENT_NAMES = 512
OWN_LANGUAGE, ORIGINAL_LANGUAGE = 0.75, 0.15
"""Shares of names in the member's and in the title's language; the rest is English, where there is such a name."""
LATER_WORD = 0.2
SLIP = 0.1  # Share of queries of three letters and more with one slip
_FIRST_SLIP = 2  # Nobody mistypes the first two letters: one would see it at once

Letters = npt.NDArray[np.uint32]


def plain(text: str) -> str:
    """Return a text as people type it: small letters, no accents, one blank between words."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(letter for letter in decomposed if unicodedata.category(letter) != "Mn" or letter > "\u036f")
    # Hangul and kana fall apart into parts under NFKD; composed again they are what a keyboard gives.
    return " ".join(unicodedata.normalize("NFC", bare).split())


@dataclass(frozen=True, eq=False)
class QueryBook:
    """The names of a catalogue, ready to be typed and to be matched."""

    letters: Letters  # [names, W] code points of plain names, 0 behind their end
    of_title: Ints64  # [T + absent, languages] place of a title's name in `letters` by language
    original: Ints64  # [T + absent] place of its name in the original language
    english: Ints64  # [T + absent] place of its English name
    titles: int
    index: NameIndex

    @classmethod
    def make(cls, catalogue: WorldCatalogue, rng: np.random.Generator) -> QueryBook:
        """Prepare a catalogue, once per world."""
        names, of_title, original, english = _names(catalogue)
        absent = _absent_names(catalogue.languages, set(names), rng)
        start = len(names)
        more = start + np.arange(absent.size).reshape(absent.shape)
        together = [*names, *absent.ravel().tolist()]
        return cls(
            letters=_letters(together),
            of_title=np.concatenate([of_title, more]),
            original=np.concatenate([original, more[:, 0]]),
            english=np.concatenate([english, more[:, 0]]),
            titles=len(catalogue),
            index=NameIndex.make(names, of_title),
        )

    def intended(self, wanted: AnyInts, language: AnyInts, rng: np.random.Generator) -> pl.Series:
        """Return what members mean to type, slips included, as whole names: [N] strings.

        `wanted` [N] titles, `ABSENT` = one that the catalogue does not have; `language` [N] places in the catalogue's
        languages.
        """
        count = len(wanted)
        entry = np.where(wanted >= 0, wanted, self.titles + rng.integers(ABSENT_NAMES, size=count))
        draw = rng.random(count)
        place = np.where(draw < OWN_LANGUAGE, self.of_title[entry, language], self.english[entry])
        between = (draw >= OWN_LANGUAGE) & (draw < OWN_LANGUAGE + ORIGINAL_LANGUAGE)
        place = np.where(between, self.original[entry], place)
        letters = _from_a_word(self.letters[place], rng)
        return _texts(_with_slips(letters, rng))

    def matches(self, queries: pl.Series) -> Floats32:
        """Return [N, T] from 0 to 1 how well titles' names answer queries; null and blank ones match nothing."""
        distinct = queries.fill_null("").unique(maintain_order=True)
        scores = self.index.scores([plain(text) for text in distinct.to_list()])
        places = {text: at for at, text in enumerate(distinct.to_list())}
        return scores[[places[text] for text in queries.fill_null("").to_list()]]


def _names(catalogue: WorldCatalogue) -> tuple[list[str], Ints64, Ints64, Ints64]:
    """Return distinct (title, name) pairs and where each language's name of a title is among them."""
    names: list[str] = []
    shape = (len(catalogue), len(catalogue.languages))
    of_title = np.zeros(shape, np.int64)
    original, english = np.zeros(shape[0], np.int64), np.zeros(shape[0], np.int64)
    rows = zip(catalogue.titles["name"].to_list(), catalogue.titles["names"].to_list(), strict=True)
    for row, (name, listed) in enumerate(rows):
        known = {entry["language"]: entry["name"] for entry in listed or [] if entry["name"]}
        start = len(names)
        variants = list(dict.fromkeys(plain(text) for text in (name, *known.values())))
        names += variants
        where = {code: start + variants.index(plain(text)) for code, text in known.items()}
        of_title[row] = [where.get(code, start) for code in catalogue.languages]
        original[row], english[row] = start, where.get("en", start)
    return names, of_title, original, english


def _absent_names(languages: Sequence[str], taken: set[str], rng: np.random.Generator) -> npt.NDArray[np.object_]:
    """Return names that no title has, [absent, languages]."""
    made = [code if code in TONGUES else "en" for code in languages]
    kept: list[tuple[str, ...]] = []
    while len(kept) < ABSENT_NAMES:
        drawn = zip(*make_names(ABSENT_NAMES * 4, made, rng), strict=True)
        fresh = (tuple(plain(name) + ending for name in row) for row in drawn for ending in ("", " returns", " 9"))
        kept += [row for row in fresh if taken.isdisjoint(row)]
    chosen = rng.choice(len(kept), size=ABSENT_NAMES, replace=False)
    return np.array([kept[at] for at in chosen], dtype=object)


def _letters(texts: Sequence[str]) -> Letters:
    """Return code points of texts, [N, W], 0 behind their end."""
    return np.array(texts).reshape(-1, 1).view(np.uint32)


def _texts(letters: Letters) -> pl.Series:
    width = letters.shape[1]
    return pl.Series(np.ascontiguousarray(letters).view(f"<U{width}").ravel().tolist(), dtype=pl.String)


def _shifted(letters: Letters, start: Ints64) -> Letters:
    """Return each row from its start on, 0 behind its end."""
    padded = np.concatenate([letters, np.zeros_like(letters)], axis=1)
    return np.take_along_axis(padded, start[:, None] + np.arange(letters.shape[1]), axis=1)


def _from_a_word(letters: Letters, rng: np.random.Generator) -> Letters:
    """Let some start at a later word than the first."""
    begins = np.zeros(letters.shape, np.bool_)
    begins[:, 1:] = letters[:, :-1] == ord(" ")
    later = begins.any(axis=1) & (rng.random(len(letters)) < LATER_WORD)
    drawn = np.where(begins, rng.random(letters.shape), -1.0).argmax(axis=1)
    return _shifted(letters, np.where(later, drawn, 0).astype(np.int64))


def _with_slips(letters: Letters, rng: np.random.Generator) -> Letters:
    """Let one letter of some queries be left out, doubled, changed or swapped with the next."""
    count, width = letters.shape
    lengths = (letters > 0).sum(axis=1)
    slip = (lengths > _FIRST_SLIP + 1) & (rng.random(count) < SLIP)
    at = _FIRST_SLIP + (rng.random(count) * np.maximum(lengths - _FIRST_SLIP - 1, 1)).astype(np.int64)
    kind = rng.integers(4, size=count)
    columns = np.arange(width + 1)
    take = np.broadcast_to(columns, (count, width + 1)).copy()
    behind = columns > at[:, None]
    take += (slip & (kind == 0))[:, None] & (columns >= at[:, None])
    take -= (slip & (kind == 1))[:, None] & behind
    swapped = slip & (kind == 2)
    take += swapped[:, None] & (columns == at[:, None])
    take -= swapped[:, None] & (columns == at[:, None] + 1)
    padded = np.concatenate([letters, np.zeros((count, 3), letters.dtype)], axis=1)
    typed: Letters = np.take_along_axis(padded, take, axis=1)
    changed = np.flatnonzero(slip & (kind == 3))
    # A neighbour of the same script: another letter of the same text.
    other = (rng.random(changed.size) * lengths[changed]).astype(np.int64)
    typed[changed, at[changed]] = letters[changed, other]
    return typed


BUCKETS = 1024
LATER_WORD_SCORE = 0.8  # Of a match that starts at a later word, against one that starts at the first
SLIP_SCORE = 0.6  # Of a match by letters in common, at most
SLIP_THRESHOLD = 0.6  # Share of a query's letter pairs that a name must have to match without a common prefix
_LAST = "\U0010ffff"


@dataclass(frozen=True, eq=False)
class NameIndex:
    """Names in order, to find those that go on from what was typed."""

    entries: npt.NDArray[np.str_]  # [E] names from each of their words on, sorted
    title: Ints64  # [E] whose they are
    weight: Floats32  # [E] 1 from the first word on, less from a later one
    size: Ints64  # [E] letters of the whole name
    pairs: Floats32  # [names, H] 1 where a name has letter pairs of a bucket
    starts: Ints64  # [T] first name of each title; names of a title lie together

    @classmethod
    def make(cls, names: Sequence[str], of_title: Ints64) -> NameIndex:
        """Index plain names, those of one title together, titles in order.

        `of_title` [T, languages]: places in `names`; the smallest of a row is the title's first name.
        """
        starts = np.asarray(of_title.min(axis=1))
        owner = np.searchsorted(starts, np.arange(len(names)), side="right") - 1
        rows = [
            (name[at:], int(owner[place]), 1.0 if at == 0 else LATER_WORD_SCORE, len(name))
            for place, name in enumerate(names)
            for at in (0, *(at + 1 for at, letter in enumerate(name) if letter == " "))
        ]
        rows.sort()
        entries, title, weight, size = zip(*rows, strict=True)
        return cls(
            entries=np.array(entries),
            title=np.array(title, np.int64),
            weight=np.array(weight, np.float32),
            size=np.array(size, np.int64),
            pairs=letter_pairs(names),
            starts=starts,
        )

    @cached_property
    def _names_of_pair(self) -> npt.NDArray[np.uint16]:
        """[buckets, names] of 0 and 1."""
        return np.ascontiguousarray(self.pairs.T).astype(np.uint16)

    def scores(self, queries: Sequence[str]) -> Floats32:
        """Match plain queries [N]; return [N, T] from 0 to 1.

        A name (or what follows one of its words) that goes on from the query scores by the place of that word and by
        how much of the name is typed. Where none does, titles score by the share of the query's letter pairs that a
        name of theirs has.
        """
        found = np.zeros((len(queries), len(self.starts)), np.float32)
        lengths = np.array([len(query) for query in queries], np.int64)
        low = np.searchsorted(self.entries, np.array(queries, dtype=np.str_), side="left")
        high = np.searchsorted(self.entries, np.array([query + _LAST for query in queries], dtype=np.str_))
        counts = np.where(lengths > 0, high - low, 0)
        row = np.repeat(np.arange(len(queries)), counts)
        entry = np.repeat(low - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(counts.sum())
        typed = lengths[row] / self.size[entry]
        values = self.weight[entry] * (0.5 + 0.5 * typed).astype(np.float32)
        np.maximum.at(found, (row, self.title[entry]), values)
        without = np.flatnonzero((counts == 0) & (lengths > 2))
        if without.size:
            found[without] = self._by_letters([queries[at] for at in without.tolist()])
        return found

    def _by_letters(self, queries: Sequence[str]) -> Floats32:
        row, bucket = np.nonzero(letter_pairs(queries))
        count = np.bincount(row, minlength=len(queries))
        # A query has a dozen pairs of the many: their rows are added up, nothing is multiplied by zeros.
        has = self._names_of_pair[bucket]
        shared = np.add.reduceat(has, np.cumsum(count) - count, axis=0)
        best = np.maximum.reduceat(shared, self.starts, axis=1) / np.maximum(count, 1)[:, None].astype(np.float32)
        return np.where(best >= SLIP_THRESHOLD, SLIP_SCORE * best, 0).astype(np.float32)


def letter_pairs(texts: Sequence[str]) -> Floats32:
    """Return which letter pairs texts have, [N, H] of 0 and 1; the text's beginning counts as a letter."""
    found = np.zeros((len(texts), BUCKETS), np.float32)
    rows, buckets = [], []
    for row, text in enumerate(texts):
        padded = "^" + text
        rows += [row] * len(text)
        buckets += [zlib.crc32(padded[at : at + 2].encode()) % BUCKETS for at in range(len(text))]
    found[rows, buckets] = 1.0
    return found
