"""The views that are built from the event log: what each is computed from, and in which version of its encoding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from playbill.clock import MICROSECOND
from playbill.features.axis import CHANGED_AT
from playbill.features.countries import COUNTRY_WINDOWS, LEVELS, country_popularity, title_country_popularity
from playbill.features.encoder import MEMBER_VIEWS
from playbill.features.genres import LISTED, PLACES
from playbill.features.members import ACTIVITY_WINDOWS, COMPLETED, RATE_WINDOWS, WINDOWS
from playbill.features.sessions import IDLE
from playbill.features.titles import (
    ANTICIPATION_WINDOWS,
    ASKING,
    BUCKET,
    RECEPTION,
    title_anticipation,
    title_popularity,
)


@dataclass(frozen=True, slots=True)
class EventView:
    """A view computed from the event log.

    Attributes:
        name: The view, and its folder VIEW.parquet.
        keys: Whose values it holds: columns of `interactions`.
        encode: (events, titles, span) -> states sorted by keys and moment.
        leaves: Lengths of its windows: how long after it entered an event still changes a state.
        actions: Events that count; None is all.
        hourly: Events enter at the end of their hour, not one microsecond after themselves.
        title_columns: What of titles decides values.
        part_by: The key by which a log is split into parts that are computed alone.
        parameters: What decides the values besides the code.
        revision: Raised when the code computes something else than before.
        log_columns: Columns of the log that it reads beside those of every view.
    """

    name: str
    keys: tuple[str, ...]
    encode: Callable[..., pl.DataFrame]
    leaves: tuple[timedelta, ...]
    parameters: Mapping[str, Any]
    actions: tuple[str, ...] | None = None
    hourly: bool = False
    title_columns: tuple[str, ...] = ()
    part_by: str = "member_id"
    revision: int = 1
    log_columns: tuple[str, ...] = ()

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
        at = pl.col("event_at")
        return (at.dt.truncate("1h") + BUCKET if self.hourly else at + MICROSECOND).alias(CHANGED_AT)


def _lengths(windows: Mapping[str, Any]) -> dict[str, float]:
    return {name: window.length.total_seconds() for name, window in windows.items()}


_EVERY_WINDOW = tuple(WINDOWS.values())

EVENT_VIEWS: Mapping[str, EventView] = {
    view.name: view
    for view in (
        EventView(
            "member_activity",
            ("member_id",),
            MEMBER_VIEWS["member_activity"],
            leaves=_EVERY_WINDOW,
            parameters={"windows": _lengths(ACTIVITY_WINDOWS | RATE_WINDOWS), "completed": COMPLETED},
            title_columns=("genres",),
        ),
        EventView(
            "member_genres",
            ("member_id",),
            MEMBER_VIEWS["member_genres"],
            leaves=(),
            parameters={"places": PLACES, "listed": LISTED},
            actions=("play",),
            title_columns=("genres",),
        ),
        EventView(
            "member_session",
            ("member_id",),
            MEMBER_VIEWS["member_session"],
            leaves=(),
            parameters={"idle_s": IDLE.total_seconds()},
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
