"""Values of the member views `member_profile` and `member_activity`, as of each moment.

**Strictly before.** A member's features at an event hold neither that event nor any other at the same moment.
An as-of join takes values with time <= the event's, so the state after the events of a moment is stamped one
microsecond later, the resolution of all timestamps. A play at `e` thus counts in the window `[t - w, t)`.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from playbill.clock import MICROSECOND
from playbill.features.axis import CHANGED_AT, EVER, Span
from playbill.features.windows import CREATED_AT, Window, log_count, ratio, share, sweep

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
    """Return a row per version of a member, valid from `valid_from`.

    A source's own scalar columns are kept, so a new `Field` in `feature_repo` is all it takes to use one.

    Args:
        members: The canonical `members` table, every version.
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

    Args:
        events: The event log: member_id, event_at, recorded_at, action, title_id and, if there is one, progress.
        titles: title_id and genres (list of strings), one row per title.
        span: Which states to return.

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

    A play is `measured` where its progress is known, and one of the `completions` where that is 0.9 or more.

    Args:
        columns: The log's columns; a log without `progress` measures nothing.
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
