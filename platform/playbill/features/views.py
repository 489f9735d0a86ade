"""The views built from the event log: what each is computed from, in which version, and the encoding of one member.

Encoders are pure functions of an event log and a catalogue of titles. A build, an increment, a backfill and a push call
the same ones, so a served value can only differ from a trained one where the events they were given differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from playbill.errors import DataError, Problem, UnknownNameError
from playbill.features.axis import Span
from playbill.features.genres import LISTED, PLACES, member_genres
from playbill.features.members import (
    ACTIVITY_WINDOWS,
    COMPLETED,
    RATE_WINDOWS,
    WINDOWS,
    member_activity,
    member_session,
)
from playbill.features.titles import (
    ANTICIPATION_WINDOWS,
    ASKING,
    COUNTRY_WINDOWS,
    LEVELS,
    RECEPTION,
    country_popularity,
    enters,
    title_anticipation,
    title_country_popularity,
    title_popularity,
)
from playbill.schema import SESSION_PAUSE
from playbill.tables.frames import utc_literal


@dataclass(frozen=True, slots=True)
class EventView:
    """A view computed from the event log."""

    name: str
    """Also its folder NAME.parquet."""
    keys: tuple[str, ...]
    """Whose values it holds: columns of `interactions`."""
    encode: Callable[..., pl.DataFrame]
    """(events, titles, span) -> states sorted by keys and moment."""
    leaves: tuple[timedelta, ...]
    """Lengths of its windows: how long after it entered an event still changes a state."""
    parameters: Mapping[str, Any]
    """What decides the values besides the code."""
    actions: tuple[str, ...] | None = None
    """Events that count; None is all."""
    hourly: bool = False
    """Events enter at the end of their hour, not one microsecond after themselves."""
    title_columns: tuple[str, ...] = ()
    """What of titles decides values."""
    part_by: str = "member_id"
    """The key by which a log is split into parts that are computed alone."""
    revision: int = 1
    """Raised when the code computes something else than before."""
    log_columns: tuple[str, ...] = ()
    """Columns of the log that it reads beside those of every view."""

    @property
    def version(self) -> str:
        """Hash of what decides the values. Files of another version are built anew."""
        content = {"view": self.name, "keys": self.keys, "revision": self.revision, "parameters": self.parameters}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def counted(self) -> pl.Expr:
        """Return the test for events that count in this view."""
        test = pl.all_horizontal(pl.col(self.keys).is_not_null())
        return test if self.actions is None else test & pl.col("action").is_in(self.actions)

    def enters(self) -> pl.Expr:
        """Return the moment from which an event is in a state."""
        return enters(self.hourly)


def _lengths(windows: Mapping[str, Any]) -> dict[str, float]:
    return {name: window.length.total_seconds() for name, window in windows.items()}


_EVERY_WINDOW = tuple(WINDOWS.values())

EVENT_VIEWS: Mapping[str, EventView] = {
    view.name: view
    for view in (
        EventView(
            "member_activity",
            ("member_id",),
            member_activity,
            leaves=_EVERY_WINDOW,
            parameters={"windows": _lengths(ACTIVITY_WINDOWS | RATE_WINDOWS), "completed": COMPLETED},
            title_columns=("genres",),
        ),
        EventView(
            "member_genres",
            ("member_id",),
            member_genres,
            leaves=(),
            parameters={"places": PLACES, "listed": LISTED},
            actions=("play",),
            title_columns=("genres",),
        ),
        EventView(
            "member_session",
            ("member_id",),
            member_session,
            leaves=(),
            parameters={"idle_s": SESSION_PAUSE.total_seconds()},
            title_columns=("genres",),
        ),
        EventView(
            "title_popularity",
            ("title_id",),
            title_popularity,
            leaves=_EVERY_WINDOW,
            parameters={"windows": _lengths(ACTIVITY_WINDOWS), "completed": COMPLETED},
            actions=RECEPTION,
            hourly=True,
            part_by="title_id",
        ),
        EventView(
            "title_anticipation",
            ("title_id",),
            title_anticipation,
            leaves=tuple({window.length: None for window in ANTICIPATION_WINDOWS.values()}),
            parameters={"windows": _lengths(ANTICIPATION_WINDOWS), "actions": ASKING},
            actions=tuple(ASKING),
            hourly=True,
            part_by="title_id",
        ),
        EventView(
            "title_country_popularity",
            ("title_id", "country"),
            title_country_popularity,
            leaves=tuple(window.length for window in COUNTRY_WINDOWS.values()),
            parameters={"windows": _lengths(COUNTRY_WINDOWS)},
            actions=RECEPTION,
            hourly=True,
            part_by="country",
        ),
        EventView(
            "country_popularity",
            ("country",),
            country_popularity,
            leaves=tuple(window.length for window in COUNTRY_WINDOWS.values()),
            parameters={"windows": _lengths(COUNTRY_WINDOWS), "levels": LEVELS},
            actions=RECEPTION,
            hourly=True,
            part_by="country",
        ),
    )
}
"""View -> how it is built."""


MemberEncoder = Callable[..., pl.DataFrame]
"""(events, titles, span=EVER) -> the states of every member in the events, sorted by member and moment."""

MEMBER_VIEWS: Mapping[str, MemberEncoder] = {
    name: view.encode for name, view in EVENT_VIEWS.items() if view.keys == ("member_id",)
}
"""View -> its encoder."""

EVENT_COLUMNS = ("member_id", "event_at", "recorded_at", "action", "title_id", "country", "progress")
"""Columns of `interactions` that the encoders read."""


def encode_member(
    events: pl.DataFrame,
    titles: pl.DataFrame,
    at: datetime,
    views: Iterable[str] | None = None,
    encoders: Mapping[str, MemberEncoder] = MEMBER_VIEWS,
    keys: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, pl.DataFrame]:
    """Return the state of members that holds at a moment, strictly before it.

    Args:
        events: All events of the members up to `at`, as `Tables.member_events` gives them; later ones are ignored.
        titles: The catalogue.
        at: The moment, with a zone.
        views: Names of encoders (default: all).
        encoders: View -> its encoder: the shipped ones, or those of views of one's own too.
        keys: View -> its keys, of views of members on a canvas, say; the others are keyed by the member alone.

    Returns:
        View -> at most one row per member, or per key of it, as the view's file has it; none without events.

    Raises:
        UnknownNameError: There is no such view.
        DataError: `at` has no zone.
    """
    if at.tzinfo is None:
        raise DataError("features of a member", [Problem("at", f"{at.isoformat()} has no time zone.")])
    names = list(encoders if views is None else views)
    for name in names:
        if name not in encoders:
            raise UnknownNameError("member view", name, encoders)
    moment = at.astimezone(UTC)
    past = events.filter(pl.col("event_at") < utc_literal(moment))
    states = {name: encoders[name](past, titles, Span(until=moment)) for name in names}
    by = {name: (keys or {}).get(name, ("member_id",)) for name in states}
    return {name: rows.unique(by[name], keep="last", maintain_order=True) for name, rows in states.items()}
