"""Values of the member views `member_profile` and `member_activity`, as of each moment.

**Strictly before.** A member's features at an event hold neither that event nor any other at the same moment.
An as-of join takes values with time <= the event's, so the state after the events of a moment is stamped one
microsecond later, the resolution of all timestamps. A play at `e` thus counts in the window `[t - w, t)`.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from playbill.features.windows import CHANGED_AT, log_count, share, sweep

CREATED_AT = "created_timestamp"
"""When we came to know a value; of two values of one moment the later known one wins."""

RESOLUTION = timedelta(microseconds=1)

ACTIVITY_WINDOWS = {
    "plays_1d": timedelta(days=1),
    "plays_7d": timedelta(days=7),
    "plays_30d": timedelta(days=30),
}

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


def member_activity(interactions: pl.DataFrame, genres: pl.DataFrame) -> pl.DataFrame:
    """Return a member's state after each moment with events and after each event that leaves a window.

    Args:
        interactions: The event log: member_id, event_at, recorded_at, action, title_id.
        genres: title_id and genres (list of strings), one row per title.

    Returns:
        member_id, event_timestamp, created_timestamp, log(1 + plays) in 1, 7 and 30 days and in all, distinct
        genres played, thumbs_up_share of all thumbs (null without any), last_play_at.
    """
    state = sweep(
        _moments(interactions, genres),
        "member_id",
        totals=("plays", "thumbs_up", "thumbs_down", "new_genres"),
        windowed="plays",
        windows=ACTIVITY_WINDOWS,
        latest=("last_play_at", CREATED_AT),
    )
    return state.select(
        "member_id",
        CHANGED_AT,
        CREATED_AT,
        *(log_count(name).alias(f"log_{name}") for name in ACTIVITY_WINDOWS),
        log_count("plays").alias("log_plays_total"),
        pl.col("new_genres").cast(pl.Float32).alias("distinct_genres"),
        share("thumbs_up", "thumbs_down").alias("thumbs_up_share"),
        "last_play_at",
    )


def _moments(interactions: pl.DataFrame, genres: pl.DataFrame) -> pl.DataFrame:
    """Count what happened to each member at each moment."""
    action = pl.col("action")
    moments = interactions.group_by("member_id", "event_at").agg(
        (action == "play").sum().cast(pl.Int32).alias("plays"),
        (action == "thumbs_up").sum().cast(pl.Int32).alias("thumbs_up"),
        (action == "thumbs_down").sum().cast(pl.Int32).alias("thumbs_down"),
        pl.col("recorded_at").max().alias(CREATED_AT),
    )
    return (
        moments.join(_first_genres(interactions, genres), on=["member_id", "event_at"], how="left")
        .with_columns(
            pl.col("new_genres").fill_null(0),
            pl.when(pl.col("plays") > 0).then("event_at").alias("last_play_at"),
            (pl.col("event_at") + RESOLUTION).alias(CHANGED_AT),
        )
        .drop("event_at")
    )


def _first_genres(interactions: pl.DataFrame, genres: pl.DataFrame) -> pl.DataFrame:
    """Count the genres that a member plays for the first time, per moment."""
    return (
        interactions.lazy()
        .filter(pl.col("action") == "play")
        .select("member_id", "event_at", "title_id")
        .join(genres.lazy().select("title_id", "genres").explode("genres").drop_nulls(), on="title_id")
        .group_by("member_id", "genres")
        .agg(pl.col("event_at").min())
        .group_by("member_id", "event_at")
        .agg(pl.len().cast(pl.Int32).alias("new_genres"))
        .collect()
    )
