"""What a page is built from: rows that could be on it, the rules it keeps to, and how rows are valued.

Rows are valued by the plays that their titles are expected to bring, and by heads about rows.
Axis letters: T titles, R rows, C columns of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from playbill.arrays import Floats64
from playbill.definitions.specs.canvas import ExpectedPlaySpec, PageSpec, ViewportSpec
from playbill.ranking.blend import RankedList, Scores, rank
from playbill.ranking.candidates import ABSENT, Mask
from playbill.ranking.row_plans import RowPlan

if TYPE_CHECKING:
    from playbill.ranking.scoring.row_scoring import PageState


SPARE = 4  # how many times the titles of a row are ranked at first; more only when the rows above took so many
ROW_DECAY = 0.78  # how much of the attention at a row's head reaches the head of the next row


@dataclass(frozen=True, slots=True)
class RowEntry:
    """What a row head reads of a row."""

    name: str  # its definition's name, such as `genre_rows`
    genre: str | None = None  # of a genre row
    about: int = ABSENT  # column of its source title, `ABSENT` without one
    head: int = ABSENT  # column of the title it begins with
    expected: float | None = None  # how likely one of the titles it shows is played, where that is known


class RowValues(Protocol):
    """How likely rows are to be played from: logarithms of probabilities, or anything that orders rows."""

    def __call__(self, rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
        """Return [R] values of rows, given those above them; none above asks for each row by itself."""


@dataclass(frozen=True, eq=False)
class RowCandidate:
    """A row that could be on a page."""

    plan: RowPlan  # which row
    scores: Scores  # [T] its own order of titles
    wanted: Mask  # [T] titles it may show, its genre's alone where it is of one
    # [T] logits of a play of each title in this row once it is looked at; None where nothing says so
    chances: npt.NDArray[np.floating[Any]] | None = None
    _ranked: dict[int, RankedList] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Its definition's name."""
        return self.plan.spec.name

    def entry(self, titles: RankedList, looks: Floats64 | None = None) -> RowEntry:
        """Return what values a row that shows these titles; without `looks` [C] nobody asks for the expected play."""
        head = int(titles.columns[0]) if len(titles) else ABSENT
        expected = None
        if looks is not None and self.chances is not None:
            expected = expected_play(self.chances[titles.columns[: len(looks)]], looks)
        return RowEntry(self.name, self.plan.genre, self.plan.source, head, expected)

    def fill(self, taken: Mask, k: int) -> RankedList:
        """Return its best `k` titles that are not taken; empty where fewer than its minimum length are left.

        A chart shows its titles whatever other rows show.
        """
        if self.plan.spec.chart:
            taken = np.zeros_like(taken)
        if k not in self._ranked:
            self._ranked[k] = rank(self.scores, self.wanted, min(SPARE * k, max(len(self.scores), 1)))
        ranked, needed = self._ranked[k], max(k, self.plan.spec.minimum_length)
        best = ranked.columns[:needed]
        if len(best) == needed and not taken[best].any():
            return ranked.head(k)
        left = ranked.without(taken)
        if len(left) < needed and len(ranked) < self.count:
            left = rank(self.scores, self.wanted & ~taken, needed)
        if len(left) < self.plan.spec.minimum_length:
            return left.head(0)
        return left.head(k)

    @property
    def count(self) -> int:
        """Titles it could show."""
        return int(self.wanted.sum())


def expected_play(logits: npt.NDArray[np.floating[Any]], looks: Floats64) -> float:
    """Return how likely a title of a row is played: `1 - prod_j (1 - look_j sigmoid(logit_j))`; see `ExpectedPlaySpec`.

    Logits are of a play of each title once it is looked at, from the left; there are at least as many `looks`.
    """
    played = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return float(-np.expm1(np.log1p(-looks[: len(played)] * played).sum()))


@dataclass(frozen=True)
class PageRules:
    """What one page keeps to."""

    spec: PageSpec  # the canvas's
    k: int  # titles of a row at most
    viewport: ViewportSpec | None = None  # of the device, None = nothing is known of it
    first: bool | None = None  # whether the placed row comes first; None where nothing places it

    @classmethod
    def of(cls, spec: PageSpec, k: int, device: str | None, heads: dict[str, float] | None = None) -> PageRules:
        """Return the rules of one request; `heads` are the probabilities that heads of level `page` give, if known."""
        likely = (heads or {}).get(spec.placed.head) if spec.placed else None
        first = None if likely is None or spec.placed is None else likely >= spec.placed.first_from
        return cls(spec, k, spec.viewports.get(device or ""), first)

    @property
    def looks(self) -> Floats64 | None:
        """[C] how likely each column of a row is looked at before anybody scrolls, where the page asks for it."""
        if self.spec.expected is None:
            return None
        columns = self.k if self.viewport is None else min(self.viewport.columns, self.k)
        found: Floats64 = self.spec.expected.examination_prob ** np.arange(columns, dtype=np.float64)
        return found

    def place_of(self, name: str) -> int | None:
        """Return the place that a row is given among the rows after the pinned ones, None where its score decides."""
        placed = self.spec.placed
        if placed is None or self.first is None or name != placed.row:
            return None
        return 0 if self.first else placed.otherwise


SMALLEST = 1e-12
"""The least chance of a play that a row is valued by: a row of no chance is worth little, and not minus infinity."""


@dataclass(frozen=True)
class ValuedRows:
    """Values of rows by the plays expected of their titles, and by heads about rows if any; a `RowValues`."""

    expected: ExpectedPlaySpec
    blended: RowValues | None = None

    def __call__(self, rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
        """Return [R] weighted sums of log probabilities.

        Raises:
            ValueError: A row does not say what its titles are expected to give.
        """
        if unknown := [row.name for row in rows if row.expected is None]:
            raise ValueError(f"nothing says how likely titles of row '{unknown[0]}' are played")
        chances = np.array([row.expected for row in rows], np.float64)
        total: Floats64 = self.expected.weight * np.log(np.maximum(chances, SMALLEST))
        return total if self.blended is None else total + self.blended(rows, above)


def valued_by(spec: PageSpec, state: PageState | None) -> RowValues | None:
    """Return how a page's specification values rows, None where they come as they are written.

    Without a `state` heads about rows say nothing; `expected` needs rows with `chances`.
    """
    if spec.strategy == "fixed":
        return None
    blended = state.values(spec.blend) if state is not None and spec.blend else None
    return blended if spec.expected is None else ValuedRows(spec.expected, blended)
