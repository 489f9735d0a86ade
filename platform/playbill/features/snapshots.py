"""Title features as dense arrays: every title at every moment asked for. Imports no Feast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl

from playbill.errors import DataError, Problem
from playbill.features.reports import FeatureColumn, TitleSnapshots
from playbill.features.values import REQUEST_AT, shaped
from playbill_feast.asof_join import ViewValues, as_of_join, latest_values
from playbill_feast.frames import EVENT_AT, in_utc

ROWS_PER_CALL = 1_000_000
_TITLE, _SEEN_FROM = "__title", "__seen_from"

Derive = Callable[[pl.DataFrame], pl.DataFrame]
"""Appends the columns of on-demand views to full-named columns of the views they read."""


def dense_snapshots(
    columns: Sequence[FeatureColumn],
    views: Iterable[ViewValues],
    derive: Derive,
    moments: Sequence[datetime],
    title_ids: Sequence[str],
) -> TitleSnapshots:
    """Return title columns at each moment, dense.

    Args:
        columns: Of titles, in the service's order.
        views: The stored views that the columns need, with full names.
        derive: Computes on-demand columns.
        moments: With a zone, in any order.
        title_ids: In any order; an unknown title is missing everywhere.

    Raises:
        DataError: A moment has no time zone.
    """
    if naive := [moment for moment in moments if moment.tzinfo is None]:
        raise DataError("snapshot moments", [Problem(str(moment), "has no time zone.") for moment in naive])
    numeric = [column for column in columns if column.kind == "numeric"]
    categorical = [column for column in columns if column.kind == "categorical"]
    values = np.full((len(moments), len(title_ids), len(numeric)), np.nan, dtype=np.float32)
    titles = pl.Series("title_id", title_ids, dtype=pl.String)
    seen = [_seen(view, titles, moments) for view in views]
    step, last = max(1, ROWS_PER_CALL // max(1, len(title_ids))), max(moments, default=None)
    nulls = [pl.lit(None, dtype=pl.String).alias(column.name) for column in categorical]
    named = titles.to_frame().select(nulls)
    for start in range(0, len(moments), step):
        part = moments[start : start + step]
        table = _at_moments(seen, derive, part, titles)
        found = shaped(table, numeric).to_numpy()
        values[start : start + step] = found.reshape(len(part), len(title_ids), len(numeric))
        if last in part:
            named = shaped(table.slice(part.index(last) * len(title_ids), len(title_ids)), categorical)
    return TitleSnapshots(
        moments=tuple(moments),
        title_ids=tuple(title_ids),
        columns=tuple(column.name for column in numeric),
        values=values,
        categorical=titles.to_frame().hstack(named),
    )


def _seen(view: ViewValues, titles: pl.Series, moments: Sequence[datetime]) -> ViewValues:
    """Read a title view once: only the titles asked for, by number, and only what a moment can see."""
    grid = pl.Series(sorted({moment.astimezone(UTC) for moment in moments}), dtype=pl.Datetime("us", "UTC"))
    at = in_utc(view.at, view.frame.collect_schema()[view.at])
    (key,) = view.keys.values()
    # Of the values between two moments only the last can be seen; the rest would only be sorted.
    seen_from = at.map_batches(lambda column: grid.search_sorted(column), return_dtype=pl.UInt32)
    rows = view.rows().join(_numbered(titles).unique().lazy(), left_on=key, right_on="title_id")
    frame = latest_values(
        rows.with_columns(seen_from.alias(_SEEN_FROM)),
        [_TITLE, _SEEN_FROM],
        view.at,
        view.created,
        list(view.features.values()),
    )
    return replace(view, keys={_TITLE: _TITLE}, frame=frame.collect().lazy(), counts=None)


def _at_moments(
    views: Sequence[ViewValues], derive: Derive, moments: Sequence[datetime], titles: pl.Series
) -> pl.DataFrame:
    """Return moments x titles rows in that order, with every plain and on-demand title column."""
    at = pl.Series(EVENT_AT, [moment.astimezone(UTC) for moment in moments], dtype=pl.Datetime("us", "UTC"))
    rows = at.to_frame().join(_numbered(titles), how="cross", maintain_order="left_right")
    joined = rows.select(EVENT_AT, "title_id", pl.col(EVENT_AT).alias(REQUEST_AT))
    for view in views:
        joined = joined.hstack(as_of_join(rows, EVENT_AT, view))
    return derive(joined)


def _numbered(titles: pl.Series) -> pl.DataFrame:
    """Give every title a number: joining by numbers is several times faster than by text."""
    return titles.to_frame().with_columns(pl.col("title_id").rank("dense").cast(pl.UInt32).alias(_TITLE))
