"""The event journal: live events, acknowledged after commit, later compacted into the day partitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Protocol

import polars as pl
import sqlalchemy as sa
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, create_model

from playbill.clock import Clock, WallClock
from playbill.errors import DataError, Problem, nearest
from playbill.schema import INTERACTIONS, UNKNOWN_COUNTRY, ColumnType
from playbill.tables.database import (
    create_tables,
    database_errors,
    insert_new,
    open_database,
    sql_columns,
    sql_frame,
    sql_row,
)
from playbill.tables.event_log import to_microseconds
from playbill.tables.validation import PAST, RANGES, TITLE_ACTIONS, action_hint, is_known_action

Event = Mapping[str, Any]

_PYTHON_TYPES: dict[ColumnType, Any] = {
    "string": Annotated[str, Field(min_length=1)],
    "int32": Annotated[int, Field(ge=-(2**31), lt=2**31)],
    "int64": Annotated[int, Field(ge=-(2**63), lt=2**63)],
    "float32": float,
    "float64": float,
    "bool": bool,
    "timestamp": AwareDatetime,
}
_OPTIONAL = ("seq", "recorded_at")
"""Canonical columns the journal fills when an event leaves them out."""

_metadata = sa.MetaData()
_journal = sa.Table(
    "event_journal",
    _metadata,
    sa.Column("journal_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *sql_columns("interactions"),
    sa.UniqueConstraint("event_id"),
    sa.Index("event_journal_by_member", "member_id", "seq"),
)
_CHUNK = 500
"""Names bound in one statement; SQLite allows 32,766, older builds 999."""


@dataclass(frozen=True, slots=True)
class AppendResult:
    """How many events were new, and how many were already there."""

    accepted: int
    duplicates: int


class EventLog(Protocol):
    """Where compacted events go; `Tables` is one."""

    def append_events(self, events: pl.DataFrame) -> int:
        """Add the events not there yet, as one, and return how many were new."""
        ...


class Journal:
    """Live events of one workspace.

    Args:
        database_url: `Workspace.database_url`.
        clock: Events after it are refused, and it stamps `recorded_at`.

    Raises:
        ConfigError: The URL cannot be used.
        ServiceError: The database does not answer.
    """

    def __init__(self, database_url: str, clock: Clock | None = None) -> None:
        self._engine = open_database(database_url)
        self._clock = clock or WallClock()
        create_tables(self._engine, _metadata)

    def append(self, events: Sequence[Event]) -> AppendResult:
        """Commit events. Appending one again, even from another process, changes nothing.

        Args:
            events: Canonical interactions. `seq` may be left out: it is then the time in microseconds, raised
                until it is unused by the member, so it follows everything ingested and the order of arrival
                breaks ties. `recorded_at` may be left out too, and means now.

        Returns:
            What was new. The events are durable when this returns.

        Raises:
            DataError: Any event is wrong; all mistakes are named and none of the events is kept.
            ServiceError: The database does not answer.
        """
        rows = _checked(events, self._clock.now())
        if not rows:
            return AppendResult(0, 0)
        with database_errors(self._engine), self._engine.begin() as connection:
            _fill_seq(connection, rows)
            accepted = insert_new(connection, _journal, [sql_row("interactions", row) for row in rows], ["event_id"])
        return AppendResult(accepted, len(rows) - accepted)

    def problems(self, events: Sequence[Event]) -> tuple[Problem, ...]:
        """Return every mistake `append` would name, without appending anything."""
        try:
            _checked(events, self._clock.now())
        except DataError as error:
            return error.problems
        return ()

    def read(self, member_id: str | None = None, since: datetime | None = None) -> pl.DataFrame:
        """Return journalled events, of one member or all, canonical, sorted by member_id, event_at and seq.

        Args:
            member_id: Only this member's.
            since: Only events at or after this moment.

        Raises:
            ServiceError: The database does not answer.
        """
        query = sa.select(*(_journal.c[name] for name in INTERACTIONS.names()))
        if member_id is not None:
            query = query.where(_journal.c.member_id == member_id)
        if since is not None:
            query = query.where(_journal.c.event_at >= to_microseconds(since))
        query = query.order_by(_journal.c.member_id, _journal.c.event_at, _journal.c.seq, _journal.c.journal_id)
        with database_errors(self._engine), self._engine.connect() as connection:
            frame = sql_frame("interactions", connection.execute(query).all())
        # Databases order text by their own collation; every reader of ours expects byte order.
        return frame.sort("member_id", "event_at", "seq", maintain_order=True)

    def compact(self, tables: EventLog) -> int:
        """Move the journal into the day partitions.

        Killed at any point, the next call ends in the same state: events already in the partitions are not
        written twice, and events leave the journal only after the partitions are published.

        Returns:
            How many events the partitions gained.

        Raises:
            StateError: Nothing has been ingested yet, or another process is writing the tables.
            ServiceError: The database does not answer.
        """
        events = self.read()
        if events.is_empty():
            return 0
        added = tables.append_events(events)
        with database_errors(self._engine), self._engine.begin() as connection:
            for chunk in _chunks(events.get_column("event_id").to_list()):
                connection.execute(sa.delete(_journal).where(_journal.c.event_id.in_(chunk)))
        return added


@cache
def _event_model() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for column in INTERACTIONS.columns:
        kind = _PYTHON_TYPES[column.type]
        required = not column.nullable and column.name not in _OPTIONAL
        fields[column.name] = (kind, ...) if required else (kind | None, None)
    return create_model("Event", __config__=ConfigDict(extra="forbid"), **fields)


def _checked(events: Sequence[Event], now: datetime) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for index, event in enumerate(events):
        try:
            row = _event_model().model_validate(dict(event)).model_dump()
        except ValidationError as error:
            problems += [_explain(index, item) for item in error.errors()]
            continue
        row["recorded_at"] = row["recorded_at"] or now
        problems += _broken_rules(f"events[{index}]", row, now)
        rows.append(row)
    if problems:
        raise DataError("the events were not accepted", problems)
    return rows


def _explain(index: int, item: Mapping[str, Any]) -> Problem:
    name = str(item["loc"][0])
    where = f"events[{index}].{name}"
    if item["type"] == "extra_forbidden":
        close = nearest(name, INTERACTIONS.names())
        return Problem(where, "unknown column.", f"Did you mean '{close}'?" if close else "")
    if item["type"] == "timezone_aware":
        return Problem(where, "the timestamp has no time zone.", "Append 'Z' for UTC.")
    if item["type"] == "missing":
        return Problem(where, "missing.")
    if name == "country" and item["input"] is None:
        return Problem(where, "null.", f"Write '{UNKNOWN_COUNTRY}' for an unknown country.")
    return Problem(where, f"{item['msg']}, got {item['input']!r}.")


def _broken_rules(where: str, row: Mapping[str, Any], now: datetime) -> Iterator[Problem]:
    if not is_known_action(row["action"]):
        yield Problem(f"{where}.action", f"unknown action '{row['action']}'.", action_hint(row["action"]))
    if row["action"] in TITLE_ACTIONS and row["title_id"] is None:
        yield Problem(f"{where}.title_id", f"action '{row['action']}' needs a title.")
    for column in PAST["interactions"]:
        if row[column] > now:
            yield Problem(f"{where}.{column}", f"{row[column].isoformat()} is after the clock ({now.isoformat()}).")
    for column, (low, high) in RANGES.items():
        value = row.get(column)
        if value is not None and not low <= value <= high:
            yield Problem(f"{where}.{column}", f"{value} is outside {low:g} to {high:g}.")


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
