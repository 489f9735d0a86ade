"""Stored columns as polars series, for a few rows and the kinds that models read. Imports neither Arrow nor pandas."""

from __future__ import annotations

import polars as pl

from playbill_feast.online.ragged import Blobs, Ints
from playbill_feast.online.row_codec import Column
from playbill_feast.online.row_layout import FIXED, NEVER, NO_TIME

READABLE = frozenset({*FIXED, "string"})
"""Kinds that `series_of` reads."""


def series_of(name: str, column: Column) -> pl.Series:
    """Return a stored column under a name, null where it has no value.

    Args:
        name: Of the series.
        column: Of a kind in `READABLE`.
    """
    values = column.values
    if isinstance(values, Blobs):
        spans = zip(values.starts.tolist(), values.lengths.tolist(), strict=True)
        valid = [True] * len(values.starts) if column.valid is None else column.valid.tolist()
        texts = [
            values.data[start : start + length].tobytes().decode() if there else None
            for (start, length), there in zip(spans, valid, strict=True)
        ]
        return pl.Series(name, texts, pl.String)
    series = pl.Series(name, values.astype("bool") if column.kind == "bool" else values)
    if column.valid is not None:
        series = series.set(pl.Series(~column.valid), None)
    elif column.kind == "time":
        series = series.set(series == NO_TIME, None)
    return series.cast(pl.Datetime("us", "UTC")) if column.kind == "time" else series


def moments_of(name: str, event_us: Ints) -> pl.Series:
    """Return event times, null where there is no row."""
    times = pl.Series(name, event_us)
    return times.set(times == NEVER, None).cast(pl.Datetime("us", "UTC"))
