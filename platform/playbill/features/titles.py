"""Values of the title views `title_profile`, `title_popularity` and `title_anticipation`, as of each moment.

Popularity and anticipation are counted in closed hours: the plays of 10:00 to 11:00 become visible at 11:00 exactly,
where they are all strictly earlier. Idle hours have no row; the last one stands until a play leaves a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import polars as pl

from playbill.features.axis import CHANGED_AT, EVER, Span
from playbill.features.members import WINDOWS, is_play, outcomes
from playbill.features.windows import CREATED_AT, Window, log_count, ratio, share, sweep

BUCKET = timedelta(hours=1)

POPULARITY_WINDOWS = {f"plays_{name}": Window("plays", length) for name, length in WINDOWS.items()}

RECEPTION = ("play", "thumbs_up", "thumbs_down")
"""Actions that count in a title's popularity."""

ASKING = {"remind_me": "reminders", "trailer_view": "trailers", "details_view": "details", "my_list_add": "list_adds"}
"""Actions that count in how much a title is asked for -> what their columns are called."""

ANTICIPATION_WINDOWS = {
    f"{count}_{name}": Window(count, WINDOWS[name])
    for count in ASKING.values()
    for name in (("1d", "7d") if count == "reminders" else ("7d",))
}

EVERYWHERE = "*"
"""The country of a span that holds in every country."""

_COUNTS = ("plays", "measured", "completions", "thumbs_up", "thumbs_down")


def title_profile(titles: pl.DataFrame, availability: pl.DataFrame) -> pl.DataFrame:
    """Return a row per version of a title, valid from `valid_from`.

    Args:
        titles: The canonical `titles` table, every version.
        availability: The canonical `availability` table. The first `available_from` of any country is the
            title's launch, the first one for every country its launch everywhere.

    Returns:
        title_id, event_timestamp, created_timestamp, kind, original_language, maturity, release_year,
        runtime_min, genre_count, kids, launched_at, launched_everywhere_at.
    """
    begins = pl.col("available_from")
    launches = availability.group_by("title_id").agg(
        begins.min().alias("launched_at"),
        begins.filter(pl.col("country") == EVERYWHERE).min().alias("launched_everywhere_at"),
    )
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
            "launched_everywhere_at",
        )
        .sort("title_id", CHANGED_AT)
    )


def title_popularity(events: pl.DataFrame, titles: pl.DataFrame | None = None, span: Span = EVER) -> pl.DataFrame:
    """Return a title's popularity at the end of each hour in which it changes.

    Args:
        events: The event log: event_at, recorded_at, action, title_id and, if there is one, progress.
        titles: Not read; every view is called alike.
        span: Which states to return.

    Returns:
        title_id, event_timestamp (a full hour), created_timestamp, log(1 + plays) in 1 hour to 365 days and in
        all, share of thumbs up of all thumbs and of completed plays (null without any).
    """
    state = sweep(
        buckets(events, ["title_id"]),
        ["title_id"],
        totals=_COUNTS,
        windows=POPULARITY_WINDOWS,
        latest=(CREATED_AT,),
        span=span,
        grain=BUCKET,
    )
    return state.select(
        "title_id",
        CHANGED_AT,
        CREATED_AT,
        *(log_count(name).alias(f"log_{name}") for name in POPULARITY_WINDOWS),
        log_count("plays").alias("log_plays_total"),
        share("thumbs_up", "thumbs_down").alias("thumbs_up_share"),
        ratio("completions", "measured").alias("completion_rate"),
    )


def title_anticipation(events: pl.DataFrame, titles: pl.DataFrame | None = None, span: Span = EVER) -> pl.DataFrame:
    """Return how much a title is asked for at the end of each hour in which that changes, playable or not yet.

    Returns:
        title_id, event_timestamp (a full hour), created_timestamp, log(1 + reminders) in 1 and 7 days, and
        log(1 + trailers seen), log(1 + details opened), log(1 + additions to lists) in 7 days; and of each in all.
    """
    counts = {count: (pl.col("action") == action).cast(pl.Int8) for action, count in ASKING.items()}
    state = sweep(
        hourly(events, ["title_id"], tuple(ASKING), counts),
        ["title_id"],
        totals=tuple(counts),
        windows=ANTICIPATION_WINDOWS,
        latest=(CREATED_AT,),
        span=span,
        grain=BUCKET,
    )
    return state.select(
        "title_id",
        CHANGED_AT,
        CREATED_AT,
        *(log_count(name).alias(f"log_{name}") for name in ANTICIPATION_WINDOWS),
        *(log_count(name).alias(f"log_{name}_total") for name in counts),
    )


def buckets(events: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Count how every key was received in every hour that it was.

    Returns:
        `key`, event_timestamp (the end of the hour), plays, measured, completions, thumbs_up, thumbs_down,
        created_timestamp.
    """
    rated = {expr.meta.output_name(): expr for expr in outcomes(events.columns)}
    known = {"plays": is_play().cast(pl.Int8), **rated}
    return hourly(events, key, RECEPTION, {name: known[name] for name in _COUNTS})


def hourly(
    events: pl.DataFrame, key: Sequence[str], actions: Sequence[str], counts: Mapping[str, pl.Expr]
) -> pl.DataFrame:
    """Sum what happened to every key in every hour that something did.

    Args:
        events: The event log.
        key: Columns that say what is counted.
        actions: Events that are read.
        counts: Column -> what one event adds to it, an integer.

    Returns:
        `key`, event_timestamp (the end of the hour), the counts, created_timestamp.
    """
    return (
        events.lazy()
        .filter(pl.col("action").is_in(actions) & pl.all_horizontal(pl.col(key).is_not_null()))
        .select(
            *key,
            (pl.col("event_at").dt.truncate("1h") + BUCKET).alias(CHANGED_AT),
            pl.col("recorded_at").alias(CREATED_AT),
            *(count.alias(name) for name, count in counts.items()),
        )
        .group_by(*key, CHANGED_AT)
        .agg(*(pl.col(name).cast(pl.Int32).sum() for name in counts), pl.col(CREATED_AT).max())
        .collect()
    )
