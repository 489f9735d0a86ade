"""Everything one server process runs, put together: model, watcher, promotion controller, request log."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from playbill.clock import Clock
from playbill.config import Workspace
from playbill.features import FeatureDoor, online_store_state
from playbill.serving.active_model import ModelHandle
from playbill.serving.app import Services, required_token
from playbill.serving.loading import Loader
from playbill.serving.member_state import FactReader
from playbill.serving.pipeline import FRESH, Recommender
from playbill.serving.profile import Profile
from playbill.serving.recording import EventDoor, RequestWriter
from playbill.serving.watcher import Watcher
from playbill.settings import LimitsSettings
from playbill.tables import Journal, RequestLog, Tables, workspace_clock
from playbill.tables.dead_letters import DeadLetters
from playbill.versions.promotion import Controller
from playbill.versions.tracking import Tracking

logger = logging.getLogger(__name__)


@dataclass
class Running:
    """The threads of one server process.

    Args:
        watcher: Follows approvals.
        writer: Writes the request log.
        controller: Decides about promotions; None leaves that to another process.
        poll_seconds: Time between the controller's looks.
        prepare: Gets ready for the first promotion, beside the requests; None when a version is served.
    """

    watcher: Watcher
    writer: RequestWriter
    controller: Controller | None
    poll_seconds: float
    prepare: Callable[[], None] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start watching and deciding."""
        if self.prepare is not None:
            threading.Thread(target=self.prepare, name="preparation", daemon=True).start()
        self.watcher.start()
        if self.controller is not None:
            arguments = (self._stop, self.poll_seconds)
            self._thread = threading.Thread(target=self.controller.run, args=arguments, name="promotion", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End every thread, and write every request that was answered."""
        self._stop.set()
        self.watcher.stop()
        if self._thread is not None:
            self._thread.join()
        self.writer.close()


def build_services(
    workspace: Workspace,
    model: str,
    *,
    host: str,
    token: str | None,
    with_controller: bool,
    profile: Profile = FRESH,
    limits: LimitsSettings | None = None,
) -> Services:
    """Load what is approved, and put a server together that is ready to start.

    Without an approved version, or when it cannot be loaded, the server starts all the same: fallbacks answer,
    `/readyz` says why, and the watcher goes on trying.

    Raises:
        ConfigError: `host` can be reached from other machines and there is no token.
        StateError: Nothing has been ingested yet.
        DefinitionError: The zoo has mistakes.
        UnknownNameError: The zoo has no such model.
    """
    token = required_token(host, token)
    clock: Clock = workspace_clock(workspace)
    tables, tracking, features = Tables(workspace).require(), Tracking(workspace), FeatureDoor(workspace)
    loader = Loader(workspace, model, tracking, features, clock)
    handle = ModelHandle(loader.without_model())
    poll_seconds = workspace.project.settings.serving.poll_seconds
    watcher = Watcher(handle, loader, clock, poll_seconds)
    watcher.look()
    handle.current.snapshot.plays.load()
    writer = RequestWriter(RequestLog(workspace.database_url), DeadLetters(workspace.dead_letters))
    gate = threading.BoundedSemaphore(scoring_threads())
    facts = FactReader(tables, features)
    # The first look into a feature store imports its client, which takes seconds no member should wait.
    facts.read(handle.current, None, clock.now())
    recommender = Recommender(handle, facts, clock, writer.write, gate, profile)
    events = EventDoor(handle, Journal(workspace.database_url, clock), clock)
    controller = Controller(workspace, tracking, decided=watcher.wake) if with_controller else None
    unserved = handle.current.scorer is None
    prepare = partial(loader.prepare, handle.current) if unserved else None
    running = Running(watcher, writer, controller, poll_seconds, prepare)
    limits = limits or workspace.project.settings.serving.limits
    return Services(
        recommender,
        events,
        lambda: watcher.status,
        token,
        running.start,
        running.stop,
        limits,
        writer.status,
        partial(online_store_state, workspace),
    )


def scoring_threads() -> int:
    """Return how many requests are scored at once: one for each processor, with one torch thread each."""
    return os.cpu_count() or 1
