"""Values of the title views `title_profile` and `title_popularity`, as of each moment.

Popularity is counted in closed hours: the plays of 10:00 to 11:00 become visible at 11:00 exactly, where they
are all strictly earlier. Idle hours have no row; the last one stands until a play leaves a window.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from playbill.features.members import CREATED_AT
from playbill.features.windows import CHANGED_AT, log_count, share, sweep

BUCKET = timedelta(hours=1)

POPULARITY_WINDOWS = {
    "plays_1d": timedelta(days=1),
    "plays_7d": timedelta(days=7),
    "plays_30d": timedelta(days=30),
    "plays_365d": timedelta(days=365),
}

_COUNTED = ("play", "thumbs_up", "thumbs_down")


def title_profile(titles: pl.DataFrame, availability: pl.DataFrame) -> pl.DataFrame:
    """Return a row per version of a title, valid from `valid_from`.

    Args:
        titles: The canonical `titles` table, every version.
        availability: The canonical `availability` table. The first `available_from` of any country is the
            title's launch.

    Returns:
        title_id, event_timestamp, created_timestamp, kind, original_language, maturity, release_year,
        runtime_min, genre_count, kids, launched_at.
    """
    launches = availability.group_by("title_id").agg(pl.col("available_from").min().alias("launched_at"))
    return (
        titles.join(launches, on="title_id", how="left")
        .select(
            "title_id",
            pl.col("valid_from").alias(CHANGED_AT),
            pl.col("recorded_at").alias(CREATED_AT),
            "kind",
            "original_language",
            "maturity",
            pl.col("release_date").dt.year().cast(pl.Float32).alias("release_year"),
            pl.col("runtime_min").cast(pl.Float32),
            pl.col("genres").list.len().cast(pl.Float32).alias("genre_count"),
            pl.col("kids").cast(pl.Float32),
            "launched_at",
        )
        .sort("title_id", CHANGED_AT)
    )


def title_popularity(interactions: pl.DataFrame) -> pl.DataFrame:
    """Return a title's popularity at the end of each hour in which it changes.

    Args:
        interactions: The event log: event_at, recorded_at, action, title_id.

    Returns:
        title_id, event_timestamp (a full hour), created_timestamp, log(1 + plays) in 1, 7, 30 and 365 days and
        in all, thumbs_up_share of all thumbs (null without any).
    """
    state = sweep(
        _buckets(interactions),
        "title_id",
        totals=("plays", "thumbs_up", "thumbs_down"),
        windowed="plays",
        windows=POPULARITY_WINDOWS,
        latest=(CREATED_AT,),
    )
    return state.select(
        "title_id",
        CHANGED_AT,
        CREATED_AT,
        *(log_count(name).alias(f"log_{name}") for name in POPULARITY_WINDOWS),
        log_count("plays").alias("log_plays_total"),
        share("thumbs_up", "thumbs_down").alias("thumbs_up_share"),
    )


def _buckets(interactions: pl.DataFrame) -> pl.DataFrame:
    action = pl.col("action")
    return (
        interactions.lazy()
        .filter(action.is_in(_COUNTED) & pl.col("title_id").is_not_null())
        .group_by("title_id", (pl.col("event_at").dt.truncate("1h") + BUCKET).alias(CHANGED_AT))
        .agg(
            (action == "play").sum().cast(pl.Int32).alias("plays"),
            (action == "thumbs_up").sum().cast(pl.Int32).alias("thumbs_up"),
            (action == "thumbs_down").sum().cast(pl.Int32).alias("thumbs_down"),
            pl.col("recorded_at").max().alias(CREATED_AT),
        )
        .collect()
    )
