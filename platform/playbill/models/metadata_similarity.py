"""How alike titles are by what is known of them: one number per kind of metadata and pair.

Axis letters: T titles, S sources, P pairs, F kinds of metadata, G groups of titles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from scipy import sparse
from torch import Tensor

from playbill.arrays import Floats32, Floats64, Ints64
from playbill.models.batch import TitleInputs

KINDS = ("genres", "kind", "language", "release_year", "names", "synopsis")  # the order of axis F
BY_RARITY = "genres by rarity"  # bags that are in no kind of metadata: genres, each weighed by how few titles have it
YEAR_BUCKETS = 3.0  # buckets of the release year at which likeness by year has fallen to a third

Exact = Floats64
Bags: TypeAlias = "sparse.csr_array"


@dataclass(frozen=True, slots=True)
class MetadataGroups:
    """Titles of the same genres, kind, language and year: so many comparisons are needed, and not as many as titles."""

    first: Ints64
    of: Ints64


@dataclass(frozen=True)
class TitleLikeness:
    """T titles, ready to be compared. Row 0 is padding and like nothing."""

    bags: dict[str, Bags]  # kind of metadata -> [T, any] unit rows; the product of two is their cosine
    kind: Ints64  # [T] index, 0 = unknown
    language: Ints64  # [T] index, 0 = unknown
    year: Ints64  # [T] bucket, 0 = unknown

    @classmethod
    def of(cls, titles: TitleInputs) -> TitleLikeness:
        """Read what a network reads of titles."""
        rarity = _rarity(titles.name_grams, titles.name_offsets)
        return cls(
            bags={
                "genres": _bags(titles.genres, titles.genre_offsets),
                BY_RARITY: _bags(titles.genres, titles.genre_offsets, _rarity(titles.genres, titles.genre_offsets)),
                "names": _bags(titles.name_grams, titles.name_offsets, rarity),
                "synopsis": _bags(
                    titles.synopsis_grams,
                    titles.synopsis_offsets,
                    _rarity(titles.synopsis_grams, titles.synopsis_offsets),
                ),
            },
            kind=titles.kind.numpy(),
            language=titles.language.numpy(),
            year=titles.release_year.numpy(),
        )

    @property
    def count(self) -> int:
        """T, padding row included."""
        return len(self.kind)

    def part(self, titles: Ints64) -> TitleLikeness:
        """Return some of the titles; rarities stay those of all."""
        bags = {name: bag[titles] for name, bag in self.bags.items() if name in (*KINDS, BY_RARITY)}
        return TitleLikeness(bags, self.kind[titles], self.language[titles], self.year[titles])

    def rows(self, sources: Ints64, others: TitleLikeness | None = None) -> Floats32:
        """Compare some titles with all, or with C others: [S, C, F], each number in [0, 1]."""
        others = self if others is None else others
        found = np.zeros((len(sources), others.count, len(KINDS)), np.float32)
        for place, name in enumerate(KINDS):
            if name in self.bags:
                found[:, :, place] = (self.bags[name][sources] @ others._turned(name)).toarray()
        found[:, :, 1:4] = _same(self._facts[:, sources, None], others._facts[:, None, :])
        return found

    def weighed(self, sources: Ints64, weights: Exact, others: TitleLikeness | None = None) -> Exact:
        """Return [S, C] the sums of `rows` by [F] weights; what is compared is never held kind by kind."""
        others = self if others is None else others
        groups = others.groups
        of_facts_SG = _same(self._facts[:, sources, None], others._facts[:, None, groups.first]) @ weights[1:4]
        shared = self.bags["genres"][sources] @ others._turned_by_group("genres")
        of_facts_SG += shared.toarray() * weights[KINDS.index("genres")]
        found: Exact = of_facts_SG[:, groups.of]
        for kind, name in enumerate(KINDS):
            if name != "genres" and name in self.bags and self.bags[name].nnz:
                _add(found, (self.bags[name][sources] @ others._turned(name)) * weights[kind])
        return found

    def years(self, sources: Ints64) -> Floats32:
        """Return [S, G] how near years of release are to those of each group."""
        return _near(self.year[sources, None], self.year[self.groups.first])

    def rare_genres(self, sources: Ints64) -> Floats32:
        """Return [S, G] the cosine of genres weighed by rarity with those of each group; 0 where there are none."""
        found: Floats32 = (self.genre_bags[sources] @ self._turned_by_group(BY_RARITY)).toarray()
        return found

    @cached_property
    def groups(self) -> MetadataGroups:
        """The titles by all that is known of them but their texts."""
        genres = self.bags["genres"]
        number: dict[bytes, int] = {}
        ends = genres.indptr.tolist()
        bags = [genres.indices[start:stop].tobytes() for start, stop in pairwise(ends)]
        own = np.array([number.setdefault(bag, len(number)) for bag in bags], np.int64)
        # The padding row is a group of its own.
        facts = np.stack([np.arange(self.count) > 0, own, *self._facts], axis=1)
        _, first, of = np.unique(facts, axis=0, return_index=True, return_inverse=True)
        return MetadataGroups(first.astype(np.int64), of.ravel().astype(np.int64))

    def pairs(self, left: Ints64, right: Ints64) -> Floats32:
        """Compare pairs of titles: [P, F]."""
        found = np.zeros((len(left), len(KINDS)), np.float32)
        for place, name in enumerate(KINDS):
            if name in self.bags:
                found[:, place] = (self.bags[name][left] * self.bags[name][right]).sum(axis=1)
        found[:, 1:4] = _same(self._facts[:, left], self._facts[:, right])
        return found

    @property
    def genre_bags(self) -> Bags:
        """[T, genres] unit rows of genres weighed by rarity; a title without genres has an empty one."""
        return self.bags[BY_RARITY]

    @cached_property
    def _facts(self) -> Ints64:
        return np.stack([self.kind, self.language, self.year])

    def _turned(self, name: str) -> Bags:
        key = f"{name}^T"
        if key not in self.bags:
            self.bags[key] = self.bags[name].T.tocsr()
        return self.bags[key]

    def _turned_by_group(self, name: str) -> Bags:
        key = f"{name}^T by group"
        if key not in self.bags:
            self.bags[key] = self._turned(name)[:, self.groups.first]
        return self.bags[key]


def _add(found: Exact, sums: Bags) -> None:
    if 4 * sums.nnz > found.size:
        found += sums.toarray()
        return
    found[np.repeat(np.arange(len(found)), np.diff(sums.indptr)), sums.indices] += sums.data


def _same(left: Ints64, right: Ints64) -> Floats32:
    """Return [..., 3] of facts [3, ...]: the same kind, the same language, and how near the years are."""
    known = (left[:2] > 0) & (right[:2] > 0)
    parts = ((left[0] == right[0]) & known[0], (left[1] == right[1]) & known[1], _near(left[2], right[2]))
    return np.stack([np.asarray(part, np.float32) for part in parts], axis=-1)


def _near(left: Ints64, right: Ints64) -> Floats32:
    known = (left > 0) & (right > 0)
    return np.where(known, np.exp(-np.abs(left - right) / YEAR_BUCKETS), 0.0).astype(np.float32)


def _bags(ids: Tensor, offsets: Tensor, weight: Floats32 | None = None) -> Bags:
    """Return [T, ids] unit rows; an entry counts once per bag."""
    flat, starts = ids.numpy(), offsets.numpy()
    rows = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(flat)))
    values = np.ones(len(flat), np.float32)
    matrix = sparse.csr_array((values, (rows, flat)), shape=(len(starts), int(flat.max(initial=0)) + 1))
    matrix.data = (np.ones_like(matrix.data) if weight is None else weight[matrix.indices]).astype(np.float32)
    length = np.sqrt(np.asarray((matrix * matrix).sum(axis=1)).ravel())
    found: Bags = sparse.csr_array(sparse.diags_array(1 / np.maximum(length, 1e-9)) @ matrix).astype(np.float32)
    return found


def _rarity(ids: Tensor, offsets: Tensor) -> Floats32:
    flat, starts = ids.numpy(), offsets.numpy()
    rows = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(flat)))
    size = int(flat.max(initial=0)) + 1
    cells = np.sort(rows * size + flat)
    # By sorting: the hashing of `np.unique` takes seconds for a large catalogue
    seen = cells[np.append(True, cells[1:] != cells[:-1])[: len(cells)]]
    frequency = np.bincount(seen % size, minlength=size)
    found: Floats32 = np.log((len(starts) + 1) / (frequency + 1)).astype(np.float32)
    return found
