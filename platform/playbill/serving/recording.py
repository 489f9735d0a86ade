"""Live events: completed, checked against the catalogue, and committed to the journal.

Keeping requests and slates without making members wait, and without losing any.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playbill.clock import Clock
from playbill.errors import DataError, Problem, ServiceError
from playbill.schema import UNKNOWN_COUNTRY
from playbill.serving.active_model import ModelHandle
from playbill.tables import AppendResult, Journal, RequestLog
from playbill.tables.dead_letters import DeadLetters

FILLED_COLUMNS = ("event_at", "country")
"""What an event may leave out: it happened now, where the member's profile says."""
TITLE_COLUMNS = ("title_id", "source_title_id")


class EventDoor:
    """Takes events in. Safe to share between threads.

    Args:
        handle: Gives the catalogue and the members.
        journal: Where events are committed.
        clock: The workspace's; the time of events that come without one.
    """

    def __init__(self, handle: ModelHandle, journal: Journal, clock: Clock) -> None:
        self._slot, self._journal, self._clock = handle, journal, clock

    def accept(self, events: Sequence[Mapping[str, Any]]) -> AppendResult:
        """Commit events; they are durable, and read by the member's next request, when this returns.

        An event without `event_at` happened now, one without `country` where the member's profile says.

        Args:
            events: As `interactions` has them. Sending one again changes nothing.

        Raises:
            DataError: Any event is wrong; all mistakes are named and none of the events is kept.
            ServiceError: The database does not answer.
        """
        completed = [self._completed(event) for event in events]
        strangers = self._strangers(events)
        if strangers:
            problems = [*self._journal.problems(completed), *strangers]
            raise DataError("the events were not accepted", sorted(problems, key=lambda problem: problem.where))
        return self._journal.append(completed)

    def _completed(self, event: Mapping[str, Any]) -> dict[str, Any]:
        completed = dict(event)
        completed.setdefault("event_at", self._clock.now())
        if "country" not in completed:
            completed["country"] = self._country(completed.get("member_id"))
        return completed

    def _country(self, member_id: object) -> str:
        profile = self._slot.current.snapshot.members.profile(member_id) if isinstance(member_id, str) else None
        return (profile or {}).get("country") or UNKNOWN_COUNTRY

    def _strangers(self, events: Sequence[Mapping[str, Any]]) -> list[Problem]:
        catalogue = self._slot.current.snapshot.catalogue
        return [
            Problem(f"events[{index}].{column}", f"unknown title '{event[column]}'.")
            for index, event in enumerate(events)
            for column in TITLE_COLUMNS
            if isinstance(event.get(column), str) and event[column] not in catalogue
        ]


logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
Answered = tuple[Row, Sequence[Row]]
"""A row of `requests` and its rows of `slates`."""

WAITING_LIMIT = 10_000
BATCH = 64
RETRY_SECONDS = 0.5
RETRY_SECONDS_MOST = 10.0
ROOM_SECONDS = 2.0
CLOSING_TRIES = 3


@dataclass(frozen=True, slots=True)
class LogStatus:
    """How the request log is doing.

    Args:
        waiting: Answers not written yet.
        dead_letters: Rows set aside with the reason.
        lost: Rows that could not even be set aside.
    """

    waiting: int = 0
    dead_letters: int = 0
    lost: int = 0


class RequestWriter:
    """Writes to the request log from one thread of its own, in batches.

    Up to `limit` requests wait in memory. When the database is slower than that, `write` waits for room for a moment,
    so answers get slower before anything is set aside. While the database is down, writing is tried again, less and
    less often. A row that the database refuses is found by halving its batch and set aside; the others are written.

    Args:
        log: Where to.
        dead_letters: Where rows are set aside.
        limit: Requests that may wait.
        retry_seconds: Time before the first new try while the database is down; it doubles up to ten seconds.
        room_seconds: How long `write` waits for room.
    """

    def __init__(
        self,
        log: RequestLog,
        dead_letters: DeadLetters,
        limit: int = WAITING_LIMIT,
        retry_seconds: float = RETRY_SECONDS,
        room_seconds: float = ROOM_SECONDS,
    ) -> None:
        self._log, self._dead_letters = log, dead_letters
        self._retry_seconds, self._room_seconds = retry_seconds, room_seconds
        self._waiting: queue.Queue[Answered | None] = queue.Queue(limit)
        self._closing, self._stalled = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-writer", daemon=True)
        self._thread.start()

    def write(self, request: Row, slates: Sequence[Row]) -> None:
        """Hand a request over; it is written soon, once, or set aside where there is no room in time."""
        try:
            # Once one has waited in vain the next ones do not: every answer would be late by as much.
            if self._stalled.is_set():
                self._waiting.put_nowait((request, slates))
            else:
                self._waiting.put((request, slates), timeout=self._room_seconds)
        except queue.Full:
            self._stalled.set()
            self._set_aside((request, slates), "the request log took nothing for too long, and the queue is full")

    def status(self) -> LogStatus:
        """Say what waits, and what was set aside."""
        return LogStatus(self._waiting.qsize(), len(self._dead_letters), self._dead_letters.lost)

    def flush(self) -> None:
        """Wait until everything handed over so far is written or set aside."""
        self._waiting.join()

    def close(self) -> None:
        """Write what is waiting, then end the thread. What a database does not take by then is set aside."""
        self._closing.set()
        self._waiting.put(None)
        self._thread.join()
        if self._dead_letters.lost:
            logger.error("%d requests could not be logged", self._dead_letters.lost)

    def _run(self) -> None:
        while batch := self._next_batch():
            answered = [item for item in batch if item is not None]
            try:
                if answered:
                    self._write(answered)
            finally:
                for _ in batch:
                    self._waiting.task_done()
            if None in batch:
                return

    def _next_batch(self) -> list[Answered | None]:
        batch = [self._waiting.get()]
        while len(batch) < BATCH and batch[-1] is not None:
            try:
                batch.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return batch

    def _write(self, batch: list[Answered]) -> None:
        try:
            self._write_in_time(batch)
        except ServiceError as error:
            for answered in batch:
                self._set_aside(answered, f"the server was stopped while the request log did not answer: {error}")
        except Exception as error:
            # The row's mistake, or our own, not the database's: trying it again would block every later request.
            if len(batch) == 1:
                self._set_aside(batch[0], f"{type(error).__name__}: {error}")
                return
            half = len(batch) // 2
            self._write(batch[:half])
            self._write(batch[half:])

    def _write_in_time(self, batch: list[Answered]) -> None:
        """Write a batch, and go on trying while the database does not answer."""
        tries, delay = 0, self._retry_seconds
        while True:
            try:
                self._log.write_all(batch)
                self._stalled.clear()
                return
            except ServiceError as error:
                tries += 1
                if self._closing.is_set() and tries >= CLOSING_TRIES:
                    raise
                logger.warning("the request log does not answer, trying again in %g s: %s", delay, error)
                self._closing.wait(delay)
                delay = min(2 * delay, max(RETRY_SECONDS_MOST, self._retry_seconds))

    def _set_aside(self, answered: Answered, reason: str) -> None:
        request, slates = answered
        self._dead_letters.add(reason, {"request": dict(request), "slates": [dict(slate) for slate in slates]})
