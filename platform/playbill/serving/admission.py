"""How many requests are worked on at once, how many wait, and for how long: past that a server says so at once.

A queue without an end makes every answer late and none of them refused: at 200 requests at once the median was 10 s.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from playbill.errors import PlaybillError
from playbill.serving.messages import RecommendRequest
from playbill.serving.pipeline import Recommender, timed_out
from playbill.settings import LimitsSettings

Result = TypeVar("Result")

QUEUE_PER_PROCESSOR = 8
THREADS_PER_PROCESSOR = 2
"""Requests in work for each processor: while one is scored, facts of the next one are read."""
EVENT_THREADS = 8
EVENTS_WAITING = 256
EVENTS_SECONDS = 10.0
"""Calls that commit events at once, that may wait, and for how long. They wait for a disk, not for a processor."""


class BusyError(PlaybillError):
    """Too many requests are waiting, or one has waited for too long. It was not begun.

    Args:
        text: What happened, in words.
        retry_after_s: When to try again.
        waited_s: How long the request waited.
    """

    def __init__(self, text: str, retry_after_s: int, waited_s: float) -> None:
        super().__init__(text, retry_after_s, waited_s)
        self.retry_after_s, self.waited_s = retry_after_s, waited_s

    def __str__(self) -> str:
        return str(self.args[0])


class Admission:
    """Lets requests into threads of its own in the order they came. For one event loop.

    Args:
        workers: Requests that are worked on at once.
        waiting: Requests that may wait for that; one more is refused at once.
        seconds: How long one may wait; then it is refused.
    """

    def __init__(self, workers: int, waiting: int, seconds: float) -> None:
        self._workers, self._most, self._seconds = workers, waiting, seconds
        self._places = asyncio.Semaphore(workers)
        # Threads of its own: what waits here takes none from other routes.
        self._threads = CapacityLimiter(workers)
        self.waiting = self.refused = 0

    async def run(self, work: Callable[[float], Result], patience_s: float | None = None) -> Result:
        """Return what `work` returns in a thread; it is called with the seconds that it waited.

        Args:
            work: What is to be done.
            patience_s: How long this one may wait, if that is shorter.

        Raises:
            BusyError: Too many wait already, or this one waited for too long. `work` was not called.
        """
        arrived = time.perf_counter()
        await self._enter(min(self._seconds, math.inf if patience_s is None else patience_s))
        try:
            return await to_thread.run_sync(work, time.perf_counter() - arrived, limiter=self._threads)
        finally:
            self._places.release()

    async def _enter(self, seconds: float) -> None:
        if self._places.locked() and self.waiting >= self._most:
            raise self._busy(f"{self.waiting} requests are waiting already", 0.0)
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise self._busy(f"waited {seconds:g} s for other requests", seconds) from None
        finally:
            self.waiting -= 1

    def _busy(self, text: str, waited_s: float) -> BusyError:
        self.refused += 1
        return BusyError(f"the server is busy: {text}", math.ceil(self._seconds), waited_s)


class RequestQueue:
    """Which requests are worked on, wait, are refused or are answered by a fallback. For one event loop.

    Args:
        recommender: Answers requests.
        limits: How many may wait, how long, and what happens to the others.
        processors: Of this machine; None = all.
    """

    def __init__(self, recommender: Recommender, limits: LimitsSettings, processors: int | None = None) -> None:
        self._recommender, self._fall_back = recommender, limits.when_busy == "fallback"
        processors = processors or os.cpu_count() or 1
        threads = THREADS_PER_PROCESSOR * processors
        queue = QUEUE_PER_PROCESSOR * processors if limits.queue is None else limits.queue
        self.scoring = Admission(threads, queue, limits.queue_seconds)
        # A fallback takes a few milliseconds, so many more of them are done within the same time.
        self._fallbacks = Admission(processors, 10 * max(queue, threads), limits.queue_seconds)
        self.events = Admission(EVENT_THREADS, EVENTS_WAITING, EVENTS_SECONDS)

    async def answer(self, request: RecommendRequest) -> str:
        """Answer one request, when it is its turn, with the JSON of a `RecommendResponse`.

        The thread that makes an answer writes it as JSON too: the event loop has to be free to refuse others.

        Raises:
            BusyError: Too many wait already, or this one waited for too long, and no fallback answers instead.
            NotFoundError, RequestError, StateError: As `Recommender.recommend`.
        """
        recommender, timeout_ms = self._recommender, self._recommender.timeout_ms(request)
        patience_s = None if timeout_ms is None else timeout_ms / 1000
        try:
            return await self.scoring.run(
                lambda waited_s: recommender.recommend(request, waited_s).model_dump_json(), patience_s
            )
        except BusyError as busy:
            if timeout_ms is not None and busy.waited_s >= timeout_ms / 1000:
                reason = timed_out(timeout_ms)
            elif self._fall_back:
                reason = str(busy)
            else:
                raise
        return await self._fallbacks.run(lambda _: recommender.fall_back(request, reason).model_dump_json())
