"""The study's model (titles, rows and visits in one network), ordering rows of pages by any arm of the page builder.

Axis letters: N pages, Q (page, row) pairs, T titles, R rows, K places of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import AnyFloats, Floats64, Ints64
from playbill.datasets import Request
from playbill.definitions.specs import CanvasSpec, ModelSpec, ResolvedModel, RowSpec
from playbill.definitions.specs.canvas import PageSpec
from playbill.definitions.zoo import Zoo
from playbill.errors import UnknownNameError
from playbill.ranking.candidates import ABSENT
from playbill.ranking.page_builder import Page, build_page
from playbill.ranking.page_rules import PageRules, RowCandidate, RowEntry, RowValues, valued_by
from playbill.ranking.row_plans import RowPlan
from playbill.ranking.scoring.row_scoring import PageState
from playbill_lab.bridge.model_policy import ModelPolicy
from playbill_lab.simulator.engine.steps import listed_by_rule
from playbill_lab.simulator.policies.page_orders import Pages, RowOrders
from playbill_lab.simulator.policies.policy_request import LatentIntent, PolicyRequest
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.canvases import ROWS
from playbill_lab.studies.objective.arms import EVALUATE, Capacity, StudyRecipe, model_spec

PLACES = int(on.SIZE[on.HOME])


class PagePolicy(ModelPolicy):
    """Answers lists as `ModelPolicy` does, and orders the rows of pages by an arm: by `page`, set before it serves."""

    page: PageSpec = PageSpec(strategy="fixed", maximum_rows=on.MOST_ROWS)

    def order(self, pages: Pages, rng: np.random.Generator) -> RowOrders:
        """Return the rows of each page; the builder draws nothing, so every propensity is 1."""
        return row_orders(self.built(pages, {"page": self.page})["page"])

    def built(self, pages: Pages, arms: Mapping[str, PageSpec]) -> dict[str, list[Page]]:
        """Build every page under several arms, from the same rows, titles and scores."""
        places, row = np.nonzero(pages.rows >= 0)
        whole = policy_request(pages, np.arange(len(pages)), np.full(len(pages), on.NO_ROW))
        scores, requests = self._blended(whole), self._page_requests(whole)
        states = self.scorer.page_states(requests)
        valued = any(spec.expected is not None for spec in arms.values())
        request = policy_request(pages, places, pages.rows[places, row])
        own = self._row_scores(request, scores[places])
        # Rows come as they are written, whatever order the service's law had drawn.
        order = np.lexsort((request.row, places))
        ends = np.searchsorted(places[order], np.arange(len(pages) + 1))
        found: dict[str, list[Page]] = {name: [] for name in arms}
        for page, state in enumerate(states):
            places_of = order[ends[page] : ends[page + 1]].tolist()
            plans = [self._plan(request, at) for at in places_of]
            chances = self._chances(requests[page], plans) if valued else dict[str, AnyFloats]()
            candidates = [
                RowCandidate(plan, own[at], np.isfinite(own[at]), chances.get(plan.row_id))
                for plan, at in zip(plans, places_of, strict=True)
            ]
            for name, spec in arms.items():
                rules = PageRules.of(spec, PLACES, None, dict(state.page))
                found[name].append(build_page(candidates, rules, self._valued(state, spec)))
        return found

    def _valued(self, state: PageState, spec: PageSpec) -> RowValues | None:
        valued = valued_by(spec, state)
        if valued is None:
            return None

        def values(rows: Any, above: Any) -> Floats64:
            return valued([self._entry(one) for one in rows], [self._entry(one) for one in above])

        return values

    def _entry(self, row: RowEntry) -> RowEntry:
        """Return a row by the scorer's columns instead of the world's numbers."""
        about, head = (ABSENT if title == ABSENT else int(self._column[title]) for title in (row.about, row.head))
        return RowEntry(row.name, row.genre, about, head, row.expected)

    def _page_requests(self, request: PolicyRequest) -> list[Request]:
        keys = [question.key for question in self._questions(request)]
        return self._with_features(self._requests(request, keys, np.arange(len(request))))

    def _chances(self, request: Request, plans: list[RowPlan]) -> dict[str, AnyFloats]:
        """Return `row_id` -> [T] logits of a play in each row once a title is looked at, by the world's numbers."""
        requests = [replace(request, row=plan.spec.name) for plan in plans]
        nothing = np.zeros((len(plans), len(self._column)), np.bool_)
        page = self.scorer.score_page(requests, [{EXPECTED: 0.0}] * len(plans), nothing)
        return {plan.row_id: page.logits(row)[self._column] for row, plan in enumerate(plans)}

    def _row_scores(self, request: PolicyRequest, scores: AnyFloats) -> AnyFloats:
        """Return [Q, T] scores of each row's titles, -inf for those that it may not show."""
        found = np.where(request.candidates(), scores, -np.inf)
        ruled = np.flatnonzero(np.isin(request.row, on.RULE_ROWS))
        listed = listed_by_rule(request.take(ruled), PLACES) if len(ruled) else np.zeros((0, PLACES), np.int32)
        found[ruled] = -np.inf
        at, place = np.nonzero(listed >= 0)
        found[ruled[at], listed[at, place]] = -place.astype(np.float64)
        return found

    def _plan(self, request: PolicyRequest, at: int) -> RowPlan:
        name = on.ROWS[request.row[at]]
        genre = self.world.catalogue.genres[request.genre[at]] if request.row[at] == on.GENRE_ROWS else None
        source = int(request.source_title[at]) if request.row[at] == on.BECAUSE_YOU_WATCHED else ABSENT
        return RowPlan(name, self.resolved.rows[name], name, source, genre)


def policy_request(pages: Pages, places: Ints64, row: npt.NDArray[Any]) -> PolicyRequest:
    """Return the questions that rows of pages would be: nothing is on the page yet, and nothing hidden is told.

    `places` [Q] are the pages, `row` [Q] places in `canvases.ROWS`; -1 asks for the page itself.
    """
    state, count, member = pages.state, len(places), pages.member[places]
    row = row.astype(np.int8)
    return PolicyRequest(
        world=state.world,
        state=state,
        number=pages.number[places],
        request=pages.number[places],
        member=member,
        at_us=pages.at_us[places],
        canvas=np.full(count, on.HOME, np.int8),
        row=row,
        row_position=np.zeros(count, np.int16),
        genre=np.where(row == on.GENRE_ROWS, pages.genre[places], -1).astype(np.int16),
        source_title=np.where(row == on.BECAUSE_YOU_WATCHED, state.recent[member, 0], -1).astype(np.int32),
        size=np.full(count, PLACES, np.int16),
        device=pages.device[places],
        shown=np.full((count, 1), -1, np.int32),
        query=_nothing(count),
        hidden=LatentIntent(
            np.zeros((count, state.world.truth.taste.shape[1]), np.float32), np.full(count, -1, np.int32)
        ),
        log=pages.log,
    )


def _nothing(count: int) -> pl.Series:
    return pl.Series([None], dtype=pl.String).new_from_index(0, count)


def row_orders(pages: list[Page]) -> RowOrders:
    """Return built pages as the simulated service shows them."""
    rows = np.full((len(pages), on.MOST_ROWS), on.NO_ROW, np.int8)
    for number, page in enumerate(pages):
        codes = [on.ROWS.index(row.candidate.name) for row in page.rows]
        rows[number, : len(codes)] = codes
    return RowOrders(rows, np.ones(rows.shape, np.float32))


def page_titles(pages: list[Page]) -> Ints64:
    """Return [N, R, K] the titles of built pages, -1 fills."""
    titles = np.full((len(pages), on.MOST_ROWS, PLACES), -1, np.int64)
    for number, page in enumerate(pages):
        for place, row in enumerate(page.rows):
            titles[number, place, : len(row.titles)] = row.titles.columns
    return titles


LABELS = ("row_play", "visit_continues", "discovery_play", "shown_play")
PAGE_ARMS = ("fixed", "independent/titles", "greedy/titles", "beam/titles", "greedy/both", "greedy/rows")
"""Who orders the rows, and by what: see `page_spec`. What is in the rows is the same model's in every arm."""
EXPECTED = "shown_play"  # The head that says what the titles of a row are worth
VALUES: dict[str, dict[str, Any]] = {
    "titles": {"expected": {"head": EXPECTED}},
    "rows": {"blend": {"row_play": 1.0}},
    "both": {"expected": {"head": EXPECTED, "weight": 0.5}, "blend": {"row_play": 0.5}},
}
"""What a row is worth: the expected play of the titles it shows now, what a head about rows says, or both."""
PLACED = {"row": "continue_watching", "head": "visit_continues", "first_from": 0.3, "otherwise": 1}
WRITTEN = (
    *("continue_watching", "top_picks", "top_10", "because_you_watched", "new_releases", "trending", "my_list"),
    *("genre_rows", "gems_for_you", "watch_it_again", "popular"),
)
"""The order in which the arm `fixed` shows rows: the simulated service's own list of them."""


@dataclass(frozen=True)
class PagesRecipe(StudyRecipe):
    """How the model is trained."""

    dim: int = 48
    layers: int = 2


def pages_model(zoo: Zoo, recipe: PagesRecipe) -> ResolvedModel:
    """Return the definition of the model: four heads of the zoo's labels, one canvas, the simulated service's rows."""
    return ResolvedModel(
        model=_model(recipe),
        labels={name: zoo.labels[name] for name in LABELS},
        rewards={},
        canvases={"home": _home()},
        rows={name: _row(name) for name in WRITTEN},
    )


def page_spec(arm: str) -> PageSpec:
    """Return what a page of the simulated service keeps to.

    `arm`: `fixed`, or one of `PageSpec.strategy` with one of `VALUES`, as in `greedy/titles`; with a third part,
    `free`, no row is placed by what the visit is for.

    Raises:
        UnknownNameError: The second part is none of them.
    """
    order, _, rest = arm.partition("/")
    by, _, free = rest.partition("/")
    if order != "fixed" and by not in VALUES:
        raise UnknownNameError("value of rows", by, VALUES)
    placed = None if order == "fixed" or free else PLACED
    return PageSpec.model_validate({"strategy": order, **VALUES.get(by, {}), "placed": placed, "maximum_rows": 8})


def _home() -> CanvasSpec:
    return CanvasSpec.model_validate(
        {
            "name": "home",
            "version": 1,
            "context": ["member", "row", "country", "device", "language", "hour_of_week"],
            "candidates": {"available": "now", "watched": False},
            "blend": {"discovery_play": 1.0},
            "metric": "discovery_play",
        }
    )


def _row(name: str) -> RowSpec:
    """Return a row of the simulated service: what may be in it is the service's own rule."""
    assert name in ROWS
    body = {"name": name, "version": 1, "title": {"en": name.replace("_", " ")}, "canvas": "home"}
    return RowSpec.model_validate({**body, "minimum_length": 1, "blend": {"discovery_play": 1.0}})


def _model(recipe: PagesRecipe) -> ModelSpec:
    return model_spec(
        "pages",
        recipe,
        Capacity(recipe.dim, recipe.layers, 2),
        canvases=["home"],
        rows=list(WRITTEN),
        titles={"metadata": ["genres", "kind", "original_language"]},
        heads={
            "discovery_play": {"label": "discovery_play", "loss": "softmax"},
            EXPECTED: {"label": "shown_play", "loss": "bce"},
            "row_play": {"label": "row_play", "loss": "bce"},
            "visit_continues": {"label": "visit_continues", "loss": "bce", "weight": 0.3},
        },
        evaluate=EVALUATE,
    )
