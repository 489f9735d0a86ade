"""A server that is killed, stopped, or loses its database."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fixtures import environment
from fixtures import serving_world as world
from playbill.errors import ServiceError
from playbill.serving import RecommendRequest
from playbill.tables import Journal, RequestLog, Tables

PLAY = {"event_id": "e1", "member_id": "42", "action": "play", "title_id": "t7", "canvas": "home"}
START_SECONDS = 60

SERVER = """
import sys
from pathlib import Path
import uvicorn
from fixtures import serving_world as world
from playbill.clock import FixedClock
from playbill.config import ProjectFolder, ProjectSettings
from playbill.settings import LimitsSettings
from playbill.serving import FactReader, Recommender, ModelHandle, WatcherStatus
from playbill.serving.app import Services, create_app
from playbill.serving.recording import EventDoor
from playbill.serving.limits import server_config
from playbill.serving.recording import RequestWriter
from playbill.tables import Journal, RequestLog, Tables
from playbill.tables.dead_letters import DeadLetters

workspace = ProjectFolder(Path(sys.argv[1]), ProjectSettings()).workspace("small")
slot, clock = ModelHandle(world.serve_with(workspace, world.FakeScorer())), FixedClock(world.NOW)
writer = RequestWriter(RequestLog(workspace.database_url), DeadLetters(workspace.dead_letters))
recommender = Recommender(slot, FactReader(Tables(workspace), world.FakeFeatures()), clock, writer.write)
door = EventDoor(slot, Journal(workspace.database_url, clock), clock)
app = create_app(Services(recommender, door, WatcherStatus, None, None, writer.close))
uvicorn.Server(server_config(app, "127.0.0.1", int(sys.argv[2]), LimitsSettings())).run()
"""


@contextmanager
def server(root: Path, port: int) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """Run the server in a process of its own, and end that process whatever happens."""
    command = [sys.executable, "-c", SERVER, str(root), str(port)]
    process = subprocess.Popen(command, env=environment(OMP_NUM_THREADS="1"))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            _wait(client, process)
            yield client, process
    finally:
        process.kill()
        process.wait()


def _wait(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.perf_counter() + START_SECONDS
    while True:
        try:
            client.get("/healthz")
            return
        except httpx.ConnectError:
            assert process.poll() is None, "the server ended"
            assert time.perf_counter() < deadline, "the server did not start"
            time.sleep(0.05)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_acknowledged_event_survives_a_kill_and_a_retry_is_no_second_one(tmp_path: Path) -> None:
    workspace = world.make_workspace(tmp_path)
    with server(tmp_path, free_port()) as (client, process):
        assert client.post("/v1/events", json={"events": [PLAY]}).json()["accepted"] == 1
        process.kill()
        process.wait()
    assert Journal(workspace.database_url).read("42")["event_id"].to_list() == ["e1"]
    with server(tmp_path, free_port()) as (client, _):
        assert client.post("/v1/events", json={"events": [PLAY]}).json() == {"accepted": 0, "duplicates": 1}
        body = client.post("/v1/recommend", json={"canvas": "home", "member_id": "42", "k": 1}).json()
        assert body["items"][0]["title_id"] == "t6"


def test_a_stopped_server_has_logged_every_request_it_answered(tmp_path: Path) -> None:
    workspace = world.make_workspace(tmp_path)
    with server(tmp_path, free_port()) as (client, process):
        ask = {"canvas": "home", "member_id": "42"}
        answered = {client.post("/v1/recommend", json=ask).json()["request_id"] for _ in range(30)}
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert set(RequestLog(workspace.database_url).requests()["request_id"]) == answered


def test_without_the_journal_a_member_is_answered_from_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = world.make_workspace(tmp_path)
    whole = Tables.member_events

    def down(self: Tables, member_id: str, *, include_journal: bool = True) -> object:
        if include_journal:
            raise ServiceError("database is gone")
        return whole(self, member_id, include_journal=False)

    monkeypatch.setattr(Tables, "member_events", down)
    scorer = world.FakeScorer()
    recommender = world.make_recommender(workspace, world.serve_with(workspace, scorer))
    response = recommender.recommend(RecommendRequest(canvas="home", member_id="42"))
    assert response.policy == "model"
    assert scorer.requested[0].history.height == 3
    assert "the event journal cannot be read" in response.notes[0]
