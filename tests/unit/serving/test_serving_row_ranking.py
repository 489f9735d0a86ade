"""A canvas that ranks rows: they come in the order of their worth, each by itself, or as written without a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fixtures import serving_world as world
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.definitions.specs import CanvasSpec
from playbill.errors import IntegrityError, RequestError
from playbill.ranking.page_rules import RowEntry
from playbill.serving import RecommendRequest
from playbill.serving.active_model import ActiveModel
from playbill.serving.request_context import require_rows


class State:
    """Values rows by a table of names, whatever stands above them."""

    def __init__(self, worth: dict[str, float]) -> None:
        self.worth, self.page, self.blends = worth, dict[str, float](), list[dict[str, float]]()

    def values(self, blend: dict[str, float]) -> Any:
        self.blends.append(blend)

        def values(rows: list[RowEntry], above: list[RowEntry]) -> np.ndarray:
            assert not above
            return np.array([self.worth.get(row.name, -9.0) for row in rows])

        return values


def with_ranking(workspace: Workspace, scorer: Any | None) -> ActiveModel:
    served: ActiveModel = world.serve_with(workspace, scorer)
    home = served.resolved.canvases["home"]
    own = {"name": "row_ranking", "version": 1, "target": "row", "rows_of": "home", "blend": {"row_play": 1.0}}
    canvas = CanvasSpec.model_validate({**own, "metric": home.metric})
    shared = {name: getattr(home, name) for name in ("context", "impute", "candidates", "fallback")}
    canvases = {**served.resolved.canvases, "row_ranking": canvas.model_copy(update=shared)}
    return replace(served, resolved=served.resolved.model_copy(update={"canvases": canvases}))


def scorer_with(state: State) -> Any:
    scorer = world.FakeScorer()
    scorer.pages = []

    def page_states(requests: list[Any]) -> list[State]:
        scorer.pages += requests
        return [state for _ in requests]

    scorer.page_states = page_states
    return scorer


def test_rows_come_by_their_own_worth_and_are_logged(stocked: Workspace) -> None:
    state, log = State({"picks": -3.0, "because": -2.0, "popular": -1.0}), world.FakeLog()
    scorer = scorer_with(state)
    recommender = world.make_recommender(stocked, with_ranking(stocked, scorer), log=log)
    response = recommender.recommend(RecommendRequest(canvas="row_ranking", member_id="42", k=2))
    assert (response.canvas, response.policy, response.items) == ("row_ranking", "model", ())
    assert response.rows is not None
    assert response.rows[0].row_id == "popular"
    assert [row.score for row in response.rows] == sorted((row.score for row in response.rows), reverse=True)
    assert all(row.reason.endswith("; by its own score") for row in response.rows)
    assert state.blends == [{"row_play": 1.0}]
    assert {request.canvas for request in scorer.pages} == {"home"}
    page = recommender.recommend(RecommendRequest(canvas="home", member_id="42", k=2, rows=True))
    assert {row.row_id for row in page.rows or ()} <= {row.row_id for row in response.rows}
    requested, slates = log.rows[0]
    assert requested["canvas"] == "row_ranking"
    firsts = [(one["row_id"], one["row_position"]) for one in slates if one["position"] == 0]
    assert firsts == [(row.row_id, row.position) for row in response.rows]


def test_each_row_is_what_it_would_be_on_an_empty_page(stocked: Workspace) -> None:
    scorer = scorer_with(State({}))
    recommender = world.make_recommender(stocked, with_ranking(stocked, scorer))
    ranked = recommender.recommend(RecommendRequest(canvas="row_ranking", member_id="42", k=3))
    rows = {row.row_id: [title.title_id for title in row.items] for row in ranked.rows or ()}
    shown = [title for titles in rows.values() for title in titles]
    assert len(shown) > len(set(shown)), "the small service has rows that share titles"
    page = recommender.recommend(RecommendRequest(canvas="home", member_id="42", k=3, rows=True))
    first = (page.rows or ())[0]
    assert rows[first.row_id] == [title.title_id for title in first.items]
    assert page.items != ranked.items


def test_without_a_model_rows_come_as_they_are_written(stocked: Workspace) -> None:
    served = with_ranking(stocked, None)
    found = world.make_recommender(stocked, served).recommend(RecommendRequest(canvas="row_ranking", member_id="42"))
    names = [row.row_id.partition(":")[0] for row in found.rows or ()]
    written = [row.name for row in served.resolved.rows_of("home")]
    assert names
    assert names == sorted(names, key=written.index)
    assert {row.score for row in found.rows or ()} == {None}
    assert found.policy == served.resolved.canvases["home"].fallback
    assert found.reason == "no approved model"


def test_a_failing_model_leaves_the_written_order(stocked: Workspace) -> None:
    scorer = scorer_with(State({}))
    scorer.page_states = lambda requests: 1 / 0
    served = with_ranking(stocked, scorer)
    found = world.make_recommender(stocked, served).recommend(RecommendRequest(canvas="row_ranking", member_id="42"))
    assert found.rows
    assert found.reason == "the model failed: ZeroDivisionError"


def test_a_title_is_explained_by_the_rows_alone(stocked: Workspace) -> None:
    served = with_ranking(stocked, scorer_with(State({})))
    recommender = world.make_recommender(stocked, served)
    title = served.snapshot.catalogue.title_ids[0]
    found = recommender.explain(RecommendRequest(canvas="row_ranking", member_id="42"), title)
    assert "row_ranking" not in [place.name for place in found.places]
    assert {place.name.partition(":")[0] for place in found.places} <= {
        row.name for row in served.resolved.rows.values()
    }


def test_its_page_is_that_of_the_canvas_it_ranks(stocked: Workspace) -> None:
    served = with_ranking(stocked, scorer_with(State({})))
    with pytest.raises(RequestError, match=r"canvas 'row_ranking' has no rows, so it has no page. These have: .*home"):
        require_rows(served, RecommendRequest(canvas="row_ranking"))


def test_a_model_that_cannot_value_rows_is_seen_before_it_serves(stocked: Workspace) -> None:
    clock: FixedClock = FixedClock(world.NOW)
    served = with_ranking(stocked, scorer_with(State({"picks": float("nan")})))
    with pytest.raises(IntegrityError, match="does not value the rows of home"):
        served.warm(clock.now())
    with_ranking(stocked, scorer_with(State({}))).warm(clock.now())
