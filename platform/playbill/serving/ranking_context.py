"""What each stage of a request finds out. Nothing here is changed once it is made.

    parse    request_context   RecommendRequest -> ParsedContext
    read     member_state      ParsedContext -> MemberState
    plan     ranking_query     ParsedContext, MemberState -> RankingQuery
    score    ranker            RankingQuery -> ScoredLists
    arrange  ranker            ScoredLists -> RankingResult
    respond  response          RankingContext -> LoggedResponse

Every stage returns its notes with what it found: `RankingContext.notes` are those of all stages in their order.
Axis letters: T titles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from playbill.datasets import Request
from playbill.definitions.specs import CanvasSpec
from playbill.ranking.blend import RankedList, Scores
from playbill.ranking.candidates import Columns, Mask, Viewer
from playbill.ranking.page_builder import Chances, PlacedRow
from playbill.ranking.page_rules import SPARE
from playbill.ranking.page_scores import PageScores
from playbill.ranking.row_plans import RowPlan
from playbill.schema import UNKNOWN_COUNTRY
from playbill.serving.active_model import ActiveCanvas, ActiveModel, RequestScorer
from playbill.serving.messages import MODEL_POLICY, ContextValue, RecommendRequest

if TYPE_CHECKING:
    from playbill.ranking.scoring.row_scoring import PageState


@dataclass(frozen=True)
class ParsedContext:
    """A request, checked, and read as its canvas reads it.

    Args:
        active: What answers it.
        canvas: Where it is shown.
        request: As it was given.
        at: Its moment: what happened strictly before it counts.
        query: What was typed, normalised; None = nothing.
        source: Column of the source title, `ABSENT` without one.
        own: Values of context fields of outside packages.
        notes: What was ignored or is missing.
    """

    active: ActiveModel
    canvas: ActiveCanvas
    request: RecommendRequest
    at: datetime
    query: str | None
    source: int
    own: Mapping[str, ContextValue]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServedFeatures:
    """Features that a request was answered with, and where they are from, so that they can be checked later.

    Args:
        values: `view__feature` -> value, None where missing; empty when the store did not answer.
        service: The feature service; None when it did not answer.
        values_at: View -> time of its value, None where it had none. None as a whole when the values were read from
            the feature files, as for a moment before the materialised one.
        request: Fields of the request that they were read by, beside member and moment.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    service: str | None = None
    values_at: Mapping[str, datetime | None] | None = None
    request: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def of_nothing(self) -> bool:
        """Whether the store answered, and held no value of any view of the member."""
        return bool(self.values_at) and all(moment is None for moment in (self.values_at or {}).values())


@dataclass(frozen=True)
class MemberState:
    """Everything read of the member.

    Args:
        history: Rows of `interactions` strictly before the moment, by seq.
        features: What the model reads of the member, and the times of the values.
        country: The member's, `ZZ` when not known.
        language: The member's.
        kids_profile: Whether only titles for kids may be shown.
        notes: What was unknown or could not be read.
    """

    history: pl.DataFrame
    features: ServedFeatures
    country: str = UNKNOWN_COUNTRY
    language: str | None = None
    kids_profile: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RankingQuery:
    """What is to be ranked, for whom, by which rules.

    Args:
        canvas: Where it is shown.
        request: What the model reads.
        viewer: What candidate rules read.
        plans: Rows to fill, in the order they are written in; None when no rows are wanted.
        k: Titles in a list at most.
        notes: What was not as requested.
    """

    canvas: ActiveCanvas
    request: Request
    viewer: Viewer
    plans: tuple[RowPlan, ...] | None
    k: int
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> CanvasSpec:
        """The canvas's definition."""
        return self.canvas.spec


class ListScores(NamedTuple):
    """[T] scores of a list, exact for its best, and its [T] candidates."""

    scores: Scores
    candidates: Mask


@dataclass(frozen=True)
class BlendedLists:
    """The canvas's own list and every row with a blend, as the model scored them together.

    Args:
        scorer: What scored them.
        place: Name -> its row in `page`: None for the canvas's own list, else a `row_id`.
        blends: [R] head -> weight.
        requests: [R] what the model was asked for each list.
        page: Blends of the R lists over their candidates; None where there is nothing to score.
        chances: `row_id` -> [T] logits of a play.
    """

    scorer: RequestScorer
    place: Mapping[str | None, int] = field(default_factory=dict)
    blends: Sequence[Mapping[str, float]] = ()
    requests: Sequence[Request] = ()
    page: PageScores | None = None
    chances: Chances = field(default_factory=dict)

    def of(self, name: str | None, k: int) -> ListScores | None:
        """Return a list's scores, exact for its best `k`; None where it was not scored."""
        if self.page is None or name not in self.place:
            return None
        row = self.place[name]
        return ListScores(self.page.sharpened(row, SPARE * k), self.page.candidates[row])

    def parts(self, name: str | None, columns: Columns) -> dict[str, tuple[float, Scores]]:
        """Return head or term -> its weight and its weighted part of some titles' scores; empty where none scored them.

        What terms of the member's history add to a head stands apart from it, as `head.term`.
        """
        if self.page is None or name not in self.place:
            return {}
        row = self.place[name]
        found: dict[str, tuple[float, Scores]] = {}
        for (head, weight), term in zip(self.blends[row].items(), self.page.terms[row], strict=True):
            score = term.exact(columns)
            for own, (times, values) in self.scorer.term_parts(self.requests[row], head).items():
                part = weight * times * values[columns].astype(np.float64)
                found[f"{head}.{own}"] = weight * times, part
                score = score - part
            found[head] = weight, score
        return found


@dataclass(frozen=True)
class ScoredLists:
    """Scores of every list of an answer.

    Args:
        policy: What ranks the canvas: `model`, or the name of its fallback.
        main: The canvas's own list; None on a canvas of rows.
        rows: One for each plan of the query.
        reason: Why a fallback ranks.
        notes: What was added to lists, or left out of them.
        state: What heads about rows and pages see of the request; None where none is asked.
        blended: What the model scored; None where a fallback ranks.
    """

    policy: str
    main: ListScores | None
    rows: tuple[ListScores, ...]
    reason: str | None = None
    notes: tuple[str, ...] = ()
    state: PageState | None = None
    blended: BlendedLists | None = None


@dataclass(frozen=True)
class RankingResult:
    """The lists of an answer.

    Args:
        scored: What they were made of.
        items: The canvas's own list; empty on a canvas of rows.
        candidates: [T] what it was chosen from.
        rows: From the top down; None when no rows were wanted.
        absent: `row_id` of each row that is not shown -> why.
    """

    scored: ScoredLists
    items: RankedList
    candidates: Mask
    rows: tuple[PlacedRow, ...] | None = None
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_model(self) -> bool:
        """Whether the model ranked it, and no fallback."""
        return self.scored.policy == MODEL_POLICY


@dataclass(frozen=True)
class RankingContext:
    """One request with what every stage made of it."""

    parsed: ParsedContext
    member: MemberState
    query: RankingQuery
    result: RankingResult

    @property
    def notes(self) -> tuple[str, ...]:
        """What members' lists are not, and why, in the order of the stages."""
        return (*self.parsed.notes, *self.member.notes, *self.query.notes, *self.result.scored.notes)
