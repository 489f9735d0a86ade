"""Entity rows as Feast's users hand them in, and tables as Feast wants them back."""

from __future__ import annotations

from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa

from playbill.errors import DataError, Problem

EVENT_AT = "event_timestamp"
"""Feast's name of the entity rows' time column."""


def entity_table(entity_df: Any) -> tuple[pa.Table, str]:
    """Return the entity rows as Arrow, with their time column in UTC microseconds, and that column's name.

    Args:
        entity_df: pandas or dask frame with `event_timestamp` or one other time column. Times may be text
            (ISO 8601); without a zone they are UTC.

    Raises:
        DataError: It is no frame, has no usable time column, or holds what is no time.
    """
    frame = entity_df.compute() if hasattr(entity_df, "compute") else entity_df
    if not isinstance(frame, pd.DataFrame):
        raise DataError("entity rows", [Problem("entity_df", f"needs a pandas frame, got {type(entity_df).__name__}.")])
    at = _time_column(frame)
    times = frame[at]
    try:
        parsed = pd.to_datetime(times, utc=True, format="ISO8601" if _is_text(times) else None)
    except (ValueError, TypeError) as error:
        raise DataError("entity rows", [Problem(at, f"holds what is no time: {error}.")]) from None
    moments = pa.array(parsed.dt.as_unit("us"), type=pa.timestamp("us", tz="UTC"))
    table = pa.Table.from_pandas(frame.assign(**{at: parsed}), preserve_index=False).replace_schema_metadata()
    return table.set_column(list(frame.columns).index(at), at, moments), at


def _is_text(values: pd.Series[Any]) -> bool:
    return bool(values.map(lambda value: isinstance(value, str)).any())


def _time_column(frame: pd.DataFrame) -> str:
    if EVENT_AT in frame.columns:
        return EVENT_AT
    times = list(frame.select_dtypes(include=["datetime", "datetimetz"]).columns)
    if len(times) != 1:
        what = f"needs a column '{EVENT_AT}' or one time column, has {len(times)}."
        raise DataError("entity rows", [Problem("entity_df", what)])
    return str(times[0])


def plain_arrow(frame: pl.DataFrame) -> pa.Table:
    """Return a frame as Arrow with plain `string` and `list`: Feast knows no large ones."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    return table.cast(pa.schema([field.with_type(_plain(field.type)) for field in table.schema]))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    return kind
