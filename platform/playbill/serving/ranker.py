"""From one understood request to ranked titles and rows. Reads nothing outside its arguments.

Axis letters: T titles.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from playbill.datasets import Request
from playbill.definitions.specs import CandidatesSpec, CanvasSpec
from playbill.ranking.blend import RankedList, Scores, break_ties, rank
from playbill.ranking.candidates import ABSENT, Columns, Mask, Viewer, select
from playbill.ranking.fallbacks import fallback_scores
from playbill.ranking.page_builder import (
    AS_WRITTEN,
    Chances,
    FilledRow,
    filled_rows,
    page_of,
    rank_rows,
    row_candidates,
)
from playbill.ranking.page_rules import SPARE, PageRules, valued_by
from playbill.ranking.relevance import is_matched, matches_of_query, matches_of_source
from playbill.ranking.row_plans import RowPlan, filled_up
from playbill.serving.active_model import ActiveModel, Scorer
from playbill.serving.messages import MODEL_POLICY

if TYPE_CHECKING:
    from playbill.ranking.page_scores import PageScores
    from playbill.ranking.scoring.row_scoring import PageState

logger = logging.getLogger(__name__)

NO_MODEL = "no approved model"
NO_MATCH = "no title matches '{}' by name, character, genre, year or synopsis"


@dataclass(frozen=True)
class RankingQuery:
    """A request after everything in it has been looked up.

    Args:
        canvas: Where it is asked.
        request: What the model reads.
        viewer: What candidate rules read.
        plans: Rows to fill, in the order of the page; None when no rows are wanted.
        k: Titles in a list at most.
    """

    canvas: CanvasSpec
    request: Request
    viewer: Viewer
    plans: tuple[RowPlan, ...] | None
    k: int


@dataclass(frozen=True)
class RankingResult:
    """Who ranked, and what came of it."""

    policy: str
    reason: str | None
    items: RankedList
    candidates: Mask
    rows: tuple[FilledRow, ...] | None
    absent: dict[str, str] = field(default_factory=dict)
    """`row_id` of each row that is not shown -> why."""
    notes: tuple[str, ...] = ()
    scorer: Scorer | None = None
    """What scored it; None where a fallback answered."""


def answer(served: ActiveModel, query: RankingQuery) -> RankingResult:
    """Rank by the model; without its title features when they cannot be read; by the canvas's fallback at last."""
    if served.scorer is None:
        return by_fallback(served, query, NO_MODEL)
    failed: Exception | None = None
    for scorer in (served.scorer, served.plain_scorer):
        if scorer is None:
            continue
        try:
            return _by_model(served, query, scorer, _excuse(failed))
        except Exception as error:
            # Whatever is wrong with a model or its stores, members get a list; the reason is in the answer.
            logger.exception("%s:%s failed on canvas %s", served.model, served.version, query.canvas.name)
            failed = error
    return by_fallback(served, query, f"the model failed: {type(failed).__name__}")


def _excuse(failed: Exception | None) -> tuple[str, ...]:
    if failed is None:
        return ()
    return (f"title features cannot be read, so they are imputed as missing: {type(failed).__name__}",)


def _by_model(served: ActiveModel, query: RankingQuery, scorer: Scorer, notes: tuple[str, ...]) -> RankingResult:
    scored, notes_of_rows = score_lists(served, query, scorer), list(notes)
    text = query.request.query
    if text and not is_matched(served.snapshot.catalogue, text):
        notes_of_rows.append(f"{NO_MATCH.format(text)}: the model ranks by the rest of the request")
    main = scored.of(None, query.k)

    def row(plan: RowPlan) -> tuple[Scores, Mask]:
        found = scored.of(plan.row_id, query.k)
        if found is None:
            scores = _policy(served, query, plan.spec.policy or query.canvas.fallback)
            candidates = _candidates(served, plan.spec.candidates, _row_viewer(query, plan))
            if main is not None and not plan.spec.chart:
                scores = break_ties(scores, main[0], candidates, SPARE * query.k)
            found = scores, candidates
        return _filled_up(served, query, plan, *found, notes_of_rows)

    by = (_page_state(query, scorer), scored.chances)
    answer = _assemble(served, query, MODEL_POLICY, None, main, row, by)
    return replace(answer, notes=tuple(notes_of_rows), scorer=scorer)


def by_fallback(served: ActiveModel, query: RankingQuery, reason: str) -> RankingResult:
    """Answer by the canvas's fallback, and say why.

    Where the request has a query or a source title, only titles that fit it are listed, those that fit best first.
    """
    policy, notes = query.canvas.fallback, list[str]()

    def row(plan: RowPlan) -> tuple[Scores, Mask]:
        scores = _policy(served, query, plan.spec.policy or policy)
        candidates = _candidates(served, plan.spec.candidates, _row_viewer(query, plan))
        if plan.source != ABSENT:
            matches = matches_of_source(served.snapshot.catalogue, plan.source)
            return _fitting(matches, scores, candidates, query.k)
        return _filled_up(served, query, plan, scores, candidates, notes)

    main = None
    if query.canvas.target == "title":
        candidates = _candidates(served, query.canvas.candidates, query.viewer)
        main = _fitting_request(served, query, _policy(served, query, policy), candidates, notes)
    return replace(_assemble(served, query, policy, reason, main, row), notes=tuple(notes))


def _fitting_request(
    served: ActiveModel, query: RankingQuery, scores: Scores, candidates: Mask, notes: list[str]
) -> tuple[Scores, Mask]:
    """Keep the candidates that fit the request's query, or its source title; all where it has neither."""
    catalogue, text, source = served.snapshot.catalogue, query.request.query, query.viewer.source
    if text:
        matches = matches_of_query(catalogue, text, served.snapshot.plays.before(query.viewer.at))
        if not matches.any():
            notes.append(f"{NO_MATCH.format(text)}: the list is empty")
        scores, candidates = _fitting(matches, scores, candidates, query.k)
        if matches.any() and not candidates.any():
            notes.append(f"no title that matches '{text}' may be shown here: the list is empty")
    elif source != ABSENT:
        name = catalogue.name(source, query.request.language)
        scores, candidates = _fitting(matches_of_source(catalogue, source), scores, candidates, query.k)
        if not candidates.any():
            notes.append(f"no title that may be shown shares a genre, a character or words of its name with '{name}'")
    return scores, candidates


def _fitting(matches: Scores, scores: Scores, candidates: Mask, k: int) -> tuple[Scores, Mask]:
    """Order the candidates that match by how well they do, and those that match alike by the policy's scores."""
    fitting = candidates & (matches > 0)
    return break_ties(matches, scores, fitting, SPARE * k), fitting


def _filled_up(
    served: ActiveModel, query: RankingQuery, plan: RowPlan, scores: Scores, candidates: Mask, notes: list[str]
) -> tuple[Scores, Mask]:
    viewer, policy = _row_viewer(query, plan), query.canvas.fallback
    scores, candidates, note = filled_up(plan, scores, candidates, served.snapshot.plays, viewer, policy)
    if note:
        notes.append(note)
    return scores, candidates


def _assemble(
    served: ActiveModel,
    query: RankingQuery,
    policy: str,
    reason: str | None,
    main: tuple[Scores, Mask] | None,
    row: Callable[[RowPlan], tuple[Scores, Mask]],
    by: tuple[PageState | None, Chances] | None = None,
) -> RankingResult:
    if main is None:
        return _ranked_rows(served, query, policy, reason, row, None if by is None else by[0])
    scores, candidates = main
    found = RankingResult(policy, reason, rank(scores, candidates, query.k), candidates, None)
    if query.plans is None:
        return found
    spec = query.canvas.page or AS_WRITTEN
    state, chances = by or (None, {})
    rules = PageRules.of(spec, query.k, query.request.device, {} if state is None else dict(state.page))
    values = valued_by(spec, state) if by is not None else None
    page = page_of(query.plans, served.snapshot.catalogue, row, rules, values, chances)
    return replace(found, rows=tuple(filled_rows(page)), absent={**page.absent, **_left_out_rows(served, query)})


def _ranked_rows(
    served: ActiveModel,
    query: RankingQuery,
    policy: str,
    reason: str | None,
    row: Callable[[RowPlan], tuple[Scores, Mask]],
    state: PageState | None,
) -> RankingResult:
    """Answer a canvas of rows: no list of its own, and its rows by its blend, or as written where there is no state."""
    rows = row_candidates(query.plans or (), served.snapshot.catalogue, row)
    page = rank_rows(rows, query.k, None if state is None else state.values(query.canvas.blend))
    nothing = np.zeros(len(served.snapshot.catalogue), np.bool_)
    empty = RankedList(np.zeros(0, np.int64), np.zeros(0))
    absent = {**page.absent, **_left_out_rows(served, query)}
    return RankingResult(policy, reason, empty, nothing, tuple(filled_rows(page)), absent)


def _left_out_rows(served: ActiveModel, query: RankingQuery) -> dict[str, str]:
    """Return row -> why this version of the model cannot fill it."""
    return served.resolved.left_out.rows.get(query.canvas.requested_as, {})


def _page_state(query: RankingQuery, scorer: Scorer) -> PageState | None:
    """Return what heads about rows and pages see of the request, None where nothing asks them."""
    page = query.canvas.page
    wanted = query.canvas.target == "row" or (query.plans is not None and page is not None and bool(page.heads))
    if not wanted:
        return None
    return next(iter(scorer.page_states([query.request])), None)


@dataclass(frozen=True)
class ScoredLists:
    """The canvas's own list and every row with a blend, scored at once.

    Args:
        place: Name -> its row in `page`: None for the canvas's own list, else a `row_id`.
        blends: [R] head -> weight.
        page: Blends of the R lists over their candidates; None where there is nothing to score.
        chances: `row_id` -> [T] logits of a play.
        requests: [R] what was asked for each list.
        scorer: What scored them.
    """

    place: Mapping[str | None, int]
    blends: Sequence[Mapping[str, float]]
    page: PageScores | None
    chances: Chances
    requests: Sequence[Request] = ()
    scorer: Scorer | None = None

    def of(self, name: str | None, k: int) -> tuple[Scores, Mask] | None:
        """Return a list's [T] scores, exact for its best, and its candidates; None where it was not scored."""
        if self.page is None or name not in self.place:
            return None
        row = self.place[name]
        return self.page.sharpened(row, SPARE * k), self.page.candidates[row]

    def parts(self, name: str | None, columns: Columns) -> dict[str, tuple[float, Scores]]:
        """Return head or term -> its weight and its weighted part of some titles' scores; empty where none scored them.

        What terms of the member's history add to a head stands apart from it, as `head.term`.
        """
        if self.page is None or self.scorer is None or name not in self.place:
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


def score_lists(served: ActiveModel, query: RankingQuery, scorer: Scorer) -> ScoredLists:
    """Score the canvas's own list and every row that has a blend, all at once; and plays in every row.

    A canvas of rows has no list of its own.
    """
    plans = [(place, plan) for place, plan in enumerate(query.plans or ()) if plan.spec.blend is not None]
    lists = [] if query.canvas.target == "row" else [query.canvas]
    blends = [*(canvas.blend for canvas in lists), *(plan.spec.blend or {} for _, plan in plans)]
    requests = [*(query.request for _ in lists), *(_row_request(served, query, plan, place) for place, plan in plans)]
    rules = [(plan.spec.candidates, _row_viewer(query, plan)) for _, plan in plans]
    masks = [_candidates(served, *own) for own in [*((one.candidates, query.viewer) for one in lists), *rules]]
    valued = _valued(query)
    nothing = [np.zeros(len(served.snapshot.catalogue), np.bool_)] * len(valued)
    if not masks and not valued:
        return ScoredLists({}, [], None, {})
    page = scorer.score_page(
        [*requests, *(request for request, _ in valued.values())],
        [*blends, *({head: 0.0} for _, head in valued.values())],
        np.stack([*masks, *nothing]),
    )
    names = [*(None for _ in lists), *(plan.row_id for _, plan in plans)]
    chances = {name: page.logits(len(names) + row) for row, name in enumerate(valued)}
    places = {name: row for row, name in enumerate(names)}
    return ScoredLists(places, blends, page, chances, requests, scorer)


def _valued(query: RankingQuery) -> dict[str, tuple[Request, str]]:
    """Return for each `row_id` how its titles' plays are asked for: all as if they came first, to be compared."""
    page = query.canvas.page
    if page is None or page.expected is None or page.strategy == "fixed":
        return {}
    own = replace(query.request, query=None, row_position=0)
    return {plan.row_id: (replace(own, row=plan.spec.name), page.expected.head) for plan in query.plans or ()}


def _row_request(served: ActiveModel, query: RankingQuery, plan: RowPlan, place: int) -> Request:
    source = None if plan.source == ABSENT else served.snapshot.catalogue.title_ids[plan.source]
    return replace(
        query.request,
        canvas=plan.scored_as,
        source_title_id=source,
        query=None,
        row=plan.spec.name,
        row_position=place,
    )


def _row_viewer(query: RankingQuery, plan: RowPlan) -> Viewer:
    return replace(query.viewer, source=plan.source)


def _candidates(served: ActiveModel, rules: CandidatesSpec, viewer: Viewer) -> Mask:
    return select(served.snapshot.catalogue, rules, viewer)


def _policy(served: ActiveModel, query: RankingQuery, name: str) -> Scores:
    scores = fallback_scores(name, served.snapshot.plays, query.viewer)
    return np.asarray(scores, dtype=np.float64)
