"""No text and no moment is a 500: each is answered, or refused with the name of the field."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from click.testing import CliRunner

from fixtures import serving_world as world
from playbill.cli.main import main
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.schema import QUERY_LIMIT, TEXT_LIMIT
from playbill.serving import RecommendRequest, WatcherStatus
from playbill.serving.app import Services, create_app
from playbill.serving.recording import EventDoor
from playbill.tables import Journal, RequestLog, Tables
from playbill.tables.frames import utc_literal

PLATFORM = Path(__file__).parents[3] / "platform"
JSON = {"content-type": "application/json"}

MOMENTS = {
    "2024-05-01T12:00:00+05:30": 200,
    "2024-05-01T12:00:00-14:00": 200,
    "2024-05-01T12:00:00+14:00": 200,
    "2024-05-01T12:00:00.123456+00:01": 200,
    "1700-01-01T00:00:00+14:00": 422,
    "1700-01-02T00:00:00+14:00": 200,
    "2199-12-30T23:59:59-14:00": 200,
    "0001-01-01T00:00:00Z": 422,
    "0001-01-01T00:00:00+14:00": 422,
    "9999-12-31T23:59:59-14:00": 422,
    "9999-12-31T23:59:59Z": 422,
    "2024-05-01T12:00:00": 422,
}
UNSTORABLE = {"a NUL": "\\u0000", "half a surrogate pair": "\\ud800", "the other half": "a\\udfffb"}
FIELDS = ("canvas", "member_id", "country", "device", "language", "query", "source_title_id")


@pytest.fixture(scope="module", params=["model", "fallback"])
def served(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    """A client of a service with a model, or with none, and its workspace."""
    workspace = world.make_workspace(tmp_path_factory.mktemp("door"))
    model = request.param == "model"
    served = world.serve_with(workspace, world.FakeScorer() if model else None, 1 if model else None)
    recommender = world.make_recommender(workspace, served)
    clock = FixedClock(world.NOW)
    door = EventDoor(recommender.handle, Journal(workspace.database_url, clock), clock)
    with world.http(create_app(Services(recommender, door, WatcherStatus))) as client:
        yield client


@pytest.mark.parametrize("route", ["/v1/recommend", "/v1/page"])
@pytest.mark.parametrize("member", ["42", "nobody", None])
def test_every_moment_is_answered_or_refused(served: httpx.Client, route: str, member: str | None) -> None:
    for text, status in MOMENTS.items():
        answer = served.post(route, json={"canvas": "home", "member_id": member, "at": text})
        assert answer.status_code == status, (text, answer.text)
        if status == 422:
            assert [problem["where"] for problem in answer.json()["problems"]] == ["at"]
        else:
            assert answer.json()["at"].endswith("Z")
            assert datetime.fromisoformat(answer.json()["at"]) == datetime.fromisoformat(text)


def test_a_moment_means_the_same_in_every_zone(served: httpx.Client) -> None:
    bodies = []
    for text in ("2024-05-20T12:00:00Z", "2024-05-20T17:30:00+05:30", "2024-05-19T22:00:00-14:00"):
        body = served.post("/v1/recommend", json={"canvas": "home", "member_id": "42", "at": text}).json()
        bodies.append({name: value for name, value in body.items() if name != "request_id"})
    assert bodies[0] == bodies[1] == bodies[2]


@pytest.mark.parametrize("text", UNSTORABLE)
def test_a_text_that_no_store_holds_is_refused_in_every_field(served: httpx.Client, text: str) -> None:
    for field in FIELDS:
        fields = {"canvas": '"home"', field: f'"{UNSTORABLE[text]}"'}
        body = "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"
        answer = served.post("/v1/recommend", content=body.encode(), headers=JSON)
        assert answer.status_code == 422, (field, answer.text)
        assert [problem["where"] for problem in answer.json()["problems"]] == [field]
    for context, where in (('{"a": "%s"}', "context.a"), ('{"%s": 1}', "context.")):
        body = '{"canvas": "home", "context": ' + context % UNSTORABLE[text] + "}"
        answer = served.post("/v1/recommend", content=body.encode(), headers=JSON)
        assert answer.status_code == 422
        assert answer.json()["problems"][0]["where"].startswith(where)


@pytest.mark.parametrize("text", UNSTORABLE)
def test_events_with_such_texts_are_refused_with_the_field(served: httpx.Client, text: str) -> None:
    play = {"event_id": "e1", "member_id": "42", "action": "play", "title_id": "t7", "canvas": "home"}
    for field in ("event_id", "member_id", "canvas", "session_id", "query", "device", "country"):
        body = json.dumps({"events": [{**play, field: "PLACE"}]}).replace("PLACE", UNSTORABLE[text])
        answer = served.post("/v1/events", content=body.encode(), headers=JSON)
        assert answer.status_code == 422
        assert f"events[0].{field}" in {problem["where"] for problem in answer.json()["problems"]}
    unknown = '{"events": [{"\\ud800": 1}]}'
    assert served.post("/v1/events", content=unknown.encode(), headers=JSON).status_code == 422


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"member_id": "x" * (TEXT_LIMIT + 1)}, "member_id"),
        ({"query": "x" * (QUERY_LIMIT + 1)}, "query"),
        ({"context": {"weather": "x" * (TEXT_LIMIT + 1)}}, "context.weather"),
        ({"context": {"x" * (TEXT_LIMIT + 1): 1}}, "context.x"),
        ({"context": {f"name{number}": 1 for number in range(101)}}, "context"),
        ({"context": {"celsius": 10**400}}, "context.celsius"),
        ({"context": {"celsius": -1e300}}, "context.celsius"),
    ],
)
def test_texts_and_numbers_have_a_size(served: httpx.Client, body: dict[str, Any], where: str) -> None:
    answer = served.post("/v1/recommend", json={"canvas": "home", **body})
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["where"].startswith(where)
    assert len(answer.content) < 5_000


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_none_are_refused(served: httpx.Client, number: str) -> None:
    body = json.dumps({"canvas": "home", "context": {"celsius": "PLACE"}}).replace('"PLACE"', number)
    answer = served.post("/v1/recommend", content=body.encode(), headers=JSON)
    assert answer.status_code == 422
    event = {"event_id": "e1", "member_id": "42", "action": "play", "title_id": "t7", "canvas": "home"}
    for field in ("progress", "duration_s", "propensity"):
        body = json.dumps({"events": [{**event, field: "PLACE"}]}).replace('"PLACE"', number)
        answer = served.post("/v1/events", content=body.encode(), headers=JSON)
        assert answer.status_code == 422
        assert {problem["where"] for problem in answer.json()["problems"]} == {f"events[0].{field}"}


def test_a_body_that_is_no_json_or_nested_without_end_is_refused(served: httpx.Client) -> None:
    for body in (
        b"{",
        b"\xff\xfe",
        b'{"canvas": "\xff"}',
        b"[" * 100_000,
        b'{"k": ' + b"9" * 10_000 + b"}",
        b"null",
        b"",
    ):
        answer = served.post("/v1/recommend", content=body, headers=JSON)
        assert answer.status_code in (400, 422), (body[:20], answer.text)
        assert answer.json()["detail"]


ZONES = [timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-14)), UTC]


def test_tables_are_filtered_by_a_moment_of_any_zone(stocked: Workspace) -> None:
    tables, moment = Tables(stocked), datetime(2024, 5, 20, tzinfo=UTC)
    for zone in ZONES:
        at = moment.astimezone(zone)
        assert tables.members(as_of=at).equals(tables.members(as_of=moment))
        assert tables.titles(as_of=at).equals(tables.titles(as_of=moment))
        assert tables.interactions(until=at).equals(tables.interactions(until=moment))
        assert tables.interactions(since=at).equals(tables.interactions(since=moment))
    with pytest.raises(ValueError, match="no time zone"):
        utc_literal(datetime(2024, 5, 20))  # noqa: DTZ001


def test_requests_made_in_python_may_name_any_zone(stocked: Workspace) -> None:
    recommender = world.make_recommender(stocked, world.serve_with(stocked, world.FakeScorer()))
    answers = [
        recommender.recommend(RecommendRequest(canvas="home", member_id="42", at=at.astimezone(zone)))
        for zone in ZONES
        for at in [datetime(2024, 5, 20, tzinfo=UTC)]
    ]
    assert len({answer.model_dump_json(exclude={"request_id"}) for answer in answers}) == 1


BOUNDS_OF_A_FRAME = {"playbill_feast/asof_join.py", "playbill_feast/offline/partitions.py"}
"""These compare with the least and greatest of a frame's own moments, which are in UTC by its type."""
UTC_LITERAL = {"playbill/tables/frames.py", "playbill_feast/frames.py"}


def _literals_with_a_type(path: Path) -> Iterator[ast.Call]:
    text = path.read_text()
    for node in ast.walk(ast.parse(text)) if "dtype=" in text else ():
        named = isinstance(node, ast.Call) and ast.unparse(node.func) == "pl.lit"
        if named and any(word.arg == "dtype" for word in node.keywords):
            yield node


def test_nothing_else_makes_a_literal_of_a_moment() -> None:
    """polars refuses `pl.lit(moment, dtype=UTC)` of another zone, so `utc_literal` is the one place that does it."""
    strays = [
        f"{path.relative_to(PLATFORM)}:{call.lineno}: {ast.unparse(call)}"
        for path in sorted(PLATFORM.rglob("*.py"))
        if str(path.relative_to(PLATFORM)) not in BOUNDS_OF_A_FRAME | UTC_LITERAL
        for call in _literals_with_a_type(path)
        for kind in [next(ast.unparse(word.value) for word in call.keywords if word.arg == "dtype")]
        if ("TIMESTAMP" in kind or "MOMENT" in kind or "Datetime" in kind)
        and not (isinstance(call.args[0], ast.Constant) and call.args[0].value is None)
    ]
    assert not strays


def test_the_shell_names_the_field_too(tmp_path: Path) -> None:
    (tmp_path / "playbill.toml").write_text("")
    for at in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        done = CliRunner().invoke(main, ["--project", str(tmp_path), "recommend", "--at", at])
        assert done.exit_code != 0
        assert "is no moment in UTC" in done.output


def test_such_a_log_has_only_what_was_answered(own: Workspace) -> None:
    log = RequestLog(own.database_url)
    recommender = world.make_recommender(own, world.serve_with(own, world.FakeScorer()), log=log)
    for at in (datetime(1700, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC), None):
        recommender.recommend(RecommendRequest(canvas="home", member_id="a\x01\x1b[31m\n", at=at))
    assert log.requests().filter(pl.col("member_id") == "a\x01\x1b[31m\n").height == 3
