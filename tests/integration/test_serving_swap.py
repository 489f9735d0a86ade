"""Requests during swaps: none is lost, none is answered by two models, over real HTTP."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from fixtures import serving_world as world
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.serving import ActiveModel, FactReader, ModelHandle, Recommender, ServedKey, Watcher
from playbill.serving.app import Services, create_app
from playbill.serving.recording import EventDoor, RequestWriter
from playbill.tables import Journal, RequestLog, Tables
from playbill.tables.dead_letters import DeadLetters

CLIENTS, VERSIONS = 4, 6
ASK = {"canvas": "search", "query": "", "member_id": "7", "k": 3}


class Approvals:
    """Names the newest version and builds it; odd versions rank titles the other way round."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.newest = workspace, 1

    def wanted(self) -> ServedKey:
        return self.served(self.newest).key

    def load(self, wanted: ServedKey) -> ActiveModel:
        assert wanted.version is not None
        return self.served(wanted.version)

    def served(self, version: int) -> ActiveModel:
        scorer = world.FakeScorer()
        plain = scorer.score

        def turned(requests: list) -> dict[str, np.ndarray]:
            time.sleep(0.002)
            return {head: -values if version % 2 else values for head, values in plain(requests).items()}

        scorer.score = turned
        made: ActiveModel = world.serve_with(self.workspace, scorer, version)
        return made


def expected(version: int) -> list[str]:
    return ["t0", "t1", "t2"] if version % 2 else ["t6", "t5", "t4"]


def test_no_request_is_lost_or_mixed_while_versions_change(tmp_path: Path) -> None:
    workspace = world.make_workspace(tmp_path)
    approvals = Approvals(workspace)
    handle, clock = ModelHandle(approvals.served(1)), FixedClock(world.NOW)
    watcher = Watcher(handle, approvals, clock, poll_seconds=0.05)
    log = RequestLog(workspace.database_url)
    writer = RequestWriter(log, DeadLetters(workspace.dead_letters))
    recommender = Recommender(handle, FactReader(Tables(workspace), world.FakeFeatures()), clock, writer.write)
    events = EventDoor(handle, Journal(workspace.database_url, clock), clock)

    def stop() -> None:
        watcher.stop()
        writer.close()

    services = Services(recommender, events, lambda: watcher.status, None, watcher.start, stop)
    done = threading.Event()
    with world.http(create_app(services)) as client:

        def ask_on(_client: int) -> list[tuple[int, list[str], str]]:
            seen = []
            with httpx.Client(base_url=client.base_url, timeout=30) as own:
                while not done.is_set():
                    answer = own.post("/v1/recommend", json=ASK)
                    assert answer.status_code == 200, answer.text
                    body = answer.json()
                    titles = [item["title_id"] for item in body["items"]]
                    seen.append((body["version"], titles, body["request_id"]))
            return seen

        with ThreadPoolExecutor(CLIENTS) as pool:
            asking = [pool.submit(ask_on, number) for number in range(CLIENTS)]
            try:
                for version in range(2, VERSIONS + 1):
                    approvals.newest = version
                    _wait_for(client, version)
            finally:
                done.set()
            seen = [future.result() for future in asking]
    for answers in seen:
        versions = [version for version, _, _ in answers]
        assert versions == sorted(versions)
    flat = [answer for answers in seen for answer in answers]
    assert {version for version, _, _ in flat} >= {2, VERSIONS}
    assert all(titles == expected(version) for version, titles, _ in flat)
    assert set(log.requests()["request_id"]) == {request_id for _, _, request_id in flat}


def _wait_for(client: httpx.Client, version: int) -> None:
    deadline = time.perf_counter() + 10
    while client.get("/readyz").json()["version"] != version:
        assert time.perf_counter() < deadline, client.get("/readyz").text
        time.sleep(0.02)
    time.sleep(0.1)


def test_a_request_under_way_is_finished_by_the_model_it_started_with(tmp_path: Path) -> None:
    workspace = world.make_workspace(tmp_path)
    first = world.FakeScorer()
    first.gate = threading.Event()
    handle, clock = ModelHandle(world.serve_with(workspace, first, 1)), FixedClock(world.NOW)
    recommender = world.make_recommender(workspace, handle.current)
    recommender.handle = handle
    events = EventDoor(handle, Journal(workspace.database_url, clock), clock)
    watcher = Watcher(handle, Approvals(workspace), clock, 1.0)
    with (
        world.http(create_app(Services(recommender, events, lambda: watcher.status))) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        under_way = pool.submit(lambda: httpx.post(f"{client.base_url}/v1/recommend", json=ASK, timeout=30).json())
        time.sleep(0.3)
        handle.swap(world.serve_with(workspace, world.FakeScorer(), 2))
        assert client.post("/v1/recommend", json=ASK).json()["version"] == 2
        assert not under_way.done()
        first.gate.set()
        assert under_way.result()["version"] == 1
