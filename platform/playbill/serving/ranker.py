"""Stages 4 and 5, score and arrange: lists of titles, and rows on a page. Reads nothing outside its arguments.

The model scores every list at once. Where it fails, the network without title features does; where that fails too, the
canvas's fallback ranks, so that members always get a list.
Axis letters: T titles.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from playbill.datasets import Request
from playbill.ranking.blend import RankedList, Scores, break_ties, rank
from playbill.ranking.candidates import ABSENT, Mask, Viewer, select
from playbill.ranking.fallbacks import fallback_scores
from playbill.ranking.page_builder import AS_WRITTEN, build_page, rank_rows, row_candidates
from playbill.ranking.page_rules import SPARE, PageRules, valued_by
from playbill.ranking.relevance import is_matched, matches_of_query, matches_of_source
from playbill.ranking.row_plans import RowPlan, filled_up
from playbill.serving.active_model import ActiveModel, RequestScorer
from playbill.serving.messages import MODEL_POLICY
from playbill.serving.ranking_context import BlendedLists, ListScores, RankingQuery, RankingResult, ScoredLists

if TYPE_CHECKING:
    from playbill.ranking.scoring.row_scoring import PageState

logger = logging.getLogger(__name__)

NO_MODEL = "no approved model"
NO_MATCH = "no title matches '{}' by name, character, genre, year or synopsis"


def rank_lists(active: ActiveModel, query: RankingQuery) -> RankingResult:
    """Rank by the model; without its title features when they cannot be read; by the canvas's fallback at last."""
    if active.scorer is None:
        return rank_by_fallback(active, query, NO_MODEL)
    failure, notes = "", tuple[str, ...]()
    for scorer in (active.scorer, active.plain_scorer):
        if scorer is None:
            continue
        try:
            scored = score_by_model(active, query, scorer)
            return arrange(active, query, replace(scored, notes=(*notes, *scored.notes)))
        except Exception as error:
            # Whatever is wrong with a model or its stores, members get a list; the reason is in the answer.
            logger.exception("%s:%s failed on canvas %s", active.model, active.version, query.spec.name)
            failure = type(error).__name__
            notes = (f"title features cannot be read, so they are imputed as missing: {failure}",)
    return rank_by_fallback(active, query, f"the model failed: {failure}")


def rank_by_fallback(active: ActiveModel, query: RankingQuery, reason: str) -> RankingResult:
    """Rank by the canvas's fallback, and say why."""
    return arrange(active, query, score_by_fallback(active, query, reason))


def score_by_model(active: ActiveModel, query: RankingQuery, scorer: RequestScorer) -> ScoredLists:
    """Score every list by the model; rows that a policy ranks by that policy, ties by the model."""
    blended = _blend(active, query, scorer)
    main, text, notes = blended.of(None, query.k), query.request.query, []
    if text and not is_matched(active.snapshot.catalogue, text):
        notes.append(f"{NO_MATCH.format(text)}: the model ranks by the rest of the request")
    rows = []
    for plan in query.plans or ():
        row = blended.of(plan.row_id, query.k)
        if row is None:
            row = _row_by_policy(active, query, plan)
            if main is not None and not plan.spec.chart:
                row = row._replace(scores=break_ties(row.scores, main.scores, row.candidates, SPARE * query.k))
        row, filled = _filled_up(active, query, plan, row)
        rows.append(row)
        notes += filled
    state = _page_state(query, scorer)
    return ScoredLists(MODEL_POLICY, main, tuple(rows), notes=tuple(notes), state=state, blended=blended)


def score_by_fallback(active: ActiveModel, query: RankingQuery, reason: str) -> ScoredLists:
    """Score every list by the canvas's fallback, or by the row's own policy.

    Where the request has a query or a source title, only titles that match it are listed, those that match best first.
    """
    policy, catalogue, notes = query.spec.fallback, active.snapshot.catalogue, list[str]()
    main = None
    if query.spec.target == "title":
        candidates = select(catalogue, query.spec.candidates, query.viewer)
        own = ListScores(fallback_scores(policy, active.snapshot.plays, query.viewer), candidates)
        main, notes = _matching_request(active, query, own)
    rows = []
    for plan in query.plans or ():
        row = _row_by_policy(active, query, plan)
        if plan.source != ABSENT:
            rows.append(_matching(matches_of_source(catalogue, plan.source), row, query.k))
            continue
        row, filled = _filled_up(active, query, plan, row)
        rows.append(row)
        notes += filled
    return ScoredLists(policy, main, tuple(rows), reason, tuple(notes))


def arrange(active: ActiveModel, query: RankingQuery, scored: ScoredLists) -> RankingResult:
    """Cut the canvas's own list, and put rows on a page; on a canvas of rows, order the rows by its blend."""
    catalogue, plans, spec = active.snapshot.catalogue, query.plans, query.spec
    if scored.main is None:
        values = None if scored.state is None else scored.state.values(spec.blend)
        page = rank_rows(row_candidates(plans or (), catalogue, scored.rows), query.k, values)
        items, candidates = RankedList(np.zeros(0, np.int64), np.zeros(0)), np.zeros(len(catalogue), np.bool_)
    else:
        items, candidates = rank(*scored.main, query.k), scored.main.candidates
        if plans is None:
            return RankingResult(scored, items, candidates)
        page_spec = spec.page or AS_WRITTEN
        heads = {} if scored.state is None else dict(scored.state.page)
        rules = PageRules.of(page_spec, query.k, query.request.device, heads)
        by_model = scored.blended is not None
        rows = row_candidates(
            plans,
            catalogue,
            scored.rows,
            genre_consistency=page_spec.genre_consistency,
            chances=None if scored.blended is None else scored.blended.chances,
        )
        page = build_page(rows, rules, valued_by(page_spec, scored.state) if by_model else None)
    return RankingResult(scored, items, candidates, page.rows, {**page.absent, **query.canvas.absent_rows})


class _ModelList(NamedTuple):
    """A list that the model scores: what it is called, how heads are weighed, the request, and [T] its candidates."""

    name: str | None
    blend: Mapping[str, float]
    request: Request
    candidates: Mask


def _blend(active: ActiveModel, query: RankingQuery, scorer: RequestScorer) -> BlendedLists:
    """Score the canvas's own list and every row that has a blend, all at once; and plays in every row.

    A canvas of rows has no list of its own.
    """
    lists, plays = list(_model_lists(active, query)), list(_play_lists(active, query))
    if not lists and not plays:
        return BlendedLists(scorer)
    both = [*lists, *plays]
    page = scorer.score_page(
        [one.request for one in both], [one.blend for one in both], np.stack([one.candidates for one in both])
    )
    return BlendedLists(
        scorer,
        {one.name: row for row, one in enumerate(lists)},
        [one.blend for one in lists],
        [one.request for one in lists],
        page,
        {str(one.name): page.logits(row) for row, one in enumerate(plays, start=len(lists))},
    )


def _model_lists(active: ActiveModel, query: RankingQuery) -> Iterator[_ModelList]:
    catalogue, spec = active.snapshot.catalogue, query.spec
    if spec.target == "title":
        yield _ModelList(None, spec.blend, query.request, select(catalogue, spec.candidates, query.viewer))
    for place, plan in enumerate(query.plans or ()):
        if plan.spec.blend is not None:
            request = replace(
                query.request,
                canvas=plan.scored_as,
                source_title_id=None if plan.source == ABSENT else catalogue.title_ids[plan.source],
                query=None,
                row=plan.spec.name,
                row_position=place,
            )
            yield _ModelList(plan.row_id, plan.spec.blend, request, _row_candidates(active, query, plan))


def _play_lists(active: ActiveModel, query: RankingQuery) -> Iterator[_ModelList]:
    """Yield each row as its titles' plays are predicted: all as if they came first, to be compared."""
    page = query.spec.page
    if page is None or page.expected is None or page.strategy == "fixed":
        return
    for plan in query.plans or ():
        request = replace(query.request, query=None, row=plan.spec.name, row_position=0)
        nothing = np.zeros(len(active.snapshot.catalogue), np.bool_)
        yield _ModelList(plan.row_id, {page.expected.head: 0.0}, request, nothing)


def _page_state(query: RankingQuery, scorer: RequestScorer) -> PageState | None:
    """Return what heads about rows and pages see of the request, None where nothing reads them."""
    spec = query.spec
    if spec.target != "row" and (query.plans is None or spec.page is None or not spec.page.heads):
        return None
    return next(iter(scorer.page_states([query.request])), None)


def _row_by_policy(active: ActiveModel, query: RankingQuery, plan: RowPlan) -> ListScores:
    policy = plan.spec.policy or query.spec.fallback
    scores = fallback_scores(policy, active.snapshot.plays, query.viewer)
    return ListScores(scores, _row_candidates(active, query, plan))


def _row_candidates(active: ActiveModel, query: RankingQuery, plan: RowPlan) -> Mask:
    return select(active.snapshot.catalogue, plan.spec.candidates, _row_viewer(query, plan))


def _row_viewer(query: RankingQuery, plan: RowPlan) -> Viewer:
    return query.viewer if plan.source == query.viewer.source else replace(query.viewer, source=plan.source)


def _filled_up(
    active: ActiveModel, query: RankingQuery, plan: RowPlan, row: ListScores
) -> tuple[ListScores, list[str]]:
    scores, candidates, note = filled_up(
        plan, *row, active.snapshot.plays, _row_viewer(query, plan), query.spec.fallback
    )
    return ListScores(scores, candidates), [note] if note else []


def _matching_request(active: ActiveModel, query: RankingQuery, own: ListScores) -> tuple[ListScores, list[str]]:
    """Keep the candidates that match the request's query, or its source title; all where it has neither."""
    catalogue, text, source = active.snapshot.catalogue, query.request.query, query.viewer.source
    if text:
        matches = matches_of_query(catalogue, text, active.snapshot.plays.before(query.viewer.at))
        found = _matching(matches, own, query.k)
        if not matches.any():
            return found, [f"{NO_MATCH.format(text)}: the list is empty"]
        hidden = f"no title that matches '{text}' may be shown here: the list is empty"
        return found, [] if found.candidates.any() else [hidden]
    if source == ABSENT:
        return own, []
    found = _matching(matches_of_source(catalogue, source), own, query.k)
    name = catalogue.name(source, query.request.language)
    none = f"no title that may be shown shares a genre, a character or words of its name with '{name}'"
    return found, [] if found.candidates.any() else [none]


def _matching(matches: Scores, own: ListScores, k: int) -> ListScores:
    """Order the candidates that match by how well they do, and those that match alike by the policy's scores."""
    matching = own.candidates & (matches > 0)
    return ListScores(break_ties(matches, own.scores, matching, SPARE * k), matching)
