"""Values of the views `member_profile`, `member_activity` and `member_session`, as of each moment.

**Strictly before.** A member's features at an event hold neither that event nor any other at the same moment.
An as-of join takes values with time <= the event's, so the state after the events of a moment is stamped one
microsecond later, the resolution of all timestamps. A play at `e` thus counts in the window `[t - w, t)`.

A session ends when nothing has happened for thirty minutes. Its state is a row per moment with events, and the view's
ttl is those thirty minutes, so that an ended session is null wherever it is read.

Encoders take the event log (member_id, event_at, recorded_at, action, title_id and, if there is one, progress), titles
(title_id and genres, one row per title) and the span of states to return.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Ints64
from playbill.clock import MICROSECOND
from playbill.features.axis import (
    CHANGED_AT,
    CREATED_AT,
    EVER,
    MOMENT,
    Axis,
    Keys,
    Span,
    Window,
    axes,
    log_count,
    ratio,
    share,
    sweep,
    ticks,
)
from playbill.schema import SESSION_PAUSE

WINDOWS = {
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "365d": timedelta(days=365),
}

RECENT = "30d"
"""The window of rates that follow a member's change of mind."""

COMPLETED = 0.9
"""A play that reached this share of its title is completed."""

ACTIVITY_WINDOWS = {f"plays_{name}": Window("plays", length) for name, length in WINDOWS.items()}

_OUTCOMES = ("measured", "completions", "abandons", "thumbs_up", "thumbs_down")

RATE_WINDOWS = {f"{count}_{RECENT}": Window(count, WINDOWS[RECENT]) for count in _OUTCOMES}

PROFILE_COLUMNS: dict[str, pl.DataType] = {
    "age": pl.Float32(),
    "gender": pl.String(),
    "occupation": pl.String(),
}
"""Profile columns that many sources have and `feature_repo` declares; null where a source lacks them."""

_SCALAR = (pl.String, pl.Boolean, pl.Datetime, pl.Date)


def member_profile(members: pl.DataFrame) -> pl.DataFrame:
    """Return a row per version of a member, valid from `valid_from`, of all versions of the canonical `members`.

    A source's own scalar columns are kept, so a new `Field` in `feature_repo` is all it takes to use one.
    """
    absent = [
        pl.lit(None, dtype=kind).alias(name) for name, kind in PROFILE_COLUMNS.items() if name not in members.columns
    ]
    scalar = [name for name, kind in members.schema.items() if isinstance(kind, _SCALAR) or kind.is_numeric()]
    casts = [pl.col(name).cast(kind, strict=False) for name, kind in PROFILE_COLUMNS.items() if name in members.columns]
    return (
        members.select(scalar)
        .with_columns(*casts, *absent, pl.col("kids_profile").cast(pl.Float32))
        .rename({"valid_from": CHANGED_AT, "recorded_at": CREATED_AT})
        .sort("member_id", CHANGED_AT)
    )


def member_activity(events: pl.DataFrame, titles: pl.DataFrame, span: Span = EVER) -> pl.DataFrame:
    """Return a member's state after each moment with events and after each event that leaves a window.

    Returns:
        member_id, event_timestamp, created_timestamp, log(1 + plays) in 1 hour to 365 days and in all, distinct
        genres played, shares of thumbs, completed plays and abandons (in all and in 30 days, null where nothing
        is known), last_play_at, last_event_at.
    """
    counted = events.select(
        "member_id",
        (pl.col("event_at") + MICROSECOND).alias(CHANGED_AT),
        pl.col("recorded_at").alias(CREATED_AT),
        pl.col("event_at").alias("last_event_at"),
        pl.when(is_play()).then("event_at").alias("last_play_at"),
        is_play().cast(pl.Int8).alias("plays"),
        *outcomes(events.columns),
    ).with_columns(first_plays_of_genres(events, titles))
    state = sweep(
        counted,
        ["member_id"],
        totals=("plays", "new_genres", *_OUTCOMES),
        windows=ACTIVITY_WINDOWS | RATE_WINDOWS,
        latest=("last_play_at", "last_event_at", CREATED_AT),
        span=span,
    )
    return state.select(
        "member_id",
        CHANGED_AT,
        CREATED_AT,
        *(log_count(name).alias(f"log_{name}") for name in ACTIVITY_WINDOWS),
        log_count("plays").alias("log_plays_total"),
        pl.col("new_genres").cast(pl.Float32).alias("distinct_genres"),
        *_rates(),
        *(rate.name.suffix(f"_{RECENT}") for rate in _rates(f"_{RECENT}")),
        "last_play_at",
        "last_event_at",
    )


def is_play() -> pl.Expr:
    """Return whether an event is a play."""
    return pl.col("action") == "play"


def outcomes(columns: list[str]) -> list[pl.Expr]:
    """Return what an event says about how a title was received, each as 0 or 1.

    A play is `measured` where its progress is known (a log may lack it), and of the `completions` where it is >= 0.9.
    """
    action = pl.col("action")
    progress = pl.col("progress") if "progress" in columns else pl.lit(None, dtype=pl.Float32)
    known = {
        "measured": is_play() & progress.is_not_null(),
        "completions": is_play() & (progress >= COMPLETED).fill_null(False),
        "abandons": action == "abandon",
        "thumbs_up": action == "thumbs_up",
        "thumbs_down": action == "thumbs_down",
    }
    return [test.cast(pl.Int8).alias(name) for name, test in known.items()]


def _rates(suffix: str = "") -> list[pl.Expr]:
    return [
        share(f"thumbs_up{suffix}", f"thumbs_down{suffix}").alias("thumbs_up_share"),
        ratio(f"completions{suffix}", f"measured{suffix}").alias("completion_rate"),
        share(f"abandons{suffix}", f"completions{suffix}").alias("abandon_share"),
    ]


def first_plays_of_genres(events: pl.DataFrame, titles: pl.DataFrame) -> pl.Series:
    """Return, for every event, how many genres the member plays for the first time with it."""
    first = (
        events.lazy()
        .with_row_index("row")
        .filter(is_play())
        .select("row", "member_id", "event_at", "title_id")
        .join(genres_of(titles).lazy(), on="title_id")
        .sort("event_at", "row")
        .unique(["member_id", "genre"], keep="first")
        .select("row")
        .collect()
        .to_series()
    )
    return pl.Series("new_genres", np.bincount(first.to_numpy(), minlength=events.height).astype(np.int32))


def genres_of(titles: pl.DataFrame) -> pl.DataFrame:
    """Return title_id and genre, a row per genre of a title."""
    listed = titles.select("title_id", pl.col("genres").cast(pl.List(pl.String)).alias("genre"))
    return listed.explode("genre").drop_nulls().unique(maintain_order=True)


_IDLE_TICKS = SESSION_PAUSE // MICROSECOND
_READ = ("member_id", "event_at", "recorded_at", "action", "title_id")
_SESSION_SCHEMA: dict[str, Any] = {
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
        parts.append(_session_states(axis, axis.rows(events.select(_READ)[chosen]), titles, span))
    if not parts:
        return pl.DataFrame(schema=_SESSION_SCHEMA)
    first_genre = pl.col("genres").cast(pl.List(pl.String)).list.first().alias("last_genre")
    named = titles.select(pl.col("title_id").alias("last_title_id"), first_genre)
    rows = pl.concat(parts).join(named, on="last_title_id", how="left", maintain_order="left")
    return rows.select(pl.col(name).cast(kind) for name, kind in _SESSION_SCHEMA.items())


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
        """[n] Return how many values, of events `rows` [m], each event brings that its session did not have."""
        names = values.unique()
        codes = values.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int64)
        fresh = pl.Series(self.number[rows] * max(1, len(names)) + codes).is_first_distinct().to_numpy()
        return np.bincount(rows[fresh], minlength=len(self.number))


def _session_states(axis: Axis, events: pl.DataFrame, titles: pl.DataFrame, span: Span) -> pl.DataFrame:
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
        "distinct_titles": sessions.so_far(sessions.new(_row_numbers(seen), seen.get_column("title_id"))),
        "distinct_genres": sessions.so_far(sessions.new(_row_numbers(genres), genres.get_column("genre"))),
    }
    counted = events.select(
        "member_id",
        (pl.col("event_at") + MICROSECOND).alias(CHANGED_AT),
        _running_max(events.get_column("recorded_at"), sessions.number).alias(CREATED_AT),
        *(pl.Series(name, values) for name, values in states.items()),
        events.get_column("title_id").gather(pl.Series(last_title).replace(-1, None)).alias("last_title_id"),
        pl.col("action").alias("last_action"),
        started.alias("started_at"),
        pl.col("event_at").alias("last_event_at"),
    )
    ends = np.r_[np.diff(axis.events) != 0, True]
    logs = [name for name in states if name.startswith("log_")]
    return counted.filter(pl.Series(ends) & span.expr()).with_columns(log_count(name) for name in logs)


def _row_numbers(frame: pl.DataFrame) -> Ints64:
    return frame.get_column("row").to_numpy().astype(np.int64)


def _running_max(moments: pl.Series, sessions: Ints64) -> pl.Series:
    frame = pl.DataFrame({"at": moments, "session": sessions})
    return frame.select(pl.col("at").cum_max().over("session")).to_series()
