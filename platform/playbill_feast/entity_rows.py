"""Entity rows as Feast's users hand them in, and tables as Feast wants them back."""

from __future__ import annotations

from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa

from playbill.errors import DataError, Problem
from playbill.features.values import EVENT_AT, plain_arrow
from playbill_feast.times import moments, readable

_SUBJECT = "entity rows"


def entity_table(entity_df: Any) -> tuple[pa.Table, str]:
    """Return the entity rows as Arrow, with their time column in UTC microseconds, and that column's name.

    Args:
        entity_df: pandas, polars or dask frame or Arrow table with `event_timestamp` or one other time column.
            Times may be text (ISO 8601); without a zone they are UTC. Rows, their order and all other columns
            stay as they are.

    Raises:
        DataError: It is no frame, has no usable time column, or holds what is no time.
    """
    frame = entity_df.compute() if hasattr(entity_df, "compute") else entity_df
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pd.DataFrame):
        table = _from_pandas(frame)
    elif isinstance(frame, pl.DataFrame):
        table = plain_arrow(frame)
    elif isinstance(frame, pa.Table):
        table = frame
    else:
        what = f"needs a pandas, polars, dask or Arrow table, got {type(entity_df).__name__}."
        raise DataError(_SUBJECT, [Problem("entity_df", what)])
    at = _time_column(table)
    times, problems = moments(pl.Series(at, pl.from_arrow(table.column(at))))
    if problems:
        raise DataError(_SUBJECT, problems)
    in_utc = times.to_arrow()
    return table.set_column(table.column_names.index(at), at, in_utc.cast(pa.timestamp("us", tz="UTC"))), at


def _from_pandas(frame: pd.DataFrame) -> pa.Table:
    names = [str(name) for name in frame.columns]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(_SUBJECT, [Problem(name, "is the name of several columns.") for name in doubled])
    if EVENT_AT in names and frame[EVENT_AT].dtype == object:
        frame = frame.assign(**{EVENT_AT: readable(frame[EVENT_AT])})
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    except pa.ArrowException as error:
        raise DataError(
            _SUBJECT, [Problem("entity_df", f"cannot be read: {' '.join(map(str, error.args))}.")]
        ) from None


def _time_column(table: pa.Table) -> str:
    if EVENT_AT in table.column_names:
        return EVENT_AT
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    if len(times) != 1:
        what = f"needs a column '{EVENT_AT}' or one time column, has {len(times)}."
        raise DataError(_SUBJECT, [Problem("entity_df", what)])
    return str(times[0])
