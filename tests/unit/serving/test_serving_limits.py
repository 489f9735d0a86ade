"""Too large, too slow, too many: each is refused in a stated time, and everybody else is answered meanwhile."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest

from fixtures import serving_world as world
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.serving import FactReader, ModelHandle, Recommender, RecommendRequest, RecommendResponse, WatcherStatus
from playbill.serving.admission import Admission, BusyError
from playbill.serving.app import Services, create_app
from playbill.serving.profile import Profile
from playbill.serving.recording import EventDoor
from playbill.settings import LimitsSettings
from playbill.tables import Journal, Tables

HOME = {"canvas": "home", "member_id": "42", "rows": False}
SLOW = LimitsSettings(header_seconds=0.6, body_seconds=0.6, body_kb=64)


@contextmanager
def serving(
    workspace: Workspace, limits: LimitsSettings, scorer: Any = None, profile: Profile | None = None
) -> Iterator[httpx.Client]:
    handle, clock = ModelHandle(world.serve_with(workspace, scorer or world.FakeScorer())), FixedClock(world.NOW)
    facts = FactReader(Tables(workspace), world.FakeFeatures())
    recommender = Recommender(handle, facts, clock, profile=profile or Profile())
    door = EventDoor(handle, Journal(workspace.database_url, clock), clock)
    app = create_app(Services(recommender, door, WatcherStatus, limits=limits))
    with world.http(app, limits) as client:
        yield client


def _connect(client: httpx.Client) -> socket.socket:
    connection = socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)
    connection.settimeout(10)
    return connection


def _rest(connection: socket.socket) -> bytes:
    """Read until the connection ends; one that is reset, since it was still sending, has ended too."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def _trickle(connection: socket.socket, stop: threading.Event) -> None:
    """Send one byte of a header at a time, as if it never ended."""
    try:
        connection.sendall(b"POST /v1/recommend HTTP/1.1\r\nhost: here\r\nx-slow: ")
        while not stop.wait(0.05):
            connection.sendall(b"x")
    except OSError:
        return


def test_twenty_slow_connections_are_closed_in_time_and_others_are_answered(own: Workspace) -> None:
    with serving(own, SLOW) as client, ExitStack() as connections:
        stop, begin = threading.Event(), time.perf_counter()
        connections.callback(stop.set)
        slow = [connections.enter_context(_connect(client)) for _ in range(20)]
        for connection in slow[:15]:
            threading.Thread(target=_trickle, args=(connection, stop), daemon=True).start()
        # The last five say nothing at all.
        assert client.post("/v1/recommend", json=HOME).status_code == 200
        answers = [_rest(connection) for connection in slow]
        seconds = time.perf_counter() - begin
        # What a client sends after its connection was closed resets it, and may take the answer with it.
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in [*filter(None, answers), *answers[15:]])
        assert 0.5 < seconds < 5.0
        assert client.get("/healthz").status_code == 200


def test_a_slow_body_is_refused_and_its_connection_closed(own: Workspace) -> None:
    with serving(own, SLOW) as client, _connect(client) as connection:
        connection.sendall(b"POST /v1/recommend HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n\r\n{")
        answer = _rest(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 0.6 s" in answer


def test_the_second_request_of_a_connection_has_its_own_time(own: Workspace) -> None:
    with serving(own, SLOW) as client, _connect(client) as connection:
        for _ in range(3):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)
            time.sleep(0.4)
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert _rest(connection).startswith(b"HTTP/1.1 408 ")


def test_work_that_takes_longer_than_the_headers_may_is_not_cut_off(own: Workspace) -> None:
    scorer = world.FakeScorer()
    scorer.gate = threading.Event()
    with serving(own, SLOW, scorer) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "/v1/recommend", json=HOME)
        time.sleep(1.0)
        scorer.gate.set()
        assert answer.result(10).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(own: Workspace, chunked: bool) -> None:
    body = b'{"canvas": "home", "member_id": "' + b"x" * 10_000_000 + b'"}'
    with serving(own, SLOW) as client:
        content: Any = iter([body[start : start + 65536] for start in range(0, len(body), 65536)]) if chunked else body
        answer = client.post("/v1/recommend", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert answer.json() == {"detail": "the body is larger than 65,536 bytes"}
        assert answer.headers["connection"] == "close"
        fits = {"canvas": "search", "query": "x" * 60_000}
        assert client.post("/v1/recommend", json=fits).status_code == 200


def _many(client: httpx.Client, count: int, body: dict[str, Any]) -> list[tuple[int, float, dict[str, Any]]]:
    """Ask at the same time from as many connections; return status, seconds and body of each."""

    async def ask() -> list[tuple[int, float, dict[str, Any]]]:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(base_url=str(client.base_url), timeout=60, limits=limits) as many:

            async def one() -> tuple[int, float, dict[str, Any]]:
                begin = time.perf_counter()
                answer = await many.post("/v1/recommend", json=body)
                assert answer.status_code != 429 or int(answer.headers["retry-after"]) >= 1
                return answer.status_code, time.perf_counter() - begin, answer.json()

            return await asyncio.gather(*(one() for _ in range(count)))

    return asyncio.run(ask())


class SlowScorer:
    """A scorer that takes a while for each request, as a large model does."""

    def __init__(self, seconds: float) -> None:
        self._plain, self._seconds = world.FakeScorer(), seconds
        self.title_ids = self._plain.title_ids

    def score_page(self, requests: Any, blends: Any, candidates: Any) -> Any:
        time.sleep(self._seconds)
        return self._plain.score_page(requests, blends, candidates)


def test_of_two_hundred_requests_at_once_some_are_refused_quickly_and_none_waits(
    own: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, waits = LimitsSettings(queue=16, queue_seconds=1.0), list[float]()
    plain = Recommender.recommend

    def timed(self: Recommender, request: RecommendRequest, waited_s: float = 0.0) -> RecommendResponse:
        waits.append(waited_s)
        return plain(self, request, waited_s)

    monkeypatch.setattr(Recommender, "recommend", timed)
    with serving(own, limits, SlowScorer(0.1)) as client:
        done = _many(client, 200, HOME)
        assert client.get("/readyz").json()["requests_refused"] == sum(status == 429 for status, _, _ in done)
    assert set(Counter(status for status, _, _ in done)) == {200, 429}
    assert sum(status == 429 for status, _, _ in done) >= 100
    refused = [body for status, _, body in done if status == 429]
    assert all("the server is busy" in body["detail"] for body in refused)
    # What was begun had waited a second at most; half a second more is for a machine that does other things.
    assert len(waits) == sum(status == 200 for status, _, _ in done)
    assert 0 < max(waits) < 1.5


def test_past_the_queue_the_fallback_answers_where_that_is_wanted(own: Workspace) -> None:
    limits = LimitsSettings(queue=4, queue_seconds=0.5, when_busy="fallback")
    with serving(own, limits, SlowScorer(0.1)) as client:
        done = _many(client, 60, HOME)
    policies = Counter(body.get("policy", "refused") for _, _, body in done)
    assert policies["popular_7d"] > 0
    assert policies["model"] > 0
    reasons = {body["reason"] for _, _, body in done if body.get("policy") == "popular_7d"}
    assert all(reason.startswith("the server is busy") for reason in reasons)


def test_waiting_counts_as_time_of_the_request(own: Workspace) -> None:
    limits = LimitsSettings(queue=100, queue_seconds=30.0)
    with serving(own, limits, SlowScorer(0.2), Profile(timeout_ms=400)) as client:
        done = _many(client, 60, HOME)
    assert {status for status, _, _ in done} == {200}
    late = [body for _, _, body in done if body["reason"] is not None]
    assert late
    assert {body["reason"] for body in late} == {"timed out after 400 ms"}
    assert max(seconds for _, seconds, _ in done) < 5.0


def test_events_are_taken_while_all_who_ask_wait(own: Workspace) -> None:
    scorer = world.FakeScorer()
    scorer.gate = threading.Event()
    play = {"event_id": "e1", "member_id": "42", "action": "play", "title_id": "t7", "canvas": "home"}
    limits = LimitsSettings(queue=100, queue_seconds=30.0)
    with serving(own, limits, scorer) as client, ThreadPoolExecutor(60) as pool:
        requested = [pool.submit(client.post, "/v1/recommend", json=HOME) for _ in range(60)]
        while client.get("/readyz").json()["requests_waiting"] < 10:
            time.sleep(0.01)
        assert client.post("/v1/events", json={"events": [play]}).json() == {"accepted": 1, "duplicates": 0}
        scorer.gate.set()
        assert {answer.result(30).status_code for answer in requested} == {200}


def test_waiting_requests_are_answered_in_order_of_arrival() -> None:
    async def run() -> list[int]:
        admission, order = Admission(1, 10, 5.0), list[int]()
        hold = threading.Event()
        first = asyncio.create_task(admission.run(lambda _: hold.wait(5)))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(admission.run(lambda _, n=number: order.append(n))) for number in range(10)]
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError, match="10 requests are waiting already"):
            await admission.run(lambda _: None)
        hold.set()
        await asyncio.gather(first, *rest)
        return order

    assert asyncio.run(run()) == list(range(10))


def test_a_request_that_times_out_in_the_queue_frees_its_place() -> None:
    async def run() -> int:
        admission, hold = Admission(1, 10, 0.1), threading.Event()
        first = asyncio.create_task(admission.run(lambda _: hold.wait(5)))
        await asyncio.sleep(0.02)
        with pytest.raises(BusyError, match=r"waited 0.1 s"):
            await admission.run(lambda _: None)
        assert (admission.waiting, admission.refused) == (0, 1)
        hold.set()
        await first
        return await admission.run(lambda waited_s: 7 if waited_s < 1 else 0)

    assert asyncio.run(run()) == 7
