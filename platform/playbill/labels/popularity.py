"""How popular a title was just before an event, among the titles that had launched.

Axis letters: T titles, D days, n events.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from playbill.labels.blocks import Block, Bool, Float, Int

DAY_US = 86_400_000_000


def daily_plays(interactions: pl.DataFrame | pl.LazyFrame, known: pl.Expr) -> pl.DataFrame:
    """Return the plays of all members by title and the UTC day on which they were known: title_id, day, plays.

    Args:
        interactions: Rows of the log; without `recorded_at` a play is known when it happens.
        known: Which rows exist.
    """
    rows = interactions.lazy()
    since = pl.col("event_at")
    if "recorded_at" in rows.collect_schema().names():
        since = pl.max_horizontal("event_at", pl.col("recorded_at").cast(pl.Datetime("us", "UTC")))
    plays = rows.filter(known & (pl.col("action") == "play") & pl.col("title_id").is_not_null())
    day = (since.dt.epoch("us") // DAY_US).alias("day")
    return plays.group_by(pl.col("title_id").cast(pl.String), day).agg(pl.len().alias("plays")).sort("day").collect()


def percentiles(block: Block, asked: Bool, plays: pl.DataFrame, availability: pl.DataFrame) -> pl.Series:
    """Return [n] the popularity percentile of each event's title at the start of the event's UTC day.

    It is the share, in percent, of the titles launched anywhere before that day that had fewer plays by then, counting
    ties by half; the same measure as the candidate rule `popularity_percentile`. Null for titles that had not launched.

    Args:
        block: The events.
        asked: [n] those whose value is needed; others are null.
        plays: Of `daily_plays`.
        availability: The canonical table.
    """
    launches = availability.group_by("title_id").agg(pl.col("available_from").min().dt.epoch("us")).sort("title_id")
    number = {title: row for row, title in enumerate(launches["title_id"])}
    own = block.frame["title_id"].cast(pl.String).replace_strict(number, default=None, return_dtype=pl.Int64)
    day = block.frame["event_at"].dt.epoch("us").to_numpy().astype(np.int64) // DAY_US
    title = own.fill_null(-1).to_numpy()
    values = np.full(len(block), np.nan)
    rows = np.flatnonzero(asked & (title >= 0))
    rows = rows[np.argsort(day[rows], kind="stable")]
    days, starts = np.unique(day[rows], return_index=True)
    launched = launches["available_from"].to_numpy().astype(np.int64)
    found = _by_day(plays, number, launched, days)
    for part, table in zip(np.split(rows, starts[1:]) if len(rows) else (), found, strict=True):
        values[part] = table[title[part]]
    return pl.Series(values).fill_nan(None)


def _by_day(plays: pl.DataFrame, number: dict[str, int], launched: Int, days: Int) -> Iterator[Float]:
    """Yield [T] percentiles at the start of each of D days, rising; NaN for titles that had not launched."""
    known = plays.filter(pl.col("title_id").is_in(list(number)))
    title = known["title_id"].replace_strict(number, return_dtype=pl.Int64).to_numpy()
    played, on = known["plays"].to_numpy().astype(np.int64), known["day"].to_numpy()
    counts, done = np.zeros(len(launched), np.int64), 0
    for day, until in zip(days.tolist(), np.searchsorted(on, days).tolist(), strict=True):
        np.add.at(counts, title[done:until], played[done:until])
        done = until
        yield _percentile(counts, launched < day * DAY_US)


def _percentile(counts: Int, among: Bool) -> Float:
    found = np.full(len(counts), np.nan)
    own = counts[among]
    ordered = np.sort(own)
    below, upto = (np.searchsorted(ordered, own, side=side) for side in ("left", "right"))
    found[among] = 100.0 * (below + upto) / (2.0 * max(own.size, 1))
    return found
