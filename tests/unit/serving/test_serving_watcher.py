from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from fixtures import serving_world as world
from playbill.clock import FixedClock
from playbill.config import Workspace
from playbill.errors import IntegrityError, ServiceError
from playbill.serving import ActiveModel, ModelHandle, ServedKey, Watcher

WAIT_SECONDS = 5.0


class FakeSource:
    """Says and loads what it is told."""

    def __init__(self, make: Callable[[ServedKey], ActiveModel], wanted: ServedKey) -> None:
        self.make, self.now, self.error = make, wanted, None
        self.loads: list[int | None] = []
        self.error: Exception | None = None

    def wanted(self) -> ServedKey:
        if self.error is not None:
            raise self.error
        return self.now

    def load(self, wanted: ServedKey) -> ActiveModel:
        self.loads.append(wanted.version)
        return self.make(wanted)


@pytest.fixture
def build(stocked: Workspace) -> Callable[..., ActiveModel]:
    """Return a maker of served versions."""

    def make(version: int | None, fails: bool = False, complete: bool = True) -> ActiveModel:
        scorer = None if version is None else world.FakeScorer(shift=float(version), fails=fails)
        served: ActiveModel = world.serve_with(stocked, scorer, version, gap=None if complete else "store is down")
        return served

    return make


def watcher_of(handle: ModelHandle, source: FakeSource, poll_seconds: float = 0.01) -> Watcher:
    return Watcher(handle, source, FixedClock(world.NOW), poll_seconds)


def test_an_approved_version_is_loaded_and_swapped_in(build: Callable[..., ActiveModel]) -> None:
    handle = ModelHandle(build(None))
    source = FakeSource(lambda key: build(key.version), build(1).key)
    watcher = watcher_of(handle, source)
    assert watcher.look()
    assert handle.current.version == 1
    assert watcher.status.problem is None
    assert not watcher.look()
    assert source.loads == [1]
    source.now = build(2).key
    assert watcher.look()
    assert (handle.current.version, handle.swaps) == (2, 2)


def test_a_decision_beside_it_is_followed_at_once(build: Callable[..., ActiveModel]) -> None:
    handle = ModelHandle(build(None))
    watcher = watcher_of(handle, FakeSource(lambda key: build(key.version), build(1).key), poll_seconds=600)
    watcher.start()
    try:
        time.sleep(0.05)
        assert handle.current.version is None
        watcher.wake()
        deadline = time.perf_counter() + WAIT_SECONDS
        while handle.current.version is None and time.perf_counter() < deadline:
            time.sleep(0.01)
        assert handle.current.version == 1
    finally:
        watcher.stop()


def test_a_version_that_fails_keeps_the_old_one_and_says_why(build: Callable[..., ActiveModel]) -> None:
    handle = ModelHandle(build(1))

    def load(key: ServedKey) -> ActiveModel:
        raise IntegrityError("digest differs")

    watcher = watcher_of(handle, FakeSource(load, build(2).key))
    assert not watcher.look()
    assert handle.current.version == 1
    assert watcher.status.problem == "version 2 was not loaded: digest differs"


def test_a_version_that_does_not_score_is_not_served(build: Callable[..., ActiveModel]) -> None:
    handle = ModelHandle(build(1))
    watcher = watcher_of(handle, FakeSource(lambda key: build(2, fails=True), build(2).key))
    assert not watcher.look()
    assert handle.current.version == 1
    assert "RuntimeError" in (watcher.status.problem or "")


def test_a_failing_version_is_tried_again_later_and_a_newer_one_at_once(build: Callable[..., ActiveModel]) -> None:
    handle = ModelHandle(build(1))
    source = FakeSource(lambda key: build(key.version, fails=key.version == 2), build(2).key)
    watcher = watcher_of(handle, source, poll_seconds=60.0)
    watcher.look()
    watcher.look()
    assert source.loads == [2]
    source.now = build(3).key
    assert watcher.look()
    assert handle.current.version == 3
    assert watcher.status.failures == 0


def test_approvals_that_cannot_be_read_keep_what_is_served(build: Callable[..., ActiveModel]) -> None:
    handle = ModelHandle(build(1))
    source = FakeSource(lambda key: build(key.version), build(1).key)
    source.error = ServiceError("database is gone")
    watcher = watcher_of(handle, source)
    assert not watcher.look()
    assert watcher.status.problem == "approvals cannot be read: database is gone"
    source.error = None
    watcher.look()
    assert watcher.status.problem is None


def test_half_a_model_is_served_until_the_whole_one_can_be(build: Callable[..., ActiveModel]) -> None:
    handle = ModelHandle(build(None))
    whole = False
    source = FakeSource(lambda key: build(1, complete=whole), build(1).key)
    watcher = watcher_of(handle, source, poll_seconds=0.001)
    assert watcher.look()
    assert watcher.status.problem == "served without title features: store is down"
    assert not watcher.look()
    whole = True
    time.sleep(0.05)
    assert watcher.look()
    assert handle.current.complete


def test_the_thread_follows_approvals_and_ends(build: Callable[..., ActiveModel]) -> None:
    handle = ModelHandle(build(1))
    source = FakeSource(lambda key: build(key.version), build(1).key)
    watcher = watcher_of(handle, source)
    watcher.start()
    try:
        source.now = build(2).key
        deadline = time.perf_counter() + WAIT_SECONDS
        while handle.current.version != 2 and time.perf_counter() < deadline:
            time.sleep(0.01)
    finally:
        watcher.stop()
    assert handle.current.version == 2
