"""What a page is built from: rows that could be on it, the rules it keeps to, and how rows are valued.

Axis letters: T titles, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from playbill.ranking.blend import Scores
from playbill.ranking.candidates import ABSENT, Mask
from playbill.ranking.lists import RankedList, rank
from playbill.ranking.rows import RowPlan
from playbill.specs.page import PageSpec, ViewportSpec

SPARE = 4
"""How many times the titles of a row are ranked at first; more only when the rows above took so many."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RowEntry:
    """What a row head reads of a row.

    Args:
        name: Its definition's name, such as `genre_rows`.
        genre: Of a genre row.
        about: Column of its source title, `ABSENT` without one.
        head: Column of the title it begins with.
    """

    name: str
    genre: str | None = None
    about: int = ABSENT
    head: int = ABSENT


class RowValues(Protocol):
    """How likely rows are to be played from: logarithms of probabilities, or anything that orders rows."""

    def __call__(self, rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Values:
        """Return [R] values of rows, given those above them; none above asks for each row by itself."""
        ...


@dataclass(frozen=True, eq=False)
class RowCandidate:
    """A row that could be on a page.

    Args:
        plan: Which row.
        scores: [T] its own order of titles.
        wanted: [T] titles it may show, its genre's alone where it is of one.
    """

    plan: RowPlan
    scores: Scores
    wanted: Mask
    _ranked: dict[int, RankedList] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Its definition's name."""
        return self.plan.spec.name

    def entry(self, titles: RankedList | None = None) -> RowEntry:
        """Return what a row head reads of it, with these titles or its own first one."""
        head = int(titles.columns[0]) if titles is not None and len(titles) else ABSENT
        return RowEntry(self.name, self.plan.genre, self.plan.source, head)

    def fill(self, taken: Mask, k: int) -> RankedList:
        """Return its best `k` titles that are not taken; empty where fewer than its minimum length are left."""
        if k not in self._ranked:
            self._ranked[k] = rank(self.scores, self.wanted, min(SPARE * k, max(len(self.scores), 1)))
        ranked = self._ranked[k]
        left = ranked.without(taken)
        needed = max(k, self.plan.spec.minimum_length)
        if len(left) < needed and len(ranked) < self.count:
            left = rank(self.scores, self.wanted & ~taken, needed)
        if len(left) < self.plan.spec.minimum_length:
            return left.head(0)
        return left.head(k)

    @property
    def count(self) -> int:
        """Titles it could show."""
        return int(self.wanted.sum())


@dataclass(frozen=True)
class PageRules:
    """What one page keeps to.

    Args:
        spec: The canvas's.
        k: Titles of a row at most.
        viewport: Of the device, None = nothing is known of it.
        first: Whether the placed row comes first; None where nothing places it.
    """

    spec: PageSpec
    k: int
    viewport: ViewportSpec | None = None
    first: bool | None = None

    @classmethod
    def of(cls, spec: PageSpec, k: int, device: str | None, heads: dict[str, float] | None = None) -> PageRules:
        """Return the rules of one request.

        Args:
            spec: The canvas's.
            k: Titles of a row at most.
            device: Where the page is shown.
            heads: Head of level `page` -> its probability, as far as they are known.
        """
        likely = (heads or {}).get(spec.placed.head) if spec.placed else None
        first = None if likely is None or spec.placed is None else likely >= spec.placed.first_from
        return cls(spec, k, spec.viewports.get(device or ""), first)

    def place_of(self, name: str) -> int | None:
        """Return the place that a row is given among the rows after the pinned ones, None where its score decides."""
        placed = self.spec.placed
        if placed is None or self.first is None or name != placed.row:
            return None
        return 0 if self.first else placed.otherwise
