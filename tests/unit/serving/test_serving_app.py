from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from fixtures import serving_world as world
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.errors import ConfigError, ServiceError
from playbill.features import OnlineStoreState
from playbill.serving import WatcherStatus
from playbill.serving.app import Services, create_app, required_token
from playbill.serving.recording import EventDoor
from playbill.tables import Journal


def services(workspace: Workspace, *, model: bool = True, **more: Any) -> Services:
    served = world.serve_with(workspace, world.FakeScorer() if model else None, 1 if model else None)
    recommender = world.make_recommender(workspace, served)
    clock = FixedClock(world.NOW)
    door = EventDoor(recommender.handle, Journal(workspace.database_url, clock), clock)
    return Services(recommender, door, WatcherStatus, **more)


@pytest.fixture
def client(own: Workspace) -> Iterator[httpx.Client]:
    with world.http(create_app(services(own))) as client:
        yield client


PLAY = {"event_id": "e1", "member_id": "42", "action": "play", "title_id": "t7", "canvas": "home"}


def test_a_request_is_answered_as_the_recommender_answers_it(client: httpx.Client) -> None:
    body = client.post("/v1/recommend", json={"canvas": "home", "member_id": "42", "k": 2}).json()
    assert [item["title_id"] for item in body["items"]] == ["t7", "t6"]
    assert (body["model"], body["version"], body["policy"], body["notes"]) == ("tiny", 1, "model", [])
    assert [row["row_id"] for row in body["rows"]] == ["picks", "because:t0", "popular"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"canvas": "hom"}, 404, "Did you mean 'home'"),
        ({"canvas": "more_like_this", "source_title_id": "x"}, 404, "unknown title 'x'"),
        ({"canvas": "more_like_this", "source_title_id": "alien"}, 404, "'alien' is a title's name; the id is 't0'"),
        ({"canvas": "search"}, 422, "needs a query"),
        ({"canvas": "more_like_this"}, 422, "needs a source title"),
        ({"canvas": "home", "k": 0}, 422, "greater than or equal to 1"),
        ({"canvas": "home", "at": "2024-01-01T00:00:00"}, 422, "timezone"),
        ({"canvas": "home", "membr_id": "42"}, 422, "membr_id"),
        ({}, 422, "canvas"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(
    client: httpx.Client, body: dict[str, Any], status: int, text: str
) -> None:
    answer = client.post("/v1/recommend", json=body)
    assert answer.status_code == status
    assert text in answer.text


def test_events_are_acknowledged_once_and_seen_at_once(client: httpx.Client) -> None:
    first = client.post("/v1/events", json={"events": [PLAY]})
    assert (first.status_code, first.json()) == (200, {"accepted": 1, "duplicates": 0})
    assert client.post("/v1/events", json={"events": [PLAY]}).json() == {"accepted": 0, "duplicates": 1}
    body = client.post("/v1/recommend", json={"canvas": "home", "member_id": "42", "k": 1}).json()
    assert body["items"][0]["title_id"] == "t6"


def test_wrong_events_are_refused_with_every_problem(client: httpx.Client) -> None:
    wrong = [{**PLAY, "title_id": "t77"}, {**PLAY, "event_id": "e2", "action": "plai"}]
    answer = client.post("/v1/events", json={"events": wrong})
    assert answer.status_code == 422
    assert {problem["where"] for problem in answer.json()["problems"]} == {"events[0].title_id", "events[1].action"}


def test_an_empty_or_oversized_batch_of_events_is_refused(client: httpx.Client) -> None:
    assert client.post("/v1/events", json={"events": []}).status_code == 422
    assert client.post("/v1/events", json={"events": [PLAY] * 1001}).status_code == 422


def test_health_and_readiness_are_answered(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "up"}
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert (answer.json()["model"], answer.json()["version"], answer.json()["problem"]) == ("tiny", 1, None)


def test_readiness_says_that_the_online_store_is_empty(own: Workspace) -> None:
    empty = OnlineStoreState("redis://somewhere/0", reachable=True, loaded=False)
    made = replace(services(own), online_store=lambda: empty)
    with world.http(create_app(made)) as client:
        answer = client.get("/readyz")
    assert answer.status_code == 200
    problem = "the online store redis://somewhere/0 is empty: run `playbill materialize`"
    assert answer.json()["features_problem"] == problem


def test_without_a_model_the_server_is_up_but_not_ready_and_still_answers(own: Workspace) -> None:
    with world.http(create_app(services(own, model=False))) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert "no approved model" in client.get("/readyz").json()["problem"]
        assert client.post("/v1/recommend", json={"canvas": "home"}).json()["policy"] == "popular_7d"


def test_events_need_the_token_where_there_is_one(own: Workspace) -> None:
    with world.http(create_app(services(own, token="s3cret"))) as client:
        assert client.post("/v1/events", json={"events": [PLAY]}).status_code == 401
        wrong = {"Authorization": "Bearer other"}
        assert client.post("/v1/events", json={"events": [PLAY]}, headers=wrong).status_code == 401
        right = {"Authorization": "Bearer s3cret"}
        assert client.post("/v1/events", json={"events": [PLAY]}, headers=right).status_code == 200
        assert client.post("/v1/recommend", json={"canvas": "home"}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_alone_needs_no_token(host: str) -> None:
    assert required_token(host, None) is None
    assert required_token(host, "") is None
    assert required_token(host, "t") == "t"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org", ""])
def test_a_server_for_other_machines_does_not_start_without_a_token(host: str) -> None:
    assert required_token(host, "t") == "t"
    with pytest.raises(ConfigError, match="PLAYBILL_TOKEN"):
        required_token(host, None)


def test_an_outage_of_the_journal_is_said_to_whoever_sends_events(own: Workspace) -> None:
    made = services(own)

    class DeadDoor:
        def accept(self, events: object) -> None:
            raise ServiceError("database is gone")

    dead = Services(made.recommender, DeadDoor(), WatcherStatus)  # type: ignore[arg-type]
    with world.http(create_app(dead)) as client:
        answer = client.post("/v1/events", json={"events": [PLAY]})
        assert (answer.status_code, answer.json()["detail"]) == (503, "database is gone")


def test_the_server_starts_and_stops_what_it_is_made_of(own: Workspace) -> None:
    calls: list[str] = []
    made = services(own, start=lambda: calls.append("start"), stop=lambda: calls.append("stop"))
    with world.http(create_app(made)):
        assert calls == ["start"]
    assert calls == ["start", "stop"]
