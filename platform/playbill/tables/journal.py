"""The event journal: live events, acknowledged after commit, later compacted into the day partitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import sqlalchemy as sa

from playbill.clock import Clock, WallClock, to_microseconds
from playbill.errors import DataError, Problem
from playbill.schema import EARLIEST, INTERACTIONS, LATEST
from playbill.tables.database import (
    create_tables,
    database_errors,
    hold_keys,
    insert_frame,
    insert_new,
    open_database,
    sql_columns,
    sql_frame,
    sql_row,
)
from playbill.tables.frames import empty_frame
from playbill.tables.live_events import Event, checked_events
from playbill.tables.ordering import with_seq
from playbill.tables.validation import row_problems

if TYPE_CHECKING:
    from playbill.tables.store import Tables

_metadata = sa.MetaData()
_journal = sa.Table(
    "event_journal",
    _metadata,
    sa.Column("journal_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *sql_columns("interactions"),
    sa.UniqueConstraint("event_id"),
    sa.Index("event_journal_by_member", "member_id", "seq"),
)
_rejected = sa.Table(
    "event_journal_rejected",
    _metadata,
    sa.Column("rejected_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *sql_columns("interactions"),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("rejected_at", sa.BigInteger, nullable=False),
)
_EVENT_COLUMNS = [_journal.c[name] for name in INTERACTIONS.names()]
_READABLE = (
    sa.select(*_EVENT_COLUMNS)
    .where(_journal.c.event_at.between(to_microseconds(EARLIEST), to_microseconds(LATEST)))
    .where(_journal.c.recorded_at.between(to_microseconds(EARLIEST), to_microseconds(LATEST)))
    .order_by(_journal.c.member_id, _journal.c.event_at, _journal.c.seq, _journal.c.journal_id)
)
_OF_MEMBER = _READABLE.where(_journal.c.member_id == sa.bindparam("member"))  # every request asks this
_NO_EVENTS = empty_frame("interactions")
_CHUNK = 500
"""Names bound in one statement; SQLite allows 32,766, older builds 999."""


@dataclass(frozen=True, slots=True)
class AppendResult:
    """How many events were new, and how many were already there."""

    accepted: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """An event of the journal that the tables cannot hold, and why."""

    event_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class PendingEvents:
    """What a compaction takes from the journal."""

    events: pl.DataFrame
    """Canonical events that the tables can hold."""
    rejected: tuple[RejectedEvent, ...]
    """Events that were set aside now, in the table `event_journal_rejected`."""


class Journal:
    """Live events of one workspace. Events after the clock are refused, and it stamps `recorded_at`.

    Every method raises ServiceError where the database does not answer; what it was to commit is not.

    Raises:
        ConfigError: The URL cannot be used.
    """

    def __init__(self, database_url: str, clock: Clock | None = None) -> None:
        self._engine = open_database(database_url)
        self._clock = clock or WallClock()
        create_tables(self._engine, _metadata)

    def append(self, events: Sequence[Event]) -> AppendResult:
        """Commit events. Appending one again, even from another process, changes nothing.

        Args:
            events: Canonical interactions. `seq` may be left out: it is then the time in microseconds, raised
                until no event of the member in the journal has it, so the order of arrival breaks ties; whoever
                appends at the same time waits. Compaction raises it again where a stored event has it.
                `recorded_at` may be left out too, and means now.

        Raises:
            DataError: Any event is wrong; all mistakes are named and none of the events is kept.
        """
        rows = checked_events(events, self._clock.now())
        if not rows:
            return AppendResult(0, 0)
        with database_errors(self._engine), self._engine.begin() as connection:
            if any(row["seq"] is None for row in rows):
                hold_keys(connection, [row["member_id"] for row in rows])
                _fill_seq(connection, rows)
            accepted = insert_new(connection, _journal, [sql_row("interactions", row) for row in rows], ["event_id"])
        return AppendResult(accepted, len(rows) - accepted)

    def append_frame(self, events: pl.DataFrame, stored: pl.DataFrame) -> AppendResult:
        """Commit canonical events that are checked already, as one, many thousands in a second.

        Args:
            events: Rows with exactly the canonical columns of interactions; a null `seq` is filled (`with_seq`).
            stored: member_id, event_at and seq of the members' events that are not in the journal.
        """
        members = events.get_column("member_id").unique()
        with database_errors(self._engine), self._engine.begin() as connection:
            hold_keys(connection, members.to_list())
            live = _matching(connection, "member_id", members).select(stored.columns)
            placed = with_seq(events, pl.concat([stored, live]))
            accepted = insert_frame(connection, _journal, "interactions", placed)
        return AppendResult(accepted, events.height - accepted)

    def with_ids(self, event_ids: pl.Series) -> pl.DataFrame:
        """Return the journalled events that have one of some ids."""
        with database_errors(self._engine), self._engine.connect() as connection:
            return _matching(connection, "event_id", event_ids)

    def of_members(self, member_ids: pl.Series) -> pl.DataFrame:
        """Return the journalled events of some members, unsorted."""
        with database_errors(self._engine), self._engine.connect() as connection:
            return _matching(connection, "member_id", member_ids)

    def problems(self, events: Sequence[Event]) -> tuple[Problem, ...]:
        """Return every mistake `append` would name, without appending anything."""
        try:
            checked_events(events, self._clock.now())
        except DataError as error:
            return error.problems
        return ()

    def read(self, member_id: str | None = None, since: datetime | None = None) -> pl.DataFrame:
        """Return journalled events, of one member or all, from a moment on, sorted by member_id, event_at and seq.

        Events that no reader could hold, because of their moments, are left out; `waiting` sets them aside.
        """
        query, given = _READABLE, {}
        if member_id is not None:
            query, given = _OF_MEMBER, {"member": member_id}
        if since is not None:
            query = query.where(_journal.c.event_at >= to_microseconds(since))
        with database_errors(self._engine), self._engine.connect() as connection:
            rows = connection.execute(query, given).all()
        if not rows:
            return _NO_EVENTS
        frame = sql_frame("interactions", rows)
        # Databases order text by their own collation; every reader of ours expects byte order.
        return frame.sort("member_id", "event_at", "seq", maintain_order=True)

    def compact(self, tables: Tables) -> int:
        """Move the journal into the day partitions and return how many events these gained.

        Killed at any point, the next call ends in the same state: events already in the partitions are not
        written twice, and events leave the journal only after the partitions are published.

        Raises:
            StateError: Nothing has been ingested yet, or another process is writing the tables.
        """
        waiting = self.waiting()
        if waiting.events.is_empty():
            return 0
        added = tables.append_events(waiting.events)
        self.forget(waiting.events.get_column("event_id"))
        return added

    def waiting(self) -> PendingEvents:
        """Return the events to compact, after setting aside those that the tables cannot hold.

        What is accepted today can be compacted; a journal may have rows of an earlier version, or of another writer.
        """
        with database_errors(self._engine), self._engine.begin() as connection:
            rows = connection.execute(sa.select(*_EVENT_COLUMNS, _journal.c.journal_id)).all()
            frame = sql_frame("interactions", [row[:-1] for row in rows])
            reasons: dict[int, list[str]] = {}
            for problem in row_problems("interactions", frame, None):
                hint = f" {problem.hint}" if problem.hint else ""
                reasons.setdefault(problem.row, []).append(f"{problem.column}: {problem.what}{hint}")
            for row, reason in reasons.items():
                _set_aside(connection, rows[row].journal_id, " ".join(reason), self._clock.now())
        sound = frame.with_row_index("_row").filter(~pl.col("_row").is_in(list(reasons))).drop("_row")
        ids = frame.get_column("event_id")
        rejected = tuple(RejectedEvent(ids[row], " ".join(reason)) for row, reason in reasons.items())
        return PendingEvents(sound.sort("member_id", "event_at", "seq", maintain_order=True), rejected)

    def rejected(self) -> int:
        """Return how many events were ever set aside."""
        with database_errors(self._engine), self._engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(_rejected)).scalar_one())

    def forget(self, event_ids: pl.Series) -> None:
        """Remove events that the day partitions have."""
        with database_errors(self._engine), self._engine.begin() as connection:
            for chunk in _chunks(event_ids.to_list()):
                connection.execute(sa.delete(_journal).where(_journal.c.event_id.in_(chunk)))


def _matching(connection: sa.Connection, column: str, wanted: pl.Series) -> pl.DataFrame:
    # The journal is short and the question may be long: what it has is asked for first.
    has = connection.execute(sa.select(_journal.c[column]).distinct()).scalars().all()
    known = pl.Series(column, has, dtype=pl.String).to_frame()
    values = known.join(wanted.unique().rename(column).to_frame(), on=column, how="semi").get_column(column)
    rows: list[sa.Row[Any]] = []
    for chunk in _chunks(values.to_list()):
        rows += connection.execute(sa.select(*_EVENT_COLUMNS).where(_journal.c[column].in_(chunk))).all()
    return sql_frame("interactions", rows)


def _set_aside(connection: sa.Connection, journal_id: int, reason: str, now: datetime) -> None:
    """Move a row out of the journal. NUL, which Postgres refuses, cannot be in a journal of Postgres."""
    here = _journal.c.journal_id == journal_id
    moved = sa.select(*_EVENT_COLUMNS, sa.literal(reason), sa.literal(to_microseconds(now), sa.BigInteger)).where(here)
    names = [*INTERACTIONS.names(), "reason", "rejected_at"]
    connection.execute(sa.insert(_rejected).from_select(names, moved))
    connection.execute(sa.delete(_journal).where(here))


def _fill_seq(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    missing = [row for row in rows if row["seq"] is None]
    taken: set[tuple[str, int]] = set()
    for chunk in _chunks(sorted({row["member_id"] for row in missing})):
        earliest = min(to_microseconds(row["event_at"]) for row in missing)
        query = sa.select(_journal.c.member_id, _journal.c.seq).where(
            _journal.c.member_id.in_(chunk), _journal.c.seq >= earliest
        )
        taken |= {(member, seq) for member, seq in connection.execute(query)}
    for row in missing:
        seq = to_microseconds(row["event_at"])
        while (row["member_id"], seq) in taken:
            seq += 1
        row["seq"] = seq
        taken.add((row["member_id"], seq))


def _chunks(values: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), _CHUNK):
        yield list(values[start : start + _CHUNK])
