"""Values of the member view `member_session`: what a member has done since they sat down.

A session ends when nothing has happened for thirty minutes. Its state is a row per moment with events, and the view's
ttl is those thirty minutes, so that an ended session is null wherever it is read.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Ints64
from playbill.clock import MICROSECOND
from playbill.features.axis import CHANGED_AT, EVER, MOMENT, Axis, Keys, Span, axes, ticks
from playbill.features.members import genres_of, is_play
from playbill.features.windows import CREATED_AT, log_count

IDLE = timedelta(minutes=30)
"""Longest pause within a session, counted as an as-of join counts age: from one microsecond after an event."""

_IDLE_TICKS = IDLE // MICROSECOND
_READ = ("member_id", "event_at", "recorded_at", "action", "title_id")
_SCHEMA: dict[str, Any] = {
    "member_id": pl.String,
    CHANGED_AT: MOMENT,
    CREATED_AT: MOMENT,
    "log_events": pl.Float32,
    "log_plays": pl.Float32,
    "log_abandons": pl.Float32,
    "distinct_titles": pl.Float32,
    "distinct_genres": pl.Float32,
    "last_title_id": pl.String,
    "last_genre": pl.String,
    "last_action": pl.String,
    "started_at": MOMENT,
    "last_event_at": MOMENT,
}


def member_session(events: pl.DataFrame, titles: pl.DataFrame, span: Span = EVER) -> pl.DataFrame:
    """Return the state of a member's running session after each moment with events.

    Args:
        events: The event log: member_id, event_at, recorded_at, action, title_id.
        titles: title_id and genres (list of strings), one row per title.
        span: Which states to return.

    Returns:
        member_id, event_timestamp, created_timestamp, log(1 + events), log(1 + plays) and log(1 + abandons) of
        the session, distinct titles and genres in it (titles that were only shown do not count), last_title_id
        and last_genre (the title's first; null before the first title), last_action, started_at, last_event_at.
    """
    keys = Keys(events, ["member_id"])
    at = ticks(events.get_column("event_at"))
    parts = []
    for chosen, first in axes(keys.codes, at, _IDLE_TICKS + 2):
        axis = Axis(keys.codes[chosen] - first, at[chosen], _IDLE_TICKS + 2)
        parts.append(_states(axis, axis.rows(events.select(_READ)[chosen]), titles, span))
    if not parts:
        return pl.DataFrame(schema=_SCHEMA)
    first_genre = pl.col("genres").cast(pl.List(pl.String)).list.first().alias("last_genre")
    named = titles.select(pl.col("title_id").alias("last_title_id"), first_genre)
    rows = pl.concat(parts).join(named, on="last_title_id", how="left", maintain_order="left")
    return rows.select(pl.col(name).cast(kind) for name, kind in _SCHEMA.items())


class _Sessions:
    """Which session every event of an axis belongs to. n events, in the axis' order."""

    def __init__(self, axis: Axis) -> None:
        starts = np.r_[True, np.diff(axis.events) - 1 > _IDLE_TICKS]
        self.number = np.cumsum(starts) - 1
        self.first = np.flatnonzero(starts)[self.number]

    def so_far(self, counts: npt.NDArray[Any]) -> Ints64:
        """[n] Return the sum over the session up to and with each event."""
        sums = np.cumsum(counts, dtype=np.int64)
        before: Ints64 = (sums - counts)[self.first]
        return sums - before

    def latest(self, chosen: npt.NDArray[np.bool_]) -> Ints64:
        """[n] Return the index of the session's last chosen event so far, -1 before the first."""
        last = np.maximum.accumulate(np.where(chosen, np.arange(len(chosen)), -1))
        return np.where(last >= self.first, last, -1)

    def new(self, rows: Ints64, values: pl.Series) -> Ints64:
        """[n] Return how many values each event brings that its session did not have.

        Args:
            rows: [m] The event a value belongs to, ascending.
            values: [m] Strings.
        """
        names = values.unique()
        codes = values.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int64)
        fresh = pl.Series(self.number[rows] * max(1, len(names)) + codes).is_first_distinct().to_numpy()
        return np.bincount(rows[fresh], minlength=len(self.number))


def _states(axis: Axis, events: pl.DataFrame, titles: pl.DataFrame, span: Span) -> pl.DataFrame:
    sessions = _Sessions(axis)
    action = events.get_column("action")
    touched = ((action != "impression") & events.get_column("title_id").is_not_null()).to_numpy()
    last_title = sessions.latest(touched)
    seen = events.select("title_id").with_row_index("row").filter(pl.Series(touched))
    genres = seen.join(genres_of(titles), on="title_id", maintain_order="left_right")
    started = events.get_column("event_at").gather(sessions.first)
    states = {
        "log_events": sessions.so_far(np.ones(events.height, dtype=np.int64)),
        "log_plays": sessions.so_far(events.select(is_play()).to_series().to_numpy().astype(np.int64)),
        "log_abandons": sessions.so_far((action == "abandon").to_numpy().astype(np.int64)),
        "distinct_titles": sessions.so_far(sessions.new(_rows(seen), seen.get_column("title_id"))),
        "distinct_genres": sessions.so_far(sessions.new(_rows(genres), genres.get_column("genre"))),
    }
    created = _running_max(events.get_column("recorded_at"), sessions.number)
    counted = events.select(
        "member_id",
        (pl.col("event_at") + MICROSECOND).alias(CHANGED_AT),
        created.alias(CREATED_AT),
        *(pl.Series(name, values) for name, values in states.items()),
        events.get_column("title_id").gather(pl.Series(last_title).replace(-1, None)).alias("last_title_id"),
        pl.col("action").alias("last_action"),
        started.alias("started_at"),
        pl.col("event_at").alias("last_event_at"),
    )
    ends = np.r_[np.diff(axis.events) != 0, True]
    logs = [name for name in states if name.startswith("log_")]
    return counted.filter(pl.Series(ends) & span.expr()).with_columns(log_count(name) for name in logs)


def _rows(frame: pl.DataFrame) -> Ints64:
    return frame.get_column("row").to_numpy().astype(np.int64)


def _running_max(moments: pl.Series, sessions: Ints64) -> pl.Series:
    frame = pl.DataFrame({"at": moments, "session": sessions})
    return frame.select(pl.col("at").cum_max().over("session")).to_series()
