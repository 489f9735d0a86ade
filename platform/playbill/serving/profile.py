"""How a server answers: fresh each time or from answers kept for a while, and within which time.

`fresh` reads the member's newest events for every request. `cached` keeps an answer for some seconds and gives it to
whoever asks the same again, at a fraction of the time; what the member did meanwhile counts when it has run out. Both
serve the same version of the model, and an answer says how old it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from cachetools import LRUCache

Kept = TypeVar("Kept")
Result = TypeVar("Result")

ProfileName = Literal["fresh", "cached"]
CACHE_SECONDS = 60.0
CACHE_ENTRIES = 10_000
WORKERS = 16
"""Requests with a time limit that are worked on at once; the others wait, and may run out of time waiting."""


class AnswerCache(Generic[Kept]):
    """Answers by what was asked, forgotten after some seconds. Safe to share between threads.

    Args:
        seconds: How long one is kept.
        most: How many are, those asked for longest ago going first.
        timer: Seconds that only go forward.
    """

    def __init__(
        self, seconds: float = CACHE_SECONDS, most: int = CACHE_ENTRIES, timer: Callable[[], float] = time.perf_counter
    ) -> None:
        self._seconds, self._timer = seconds, timer
        self._kept: LRUCache[Hashable, tuple[Kept, float]] = LRUCache(most)
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> tuple[Kept, float] | None:
        """Return an answer and its age in seconds, None where there is none that is young enough."""
        with self._lock:
            if (kept := self._kept.get(key)) is None:
                return None
            age_s = self._timer() - kept[1]
            if age_s <= self._seconds:
                return kept[0], age_s
            del self._kept[key]
            return None

    def put(self, key: Hashable, answer: Kept, since: float) -> None:
        """Keep an answer, and count its age from `since`: what it was made of was read after that."""
        with self._lock:
            self._kept[key] = answer, since

    def now(self) -> float:
        """Return the timer's reading, for `put`."""
        return self._timer()


class OutOfTimeError(Exception):
    """Some work was not done in time. It may still be going on."""


class Deadline:
    """Does work in other threads and stops waiting for it when its time is over. Safe to share between threads."""

    def __init__(self, workers: int = WORKERS) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="deadline")

    def run(self, work: Callable[[], Result], seconds: float) -> Result:
        """Return what `work` returns, or raise what it raises.

        Raises:
            OutOfTimeError: It took longer. Work that has begun goes on unseen; work that has not is dropped.
        """
        task = self._pool.submit(work)
        try:
            return task.result(timeout=seconds)
        except NotYetError:
            if task.done():
                raise
            task.cancel()
            raise OutOfTimeError from None


@dataclass(frozen=True)
class Profile:
    """How a server answers.

    Args:
        cache_seconds: How long an answer is kept; None = every answer is fresh.
        timeout_ms: Time of a request that names none; None = as long as it takes.
    """

    cache_seconds: float | None = None
    timeout_ms: int | None = None

    @classmethod
    def named(cls, name: ProfileName, cache_seconds: float = CACHE_SECONDS, timeout_ms: int | None = None) -> Profile:
        """Return `fresh` or `cached`."""
        return cls(cache_seconds if name == "cached" else None, timeout_ms)
