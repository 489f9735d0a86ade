"""Values of the views by country: `title_country_popularity`, `title_country_profile` and `country_popularity`.

Closed hours, as for titles. A title's share and percentile within a country change with every play of any title there,
far too often to be rows of the title's. They are computed on demand from two things that are rows: the title's plays
in the country, and what they are measured against, the country's own plays and how many of its titles have how many.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.features.axis import CHANGED_AT, EVER, Span
from playbill.features.members import WINDOWS
from playbill.features.titles import BUCKET, EVERYWHERE, buckets
from playbill.features.windows import CREATED_AT, Window, log_count, share, sweep

COUNTRY_WINDOWS = {f"plays_{name}": Window("plays", WINDOWS[name]) for name in ("1d", "7d", "30d", "365d")}
"""No hour: of one title in one country it is 0 or 1."""

LEVELS = tuple(sorted({2**power for power in range(13)} | {3 * 2**power for power in range(11)}))
"""Plays in 30 days at which a title enters the next level: 1, 2, 3, 4, 6, 8, 12 and so on to 4,096."""

_MONTH = {"plays_30d": COUNTRY_WINDOWS["plays_30d"]}


def title_country_popularity(
    events: pl.DataFrame, titles: pl.DataFrame | None = None, span: Span = EVER
) -> pl.DataFrame:
    """Return a title's popularity in a country at the end of each hour in which it changes.

    Args:
        events: The event log: event_at, recorded_at, action, title_id, country.
        titles: Not read; every view is called alike.
        span: Which states to return.

    Returns:
        title_id, country, event_timestamp (a full hour), created_timestamp, log(1 + plays) in 1, 7, 30 and 365
        days and in all, share of thumbs up of all thumbs (null without any).
    """
    key = ["title_id", "country"]
    state = sweep(
        buckets(events, key),
        key,
        totals=("plays", "thumbs_up", "thumbs_down"),
        windows=COUNTRY_WINDOWS,
        latest=(CREATED_AT,),
        span=span,
        grain=BUCKET,
    )
    return state.select(
        *key,
        CHANGED_AT,
        CREATED_AT,
        *(log_count(name).alias(f"log_{name}") for name in COUNTRY_WINDOWS),
        log_count("plays").alias("log_plays_total"),
        share("thumbs_up", "thumbs_down").alias("thumbs_up_share"),
    )


def title_country_profile(availability: pl.DataFrame) -> pl.DataFrame:
    """Return when a title was first to be seen in a country, from each moment at which that became known.

    Spans for every country are left out: they are `launched_everywhere_at` of the title, once, and not a row for every
    title and country there is.

    Args:
        availability: The canonical `availability` table.

    Returns:
        title_id, country, event_timestamp, created_timestamp, launched_at.
    """
    return (
        availability.filter(pl.col("country") != EVERYWHERE)
        .group_by("title_id", "country", "recorded_at")
        .agg(pl.col("available_from").min())
        .sort("title_id", "country", "recorded_at")
        .select(
            "title_id",
            "country",
            pl.col("recorded_at").alias(CHANGED_AT),
            pl.col("recorded_at").alias(CREATED_AT),
            pl.col("available_from").cum_min().over("title_id", "country").alias("launched_at"),
        )
    )


def country_popularity(events: pl.DataFrame, titles: pl.DataFrame | None = None, span: Span = EVER) -> pl.DataFrame:
    """Return what a title's popularity is measured against in a country, at the end of each hour with a change.

    Args:
        events: The event log: event_at, recorded_at, action, title_id, country.
        titles: Not read; every view is called alike.
        span: Which states to return.

    Returns:
        country, event_timestamp (a full hour), created_timestamp, log(1 + plays) in 1, 7, 30 and 365 days and in
        all, titles_30d (titles with a play in 30 days), and levels_30d: for each of `LEVELS`, the share of those
        titles that have fewer plays, 0 where there are none.
    """
    counted = buckets(events, ["title_id", "country"])
    state = sweep(
        counted,
        ["country"],
        totals=("plays",),
        windows=COUNTRY_WINDOWS,
        latest=(CREATED_AT,),
        span=Span(None, span.until),
        grain=BUCKET,
    )
    titles_by_level = _titles_by_level(counted, state, span)
    rows = state.with_columns(titles_by_level).filter(span.expr())
    return rows.select(
        "country",
        CHANGED_AT,
        CREATED_AT,
        *(log_count(name).alias(f"log_country_{name}") for name in COUNTRY_WINDOWS),
        log_count("plays").alias("log_country_plays_total"),
        "titles_30d",
        "levels_30d",
    )


def _titles_by_level(counted: pl.DataFrame, state: pl.DataFrame, span: Span) -> list[pl.Series]:
    """Return, for every state of a country, how many titles have plays and the share of them below each level."""
    key = ["title_id", "country"]
    titles = sweep(counted, key, totals=(), windows=_MONTH, span=Span(None, span.until), grain=BUCKET)
    level = pl.Series("level", np.searchsorted(LEVELS, titles.get_column("plays_30d").to_numpy(), side="right"))
    moved = (
        titles.select(*key, CHANGED_AT, level)
        .with_columns(pl.col("level").shift(1, fill_value=0).over(key).alias("before"))
        .filter(pl.col("level") != pl.col("before"))
        .join(state.select("country", CHANGED_AT).with_row_index("row"), on=["country", CHANGED_AT])
    )
    changes = np.zeros((state.height, len(LEVELS) + 1), dtype=np.int32)
    rows = moved.get_column("row").to_numpy()
    np.add.at(changes, (rows, moved.get_column("level").to_numpy()), 1)
    np.add.at(changes, (rows, moved.get_column("before").to_numpy()), -1)
    return _below(_sums_by_country(changes[:, 1:], state.get_column("country")))


def _sums_by_country(changes: npt.NDArray[np.int32], country: pl.Series) -> npt.NDArray[np.int64]:
    sums: npt.NDArray[np.int64] = np.cumsum(changes, axis=0, dtype=np.int64)
    starts = np.flatnonzero((country != country.shift(1)).fill_null(True).to_numpy())
    earlier = np.vstack([np.zeros((1, sums.shape[1]), dtype=np.int64), sums])[starts]
    before: npt.NDArray[np.int64] = np.repeat(earlier, np.diff([*starts, len(sums)]), axis=0)
    return sums - before


def _below(titles: npt.NDArray[np.int64]) -> list[pl.Series]:
    """Return titles_30d and levels_30d of [rows, levels] numbers of titles."""
    every = titles.sum(axis=1, keepdims=True)
    fewer = np.cumsum(titles, axis=1) - titles
    shares = np.divide(fewer, every, out=np.zeros(titles.shape), where=every > 0).astype(np.float32)
    levels = pl.Series("levels_30d", shares, dtype=pl.Array(pl.Float32, len(LEVELS))).cast(pl.List(pl.Float32))
    return [pl.Series("titles_30d", every[:, 0].astype(np.float32)), levels]
