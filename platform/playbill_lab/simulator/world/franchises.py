"""Films that continue one another: which of a catalogue's titles are parts of one franchise, in order.

Axis letters: T titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from playbill.arrays import Ints32

MOST_PARTS = 6
"""Parts of a franchise, at most; each number from 2 on is as likely."""
_WORD = {
    "en": "Part",
    "es": "Parte",
    "pt": "Parte",
    "fr": "Partie",
    "de": "Teil",
    "it": "Parte",
    "tr": "Bölüm",
    "pl": "Część",
    "ja": "パート",
    "ko": "파트",
    "hi": "भाग",
    "ar": "الجزء",
}
_NUMERALS = ("I", "II", "III", "IV", "V", "VI")


@dataclass(frozen=True, eq=False)
class Franchises:
    """The franchises of a catalogue."""

    head: Ints32  # [T] first part of each title's franchise; a title on its own is its own head
    part: Ints32  # [T] place in the franchise, from 1
    follows: Ints32  # [T] the part before; -1 for first parts and titles on their own

    @classmethod
    def none(cls, titles: int) -> Self:
        """Return a catalogue in which nothing continues anything."""
        own = np.arange(titles, dtype=np.int32)
        return cls(own, np.ones(titles, np.int32), np.full(titles, -1, np.int32))

    @classmethod
    def draw(cls, films: NDArray[np.bool_], share: float, rng: np.random.Generator) -> Self:
        """Draw franchises from a `share` of the titles that can be parts, `films` [T]."""
        found = cls.none(len(films))
        order = rng.permutation(np.flatnonzero(films))
        order = order[: round(share * len(order))]
        edges = np.cumsum(rng.integers(2, MOST_PARTS + 1, size=len(order)))
        place = np.arange(len(order))
        first = np.concatenate([[0], edges])[np.searchsorted(edges, place, side="right")]
        found.head[order], found.part[order] = order[first], place - first + 1
        later = place > first
        found.follows[order[later]] = order[place[later] - 1]
        return found

    @cached_property
    def then(self) -> Ints32:
        """[T] the part after; -1 for last parts and titles on their own."""
        after = np.full(len(self.follows), -1, np.int32)
        later = np.flatnonzero(self.follows >= 0)
        after[self.follows[later]] = later
        return after

    @cached_property
    def any(self) -> bool:
        """Say whether anything continues anything."""
        return bool((self.follows >= 0).any())

    def in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values [T], such as days of release, dealt anew within each franchise so that they rise by part."""
        wanted, given = np.lexsort((self.part, self.head)), np.lexsort((values, self.head))
        dealt = np.empty_like(values)
        dealt[wanted] = values[given]
        return dealt

    def named(self, names: Sequence[str], language: str) -> list[str]:
        """Return names [T] in one language: those of later parts are the first part's, with their number."""
        word = _WORD.get(language, _WORD["en"])
        return [
            names[head] if part == 1 else f"{names[head]} {word} {_NUMERALS[part - 1]}"
            for head, part in zip(self.head.tolist(), self.part.tolist(), strict=True)
        ]
