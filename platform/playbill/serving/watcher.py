"""Follows the approved version: loads, warms and swaps in the background; a failure keeps what is served."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from playbill.clock import Clock
from playbill.errors import PlaybillError
from playbill.serving.active_model import ActiveModel, ModelHandle, ServedKey

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 60.0


class ServedSource(Protocol):
    """What should be served, and the way to it; `serving.loading.Loader` is one."""

    def wanted(self) -> ServedKey:
        """Return what should be served now. Cheap."""
        ...

    def load(self, wanted: ServedKey) -> ActiveModel:
        """Load it."""
        ...


@dataclass(frozen=True, slots=True)
class WatcherStatus:
    """What the last look found.

    Args:
        wanted: What should be served.
        problem: Why it is not; None when it is.
        failures: How often loading it failed so far.
    """

    wanted: ServedKey | None = None
    problem: str | None = None
    failures: int = 0


class Watcher:
    """Brings the slot to what is approved.

    A version that fails to load is tried again after twice the time each time, up to a minute; a newer approval
    is tried at once. Requests under way keep the model they started with.

    Args:
        handle: What is served.
        source: What should be.
        clock: The workspace's; the moment models are warmed at.
        poll_seconds: Time between looks.
    """

    def __init__(self, handle: ModelHandle, source: ServedSource, clock: Clock, poll_seconds: float) -> None:
        self._slot, self._source, self._clock = handle, source, clock
        self._poll_seconds = poll_seconds
        self._status = WatcherStatus()
        self._retry_at = 0.0
        self._stop, self._wake = threading.Event(), threading.Event()
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> WatcherStatus:
        """What the last look found."""
        return self._status

    def look(self) -> bool:
        """Look once, and say whether something else is served now. Raises nothing a store or model may raise."""
        with self._looking:
            try:
                wanted = self._source.wanted()
            except Exception as error:
                self._note(self._status.wanted, "approvals cannot be read", error)
                return False
            current = self._slot.current
            if wanted == current.key and current.complete:
                self._status = WatcherStatus(wanted)
                return False
            if wanted == self._status.wanted and self._status.failures and time.perf_counter() < self._retry_at:
                return False
            return self._replace(wanted, current)

    def start(self) -> None:
        """Look every `poll_seconds` in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="approval-watcher", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look now instead of at the next turn, as after a decision in this process."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread after the look it is in."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._poll_seconds)
            self._wake.clear()
            if not self._stop.is_set():
                self.look()

    def _replace(self, wanted: ServedKey, current: ActiveModel) -> bool:
        failures = self._status.failures if wanted == self._status.wanted else 0
        try:
            served = self._source.load(wanted)
            if not served.complete and served.key == current.key:
                # The same half of a model again: nothing is gained by a swap.
                raise PlaybillError(f"title features cannot be read: {served.gap}")
            served.warm(self._clock.now())
        except Exception as error:
            # A broken version must not take the server down, whatever is wrong with it.
            self._postpone(failures + 1)
            self._note(wanted, f"version {wanted.version} was not loaded", error, failures + 1)
            return False
        self._slot.swap(served)
        self._status = WatcherStatus(wanted, served.gap and f"served without title features: {served.gap}")
        logger.info("serving %s:%s", served.model, served.version)
        return True

    def _postpone(self, failures: int) -> None:
        wait_seconds = min(self._poll_seconds * 2 ** min(failures, 10), LONGEST_WAIT_SECONDS)
        self._retry_at = time.perf_counter() + wait_seconds

    def _note(self, wanted: ServedKey | None, what: str, error: Exception, failures: int = 0) -> None:
        if isinstance(error, PlaybillError):
            logger.warning("%s, what is served stays: %s", what, error)
            text = str(error)
        else:
            logger.exception("%s, what is served stays", what)
            text = f"{type(error).__name__}: {error}"
        self._status = WatcherStatus(wanted, f"{what}: {text}", failures or self._status.failures)
