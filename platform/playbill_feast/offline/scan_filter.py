"""Which rows of a source are read: by time, by key, and by when they came to be known.

Feature rows are bitemporal. `event_timestamp` says when a value began to hold, `created_timestamp` when we came to
know it, and a correction is a new row with the same event time and a later created time. So the past can be read as
it is known now, or, `with as_known_on(moment):`, as it was known then (requested in feast-dev/feast#2980).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from playbill_feast.errors import StoreConfigError
from playbill_feast.frames import in_utc, utc_literal


@dataclass(frozen=True, slots=True)
class ScanFilter:
    """Which rows of a source are read; `keys`, column -> values to read, filter databases, not files."""

    at: str  # The source's time column, under its own name
    since: datetime | None = None  # Earliest event time, included; rows before it never come back
    until: datetime | None = None  # Latest event time, included; rows after it never come back
    keys: Mapping[str, Sequence[Any]] = field(default_factory=dict)


_KNOWN_ON: ContextVar[datetime | None] = ContextVar("known_on", default=None)


@contextmanager
def as_known_on(moment: datetime | None) -> Iterator[None]:
    """Read features as they were known at `moment`, in this thread or task.

    Retrievals and pulls that are begun inside see only values created at or before it. A source without a
    created column is taken to have known every value from its event time on. None changes nothing.

    Raises:
        StoreConfigError: The moment has no time zone.
    """
    if moment is not None and moment.tzinfo is None:
        raise StoreConfigError(f"as_known_on needs a moment with a time zone, got {moment.isoformat()}")
    token = _KNOWN_ON.set(moment.astimezone(UTC) if moment is not None else _KNOWN_ON.get())
    try:
        yield
    finally:
        _KNOWN_ON.reset(token)


def known_on(config: Any) -> datetime | None:
    """Return the moment that reads are held to: of the innermost `as_known_on`, else of the store's configuration."""
    moment = _KNOWN_ON.get()
    if moment is None:
        moment = getattr(config.offline_store, "as_known_on", None)
    return moment.astimezone(UTC) if moment is not None else None


def as_known(frame: pl.LazyFrame, at: str, created: str | None, moment: datetime | None) -> pl.LazyFrame:
    """Leave out rows created after a moment (None: nothing is left out), or without a created time.

    Where there is no created column, the event time `at` stands in.
    """
    counts = known_by(frame.collect_schema(), at, created, moment)
    return frame if counts is None else frame.filter(counts)


def known_by(schema: pl.Schema, at: str, created: str | None, moment: datetime | None) -> pl.Expr | None:
    """Return the condition that `as_known` filters by; None where there is nothing to leave out."""
    column = created or at
    if moment is None or column not in schema:
        return None
    return in_utc(column, schema[column]) <= utc_literal(moment)
