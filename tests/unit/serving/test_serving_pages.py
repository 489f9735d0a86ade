"""Pages over HTTP and in the log: rows in the order of the builder, the reasons, and the logged places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from fixtures import serving_world as world
from playbill.arrays import Floats64
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.datasets import Request
from playbill.definitions.specs.canvas import PageSpec
from playbill.errors import RequestError
from playbill.ranking.page_rules import RowEntry
from playbill.serving import RecommendRequest, WatcherStatus
from playbill.serving.active_model import ActiveModel
from playbill.serving.app import Services, create_app
from playbill.serving.recording import EventDoor
from playbill.serving.request_context import require_rows
from playbill.tables import Journal

PAGE = {"strategy": "greedy", "blend": {"row_play": 1.0}, "maximum_rows": 2}
PLACED = {"row": "popular", "head": "visit_continues", "first_from": 0.5, "otherwise": 1}


@dataclass
class State:
    """Values rows by a table of names."""

    worth: dict[str, float]
    page: dict[str, float] = field(default_factory=dict)

    def values(self, blend: dict[str, float]) -> Any:
        def values(rows: Sequence[RowEntry], above: Sequence[RowEntry]) -> Floats64:
            return np.array([self.worth.get(row.name, -9.0) for row in rows])

        return values


def served_with(workspace: Workspace, page: dict[str, Any] | None, state: State) -> ActiveModel:
    scorer = world.FakeScorer()

    def page_states(requests: Sequence[Request]) -> list[State]:
        return [state for _ in requests]

    scorer.page_states = page_states
    served: ActiveModel = world.serve_with(workspace, scorer)
    home = served.resolved.canvases["home"]
    own = home.model_copy(update={"page": None if page is None else PageSpec.model_validate(page)})
    resolved = served.resolved.model_copy(update={"canvases": {**served.resolved.canvases, "home": own}})
    return replace(served, resolved=resolved)


LIKES_LAST = State({"picks": -3.0, "because": -2.0, "popular": -1.0})


def test_rows_come_in_the_order_of_the_page_and_are_logged_there(stocked: Workspace) -> None:
    log = world.FakeLog()
    served = served_with(stocked, PAGE, LIKES_LAST)
    response = world.make_recommender(stocked, served, log=log).recommend(
        RecommendRequest(canvas="home", member_id="42", k=2)
    )
    assert response.rows is not None
    assert response.rows[0].row_id == "popular"
    assert [row.position for row in response.rows] == [0, 1]
    assert response.rows[0].reason.endswith("; best given the rows above")
    assert "the page has its 2 rows" in response.absent.values()
    shown = [title.title_id for row in response.rows for title in row.items]
    assert len(shown) == len(set(shown))
    _, slates = log.rows[0]
    assert [(one["row_id"], one["row_position"]) for one in slates if one["position"] == 0] == [
        (row.row_id, row.position) for row in response.rows
    ]
    assert {one["propensity"] for one in slates} == {1.0}


@pytest.mark.parametrize(("likely", "place"), [(0.9, 0), (0.1, 1)])
def test_what_the_visit_is_for_places_a_row(stocked: Workspace, likely: float, place: int) -> None:
    state = State({"picks": -1.0, "because": -1.5}, {"visit_continues": likely})
    served = served_with(stocked, {**PAGE, "placed": PLACED, "maximum_rows": 5}, state)
    response = world.make_recommender(stocked, served).recommend(RecommendRequest(canvas="home", member_id="42", k=1))
    assert response.rows is not None
    assert [row.row_id for row in response.rows].index("popular") == place
    assert "visit_continues" in response.rows[place].reason


def test_rows_are_worth_what_the_titles_in_them_are(stocked: Workspace) -> None:
    """Each row's titles are asked for as if it came first; titles of `popular` are played most, in that row alone."""

    class Shown(world.FakeScorer):  # type: ignore[name-defined,misc]
        def score(self, requests: Sequence[Request]) -> dict[str, np.ndarray]:
            found = super().score(requests)
            worth = {"picks": -3.0, "because": -1.0, "popular": 2.0}
            found["like"] += np.array([[worth.get(request.row or "", -9.0)] for request in requests], np.float32)
            return found

    scorer = Shown()
    served = world.serve_with(stocked, scorer)
    home = served.resolved.canvases["home"]
    page = PageSpec.model_validate({"strategy": "independent", "expected": {"head": "like"}})
    canvases = {**served.resolved.canvases, "home": home.model_copy(update={"page": page})}
    served = replace(served, resolved=served.resolved.model_copy(update={"canvases": canvases}))
    response = world.make_recommender(stocked, served).recommend(RecommendRequest(canvas="home", member_id="42", k=2))
    assert response.policy == "model"
    assert [row.row_id for row in response.rows or ()][:2] == ["popular", "because:t0"]
    valued = [request for request in scorer.requested if request.row == "popular"]
    assert [(request.canvas, request.row_position) for request in valued] == [("home", 0)]


def test_without_a_page_rows_come_as_they_are_written(stocked: Workspace) -> None:
    served = served_with(stocked, None, LIKES_LAST)
    response = world.make_recommender(stocked, served).recommend(RecommendRequest(canvas="home", member_id="42", k=2))
    assert response.rows is not None
    assert [row.row_id for row in response.rows] == ["picks", "because:t0", "popular"]


def test_a_fallback_keeps_the_rules_of_the_page(stocked: Workspace) -> None:
    served = replace(served_with(stocked, {**PAGE, "pinned": ["popular"]}, LIKES_LAST), scorer=None)
    response = world.make_recommender(stocked, served).recommend(RecommendRequest(canvas="home", member_id="42", k=2))
    assert response.rows is not None
    assert response.policy != "model"
    assert response.rows[0].row_id == "popular"
    assert len(response.rows) <= 2


def test_a_page_can_be_asked_for_over_http(own: Workspace) -> None:
    recommender = world.make_recommender(own, served_with(own, PAGE, LIKES_LAST))
    clock = FixedClock(world.NOW)
    door = EventDoor(recommender.handle, Journal(own.database_url, clock), clock)
    with world.http(create_app(Services(recommender, door, WatcherStatus))) as client:
        body = client.post("/v1/page", json={"canvas": "home", "member_id": "42", "k": 2, "rows": False}).json()
        assert body["rows"][0]["row_id"] == "popular"
        assert body["absent"]
        refused = client.post("/v1/page", json={"canvas": "search", "query": "a"})
    assert refused.status_code == 422
    assert "'search' has no rows" in refused.json()["detail"]


def test_a_page_of_a_canvas_without_rows_is_refused_with_those_that_have_some(stocked: Workspace) -> None:
    served = served_with(stocked, PAGE, LIKES_LAST)
    with pytest.raises(RequestError, match="These have: home"):
        require_rows(served, RecommendRequest(canvas="coming_soon"))
