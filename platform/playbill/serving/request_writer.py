"""Keeping requests and slates without making members wait, and without losing any."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from playbill.errors import ServiceError
from playbill.tables import RequestLog

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
WAITING_LIMIT = 10_000
RETRY_SECONDS = 0.5
CLOSING_TRIES = 3


class RequestWriter:
    """Writes to the request log from one thread of its own.

    Up to `limit` requests wait in memory. When the database is slower than that, `write` waits for room: answers
    get slower before anything is lost. While the database is down, writing is tried again until `close`.

    Args:
        log: Where to.
        limit: Requests that may wait.
        retry_seconds: Time between tries while the database is down.
    """

    def __init__(self, log: RequestLog, limit: int = WAITING_LIMIT, retry_seconds: float = RETRY_SECONDS) -> None:
        self._log, self._retry_seconds = log, retry_seconds
        self._waiting: queue.Queue[tuple[Row, Sequence[Row]] | None] = queue.Queue(limit)
        self._closing = threading.Event()
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name="request-writer", daemon=True)
        self._thread.start()

    def write(self, request: Row, slates: Sequence[Row]) -> None:
        """Hand a request over; it is written soon, once."""
        self._waiting.put((request, slates))

    def flush(self) -> None:
        """Wait until everything handed over so far is written."""
        self._waiting.join()

    def close(self) -> None:
        """Write what is waiting, then end the thread. A database that stays down loses it, which is logged."""
        self._closing.set()
        self._waiting.put(None)
        self._thread.join()
        if self.lost:
            logger.error("%d requests could not be logged", self.lost)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._write(*item)
            finally:
                self._waiting.task_done()
        self._waiting.task_done()

    def _write(self, request: Row, slates: Sequence[Row]) -> None:
        tries = 0
        while True:
            try:
                self._log.write(request, slates)
                return
            except ServiceError as error:
                tries += 1
                if self._closing.is_set() and tries >= CLOSING_TRIES:
                    self.lost += 1
                    return
                logger.warning("the request log does not answer, trying again: %s", error)
                self._closing.wait(self._retry_seconds)
            except Exception:
                # Our own mistake, not the database's: trying again would block every later request.
                logger.exception("a request could not be logged")
                self.lost += 1
                return
