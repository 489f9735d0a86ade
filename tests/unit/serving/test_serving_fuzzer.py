"""A short run of the fuzzer against a small service, and that it finds what is wrong. The long one: `make fuzz`."""

from __future__ import annotations

import pytest
from fastapi import Request
from fastapi.responses import JSONResponse

from fixtures import serving_world as world
from fixtures.fuzz_service import Names, fuzz
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.serving import FactReader, ModelHandle, Recommender, WatcherStatus
from playbill.serving.app import Services, create_app
from playbill.serving.recording import EventDoor, RequestWriter
from playbill.settings import LimitsSettings
from playbill.tables import Journal, RequestLog, Tables
from playbill.tables.dead_letters import DeadLetters

SEED = 11
PATIENT = LimitsSettings(queue_seconds=30.0)


@pytest.fixture
def services(own: Workspace) -> Services:
    handle, clock = ModelHandle(world.serve_with(own, world.FakeScorer())), FixedClock(world.NOW)
    writer = RequestWriter(RequestLog(own.database_url), DeadLetters(own.dead_letters))
    recommender = Recommender(handle, FactReader(Tables(own), world.FakeFeatures()), clock, writer.write)
    door = EventDoor(handle, Journal(own.database_url, clock), clock)
    return Services(recommender, door, WatcherStatus, None, None, writer.close, PATIENT, writer.status)


def _names() -> Names:
    return Names(list(world.resolved().canvases), ["42", "7", "kid"], list(world.TITLES), ["FR", "DE", "ZZ"])


def test_nothing_is_an_error_of_the_server_or_off_its_document(services: Services) -> None:
    with world.http(create_app(services)) as client:
        found = fuzz(str(client.base_url).rstrip("/"), _names(), cases=150, start=SEED, every=3)
        assert client.get("/readyz").json()["dead_letters"] == 0
    assert found.requests > 700
    assert (found.server_errors, found.undocumented) == ([], [])
    for route in ("/v1/recommend", "/v1/page", "/v1/events"):
        assert found.statuses[f"{route} 200"] > 20
        assert found.statuses[f"{route} 422"] > 20


def test_the_fuzzer_finds_an_error_and_a_status_that_is_not_documented(services: Services) -> None:
    app = create_app(services)

    @app.middleware("http")
    async def planted(request: Request, following: object) -> JSONResponse:
        body = await request.body()
        if b'"home"' in body and b"Z" in body:
            return JSONResponse({"detail": "planted"}, 500)
        if b'"search"' in body:
            return JSONResponse({"detail": "planted"}, 418)
        if b'"coming_soon"' in body:
            return JSONResponse({"items": "of the wrong shape"}, 200)
        answer: JSONResponse = await following(request)  # type: ignore[operator]
        return answer

    with world.http(app) as client:
        found = fuzz(str(client.base_url).rstrip("/"), _names(), cases=40, start=SEED, every=5)
    assert any(" 500: " in line for line in found.server_errors)
    assert any(" 418: " in line for line in found.undocumented)
    assert any(" 200: " in line for line in found.undocumented)
