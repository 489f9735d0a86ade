"""Values of the views of titles, of titles by country and of countries, as of each moment.

Popularity and anticipation are counted in closed hours: the plays of 10:00 to 11:00 become visible at 11:00 exactly,
where they are all strictly earlier. Idle hours have no row; the last one stands until a play leaves a window.

A title's share and percentile within a country change with every play of any title there, far too often to be rows of
the title's. They are computed on demand from two things that are rows: the title's plays in the country, and what they
are measured against, the country's own plays and how many of its titles have how many.

Encoders take the event log (event_at, recorded_at, action, title_id, country and, if there is one, progress), titles
(not read; every view is called alike) and the span of states to return. States are stamped with full hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.clock import MICROSECOND
from playbill.features.axis import CHANGED_AT, CREATED_AT, EVER, Span, Window, log_count, ratio, share, sweep
from playbill.features.members import WINDOWS, is_play, outcomes

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

_THUMBS = ("thumbs_up", "thumbs_down")
_COUNTS = ("plays", "measured", "completions", *_THUMBS)


def title_profile(titles: pl.DataFrame, availability: pl.DataFrame) -> pl.DataFrame:
    """Return a row per version of a title, valid from `valid_from`, of the canonical tables in every version.

    Its launch is the first `available_from` of any country, its launch everywhere the first one for every country.

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

    Returns:
        title_id, event_timestamp, created_timestamp, log(1 + plays) in 1 hour to 365 days and in all, share of
        thumbs up of all thumbs and of completed plays (null without any).
    """
    completed = ratio("completions", "measured").alias("completion_rate")
    return _popularity(events, ["title_id"], _COUNTS, POPULARITY_WINDOWS, span, completed)


def _popularity(
    events: pl.DataFrame,
    key: Sequence[str],
    totals: Sequence[str],
    windows: Mapping[str, Window],
    span: Span,
    *rates: pl.Expr,
) -> pl.DataFrame:
    return _states(buckets(events, key), key, totals, windows, span).select(
        *key,
        CHANGED_AT,
        CREATED_AT,
        *(log_count(name).alias(f"log_{name}") for name in windows),
        log_count("plays").alias("log_plays_total"),
        share("thumbs_up", "thumbs_down").alias("thumbs_up_share"),
        *rates,
    )


def _states(
    counted: pl.DataFrame, key: Sequence[str], totals: Sequence[str], windows: Mapping[str, Window], span: Span
) -> pl.DataFrame:
    return sweep(counted, key, totals=totals, windows=windows, latest=(CREATED_AT,), span=span, grain=BUCKET)


def title_anticipation(events: pl.DataFrame, titles: pl.DataFrame | None = None, span: Span = EVER) -> pl.DataFrame:
    """Return how much a title is asked for at the end of each hour in which that changes, playable or not yet.

    Returns:
        title_id, event_timestamp, created_timestamp, log(1 + reminders) in 1 and 7 days, and log(1 + trailers seen),
        log(1 + details opened), log(1 + additions to lists) in 7 days; and of each in all.
    """
    counts = {count: (pl.col("action") == action).cast(pl.Int8) for action, count in ASKING.items()}
    counted = hourly(events, ["title_id"], tuple(ASKING), counts)
    state = _states(counted, ["title_id"], tuple(counts), ANTICIPATION_WINDOWS, span)
    return state.select(
        "title_id",
        CHANGED_AT,
        CREATED_AT,
        *(log_count(name).alias(f"log_{name}") for name in ANTICIPATION_WINDOWS),
        *(log_count(name).alias(f"log_{name}_total") for name in counts),
    )


def buckets(events: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Count how every key was received in every hour that it was: `key`, the end of the hour, and `_COUNTS`."""
    rated = {expr.meta.output_name(): expr for expr in outcomes(events.columns)}
    known = {"plays": is_play().cast(pl.Int8), **rated}
    return hourly(events, key, RECEPTION, {name: known[name] for name in _COUNTS})


def enters(hourly: bool) -> pl.Expr:
    """Return when an event is first in a state: at the end of its hour, or one microsecond after itself."""
    at = pl.col("event_at")
    return (at.dt.truncate("1h") + BUCKET if hourly else at + MICROSECOND).alias(CHANGED_AT)


def hourly(
    events: pl.DataFrame, key: Sequence[str], actions: Sequence[str], counts: Mapping[str, pl.Expr]
) -> pl.DataFrame:
    """Sum what some actions add to `counts` (column -> an integer of one event) for every key and hour.

    Returns:
        `key`, event_timestamp (the end of the hour), the counts, created_timestamp.
    """
    return (
        events.lazy()
        .filter(pl.col("action").is_in(actions) & pl.all_horizontal(pl.col(key).is_not_null()))
        .select(
            *key,
            enters(hourly=True),
            pl.col("recorded_at").alias(CREATED_AT),
            *(count.alias(name) for name, count in counts.items()),
        )
        .group_by(*key, CHANGED_AT)
        .agg(*(pl.col(name).cast(pl.Int32).sum() for name in counts), pl.col(CREATED_AT).max())
        .collect()
    )


COUNTRY_WINDOWS = {f"plays_{name}": Window("plays", WINDOWS[name]) for name in ("1d", "7d", "30d", "365d")}
"""No hour: of one title in one country it is 0 or 1."""

LEVELS = tuple(sorted({2**power for power in range(13)} | {3 * 2**power for power in range(11)}))
"""Plays in 30 days at which a title enters the next level: 1, 2, 3, 4, 6, 8, 12 and so on to 4,096."""

_MONTH = {"plays_30d": COUNTRY_WINDOWS["plays_30d"]}


def title_country_popularity(
    events: pl.DataFrame, titles: pl.DataFrame | None = None, span: Span = EVER
) -> pl.DataFrame:
    """Return a title's popularity in a country at the end of each hour in which it changes.

    Returns:
        title_id, country, event_timestamp, created_timestamp, log(1 + plays) in 1, 7, 30 and 365 days and in all,
        share of thumbs up of all thumbs (null without any).
    """
    return _popularity(events, ["title_id", "country"], ("plays", *_THUMBS), COUNTRY_WINDOWS, span)


def title_country_profile(availability: pl.DataFrame) -> pl.DataFrame:
    """Return when a title was first to be seen in a country, from each moment at which that became known.

    Spans for every country are left out: they are a title's `launched_everywhere_at`, once, and no row per country.

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

    Returns:
        country, event_timestamp, created_timestamp, log(1 + plays) in 1, 7, 30 and 365 days and in all, titles_30d
        (titles with a play in 30 days), and levels_30d: for each of `LEVELS`, the share of those titles that have
        fewer plays, 0 where there are none.
    """
    counted = buckets(events, ["title_id", "country"])
    state = _states(counted, ["country"], ("plays",), COUNTRY_WINDOWS, Span(None, span.until))
    rows = state.with_columns(_titles_by_level(counted, state, span)).filter(span.expr())
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
