"""How alike titles are by what is known of them: one number per kind of metadata and pair.

Axis letters: T titles, S sources, P pairs, F kinds of metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor

from playbill.models.batch import TitleInputs

KINDS = ("genres", "kind", "language", "release_year", "names", "synopsis")
"""The order of axis F."""
BY_RARITY = "genres by rarity"
"""Bags that are in no kind of metadata: genres, each weighed by how few titles have it."""
YEAR_BUCKETS = 3.0
"""Buckets of the release year at which likeness by year has fallen to a third."""

Floats = npt.NDArray[np.float32]
Exact = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bags: TypeAlias = "sparse.csr_array"


@dataclass(frozen=True)
class TitleLikeness:
    """T titles, ready to be compared. Row 0 is padding and like nothing.

    Args:
        bags: Kind of metadata -> [T, any] unit rows; the product of two is their cosine.
        kind: [T] index, 0 = unknown.
        language: [T] index, 0 = unknown.
        year: [T] bucket, 0 = unknown.
    """

    bags: dict[str, Bags]
    kind: Ints
    language: Ints
    year: Ints

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

    def part(self, titles: Ints) -> TitleLikeness:
        """Return some of the titles; rarities stay those of all."""
        bags = {name: bag[titles] for name, bag in self.bags.items() if name in (*KINDS, BY_RARITY)}
        return TitleLikeness(bags, self.kind[titles], self.language[titles], self.year[titles])

    def rows(self, sources: Ints, others: TitleLikeness | None = None) -> Floats:
        """Compare some titles with all, or with C others: [S, C, F], each number in [0, 1]."""
        others = self if others is None else others
        found = np.zeros((len(sources), others.count, len(KINDS)), np.float32)
        for place, name in enumerate(KINDS):
            if name in self.bags:
                found[:, :, place] = (self.bags[name][sources] @ others._turned(name)).toarray()
        found[:, :, 1:4] = _same(self._facts[:, sources, None], others._facts[:, None, :])
        return found

    def weighed(self, sources: Ints, weights: Exact, others: TitleLikeness | None = None) -> Exact:
        """Return [S, C] the sums of `rows` by [F] weights; what is compared is never held kind by kind."""
        others = self if others is None else others
        facts, place = np.unique(self._facts[:, sources].T, axis=0, return_inverse=True)
        of_facts = _same(facts.T[:, :, None], others._facts[:, None, :]) @ weights[1:4]
        found: Exact = of_facts[place.ravel()]
        for kind, name in enumerate(KINDS):
            if name in self.bags and self.bags[name].nnz:
                found += (self.bags[name][sources] @ others._turned(name)).toarray() * weights[kind]
        return found

    def years(self, sources: Ints) -> Floats:
        """Return [S, T] how near years of release are."""
        return _near(self.year[sources, None], self.year)

    def pairs(self, left: Ints, right: Ints) -> Floats:
        """Compare pairs of titles: [P, F]."""
        found = np.zeros((len(left), len(KINDS)), np.float32)
        for place, name in enumerate(KINDS):
            if name in self.bags:
                found[:, place] = (self.bags[name][left] * self.bags[name][right]).sum(axis=1)
        found[:, 1:4] = _same(self._facts[:, left], self._facts[:, right])
        return found

    def rare_genres(self, sources: Ints) -> Floats:
        """Return [S, T] the cosine of genres weighed by rarity; 0 where one of the two titles has none."""
        found: Floats = (self.genre_bags[sources] @ self._turned(BY_RARITY)).toarray()
        return found

    @property
    def genre_bags(self) -> Bags:
        """[T, genres] unit rows of genres weighed by rarity; a title without genres has an empty one."""
        return self.bags[BY_RARITY]

    @property
    def _facts(self) -> Ints:
        """[3, T]: kind, language and year."""
        return np.stack([self.kind, self.language, self.year])

    def _turned(self, name: str) -> Bags:
        key = f"{name}^T"
        if key not in self.bags:
            self.bags[key] = self.bags[name].T.tocsr()
        return self.bags[key]


def _same(left: Ints, right: Ints) -> Floats:
    """Return [..., 3] of facts [3, ...]: the same kind, the same language, and how near the years are."""
    known = (left[:2] > 0) & (right[:2] > 0)
    parts = ((left[0] == right[0]) & known[0], (left[1] == right[1]) & known[1], _near(left[2], right[2]))
    return np.stack([np.asarray(part, np.float32) for part in parts], axis=-1)


def _near(left: Ints, right: Ints) -> Floats:
    """Return how near years are: 1 for the same, 0 where one of the two is not known."""
    known = (left > 0) & (right > 0)
    return np.where(known, np.exp(-np.abs(left - right) / YEAR_BUCKETS), 0.0).astype(np.float32)


def _bags(ids: Tensor, offsets: Tensor, weight: Floats | None = None) -> Bags:
    """Return [T, ids] unit rows; an entry counts once per bag."""
    flat, starts = ids.numpy(), offsets.numpy()
    rows = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(flat)))
    values = np.ones(len(flat), np.float32)
    matrix = sparse.csr_array((values, (rows, flat)), shape=(len(starts), int(flat.max(initial=0)) + 1))
    matrix.data = (np.ones_like(matrix.data) if weight is None else weight[matrix.indices]).astype(np.float32)
    length = np.sqrt(np.asarray((matrix * matrix).sum(axis=1)).ravel())
    found: Bags = sparse.csr_array(sparse.diags_array(1 / np.maximum(length, 1e-9)) @ matrix).astype(np.float32)
    return found


def _rarity(ids: Tensor, offsets: Tensor) -> Floats:
    """Return the inverse document frequency of each id, by id."""
    flat, starts = ids.numpy(), offsets.numpy()
    rows = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(flat)))
    size = int(flat.max(initial=0)) + 1
    cells = np.sort(rows * size + flat)
    # By sorting: the hashing of `np.unique` takes seconds for a large catalogue.
    seen = cells[np.append(True, cells[1:] != cells[:-1])[: len(cells)]]
    frequency = np.bincount(seen % size, minlength=size)
    found: Floats = np.log((len(starts) + 1) / (frequency + 1)).astype(np.float32)
    return found
