"""From one understood request to ranked titles and rows. Reads nothing outside its arguments.

Axis letters: T titles.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from playbill.datasets import Request
from playbill.ranking.blend import Scores
from playbill.ranking.candidates import ABSENT, Mask, Viewer, select
from playbill.ranking.fallback import fallback_scores
from playbill.ranking.lists import RankedList, rank
from playbill.ranking.page_parts import SPARE, PageRules
from playbill.ranking.pages import AS_WRITTEN, Chances, FilledRow, filled_rows, page_of, row_candidates
from playbill.ranking.row_ranking import rank_rows
from playbill.ranking.row_worth import valued_by
from playbill.ranking.rows import RowPlan
from playbill.ranking.short_rows import filled_up
from playbill.serving.messages import MODEL_POLICY
from playbill.serving.served import Scorer, Served
from playbill.specs import CandidatesSpec, CanvasSpec

if TYPE_CHECKING:
    from playbill.ranking.row_values import PageState

logger = logging.getLogger(__name__)

NO_MODEL = "no approved model"


@dataclass(frozen=True)
class Asked:
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
class Answer:
    """Who ranked, and what came of it."""

    policy: str
    reason: str | None
    items: RankedList
    candidates: Mask
    rows: tuple[FilledRow, ...] | None
    absent: dict[str, str] = field(default_factory=dict)
    """`row_id` of each row that is not shown -> why."""
    notes: tuple[str, ...] = ()


def answer(served: Served, asked: Asked) -> Answer:
    """Rank by the model; without its title features when they cannot be read; by the canvas's fallback at last."""
    if served.scorer is None:
        return by_fallback(served, asked, NO_MODEL)
    failed: Exception | None = None
    for scorer in (served.scorer, served.plain_scorer):
        if scorer is None:
            continue
        try:
            return _by_model(served, asked, scorer, _excuse(failed))
        except Exception as error:
            # Whatever is wrong with a model or its stores, members get a list; the reason is in the answer.
            logger.exception("%s:%s failed on canvas %s", served.model, served.version, asked.canvas.name)
            failed = error
    return by_fallback(served, asked, f"the model failed: {type(failed).__name__}")


def _excuse(failed: Exception | None) -> tuple[str, ...]:
    if failed is None:
        return ()
    return (f"title features cannot be read, so they are imputed as missing: {type(failed).__name__}",)


def _by_model(served: Served, asked: Asked, scorer: Scorer, notes: tuple[str, ...]) -> Answer:
    (scored, chances), said = _score(served, asked, scorer), list(notes)

    def row(plan: RowPlan) -> tuple[Scores, Mask]:
        if plan.row_id in scored:
            scores, candidates = scored[plan.row_id]
        else:
            candidates = _candidates(served, plan.spec.candidates, _row_viewer(asked, plan))
            scores = _policy(served, asked, plan.spec.policy or asked.canvas.fallback)
        return _filled_up(served, asked, plan, scores, candidates, said)

    by = (_page_state(asked, scorer), chances)
    found = _assemble(served, asked, MODEL_POLICY, None, scored.get(None), row, by)
    return replace(found, notes=tuple(said))


def by_fallback(served: Served, asked: Asked, reason: str) -> Answer:
    """Answer by the canvas's fallback, and say why."""
    policy, said = asked.canvas.fallback, list[str]()

    def row(plan: RowPlan) -> tuple[Scores, Mask]:
        candidates = _candidates(served, plan.spec.candidates, _row_viewer(asked, plan))
        scores = _policy(served, asked, plan.spec.policy or policy)
        return _filled_up(served, asked, plan, scores, candidates, said)

    main = None
    if asked.canvas.target == "title":
        candidates = _candidates(served, asked.canvas.candidates, asked.viewer)
        main = _policy(served, asked, policy), candidates
    return replace(_assemble(served, asked, policy, reason, main, row), notes=tuple(said))


def _filled_up(
    served: Served, asked: Asked, plan: RowPlan, scores: Scores, candidates: Mask, said: list[str]
) -> tuple[Scores, Mask]:
    viewer, policy = _row_viewer(asked, plan), asked.canvas.fallback
    scores, candidates, note = filled_up(plan, scores, candidates, served.shelf.plays, viewer, policy)
    if note:
        said.append(note)
    return scores, candidates


def _assemble(
    served: Served,
    asked: Asked,
    policy: str,
    reason: str | None,
    main: tuple[Scores, Mask] | None,
    row: Callable[[RowPlan], tuple[Scores, Mask]],
    by: tuple[PageState | None, Chances] | None = None,
) -> Answer:
    if main is None:
        return _ranked_rows(served, asked, policy, reason, row, None if by is None else by[0])
    scores, candidates = main
    found = Answer(policy, reason, rank(scores, candidates, asked.k), candidates, None)
    if asked.plans is None:
        return found
    spec = asked.canvas.page or AS_WRITTEN
    state, chances = by or (None, {})
    rules = PageRules.of(spec, asked.k, asked.request.device, {} if state is None else dict(state.page))
    values = valued_by(spec, state) if by is not None else None
    page = page_of(asked.plans, served.shelf.catalogue, row, rules, values, chances)
    return replace(found, rows=tuple(filled_rows(page)), absent=page.absent)


def _ranked_rows(
    served: Served,
    asked: Asked,
    policy: str,
    reason: str | None,
    row: Callable[[RowPlan], tuple[Scores, Mask]],
    state: PageState | None,
) -> Answer:
    """Answer a canvas of rows: no list of its own, and its rows by its blend, or as written where there is no state."""
    rows = row_candidates(asked.plans or (), served.shelf.catalogue, row)
    page = rank_rows(rows, asked.k, None if state is None else state.values(asked.canvas.blend))
    nothing = np.zeros(len(served.shelf.catalogue), np.bool_)
    empty = RankedList(np.zeros(0, np.int64), np.zeros(0))
    return Answer(policy, reason, empty, nothing, tuple(filled_rows(page)), page.absent)


def _page_state(asked: Asked, scorer: Scorer) -> PageState | None:
    """Return what heads about rows and pages see of the request, None where nothing asks them."""
    page = asked.canvas.page
    wanted = asked.canvas.target == "row" or (asked.plans is not None and page is not None and bool(page.heads))
    if not wanted:
        return None
    return next(iter(scorer.page_states([asked.request])), None)


def _score(served: Served, asked: Asked, scorer: Scorer) -> tuple[dict[str | None, tuple[Scores, Mask]], Chances]:
    """Score the canvas's own list, under None, and every row that has a blend, all at once; and plays in every row.

    A canvas of rows has no list of its own.
    """
    plans = [(place, plan) for place, plan in enumerate(asked.plans or ()) if plan.spec.blend is not None]
    lists = [] if asked.canvas.target == "row" else [asked.canvas]
    blends = [*(canvas.blend for canvas in lists), *(plan.spec.blend or {} for _, plan in plans)]
    requests = [*(asked.request for _ in lists), *(_row_request(served, asked, plan, place) for place, plan in plans)]
    rules = [(plan.spec.candidates, _row_viewer(asked, plan)) for _, plan in plans]
    masks = [_candidates(served, *own) for own in [*((one.candidates, asked.viewer) for one in lists), *rules]]
    valued = _valued(asked)
    nothing = [np.zeros(len(served.shelf.catalogue), np.bool_)] * len(valued)
    if not masks and not valued:
        return {}, {}
    page = scorer.score_page(
        [*requests, *(request for request, _ in valued.values())],
        [*blends, *({head: 0.0} for _, head in valued.values())],
        np.stack([*masks, *nothing]),
    )
    names = [*(None for _ in lists), *(plan.row_id for _, plan in plans)]
    scored = {name: (page.sharpened(row, SPARE * asked.k), masks[row]) for row, name in enumerate(names)}
    return scored, {name: page.logits(len(names) + row) for row, name in enumerate(valued)}


def _valued(asked: Asked) -> dict[str, tuple[Request, str]]:
    """Return for each `row_id` how its titles' plays are asked for: all as if they came first, to be compared."""
    page = asked.canvas.page
    if page is None or page.expected is None or page.arm == "fixed":
        return {}
    own = replace(asked.request, query=None, row_position=0)
    return {plan.row_id: (replace(own, row=plan.spec.name), page.expected.head) for plan in asked.plans or ()}


def _row_request(served: Served, asked: Asked, plan: RowPlan, place: int) -> Request:
    source = None if plan.source == ABSENT else served.shelf.catalogue.title_ids[plan.source]
    return replace(
        asked.request,
        canvas=plan.scored_as,
        source_title_id=source,
        query=None,
        row=plan.spec.name,
        row_position=place,
    )


def _row_viewer(asked: Asked, plan: RowPlan) -> Viewer:
    return replace(asked.viewer, source=plan.source)


def _candidates(served: Served, rules: CandidatesSpec, viewer: Viewer) -> Mask:
    return select(served.shelf.catalogue, rules, viewer)


def _policy(served: Served, asked: Asked, name: str) -> Scores:
    scores = fallback_scores(name, served.shelf.plays, asked.viewer)
    return np.asarray(scores, dtype=np.float64)
