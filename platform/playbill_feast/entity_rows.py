"""Entity rows as Feast's users pass them: frames of any library, times as text, zoned, without a zone, or as objects.

Times become UTC microseconds; rows, their order and all other columns stay as they are.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa

from playbill_feast.errors import Mistake, StoreDataError
from playbill_feast.frames import EVENT_AT, in_utc, plain_arrow

_SHOWN = 3
_ISO = (
    r"^\s*(?<date>\d{4}-\d{2}-\d{2})(?:[T ](?<time>\d{2}:\d{2}(?::\d{2})?)(?:\.(?<fraction>\d{1,9}))?)?"
    r"\s*(?<zone>[Zz]|UTC|[+-]\d{2}(?::?\d{2})?)?\s*$"
)


def moments(values: pl.Series) -> tuple[pl.Series, list[Mistake]]:
    """Return times, dates or ISO 8601 text (UTC without a zone) as UTC microseconds, and what is wrong with them."""
    kind = values.dtype
    if isinstance(kind, pl.Datetime | pl.Date | pl.Null):
        return values.to_frame().select(in_utc(values.name, kind)).to_series(), []
    if isinstance(kind, pl.String | pl.Categorical | pl.Enum):
        return _parsed(values.cast(pl.String))
    return values, [Mistake(values.name, f"is {kind}, and has to be a time or ISO 8601 text.")]


def readable(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return a pandas column of Python objects as UTC times, or as text where there is any.

    Objects know their zones and may mix them; text that mixes zones is a mistake, found when it is read.
    """
    known = values.dropna()
    if all(isinstance(value, date) for value in known):
        return pd.to_datetime(values, utc=True)
    if any(isinstance(value, str) for value in known):
        return values.where(values.isna(), values.astype(str)).where(values.notna(), None)
    return values


def _parsed(text: pl.Series) -> tuple[pl.Series, list[Mistake]]:
    pieces = text.str.extract_groups(_ISO).struct.unnest()
    clock = pl.col("time").fill_null("00:00")
    whole = pl.concat_str(
        pl.col("date"), pl.lit(" "), clock, pl.when(clock.str.len_chars() == 5).then(pl.lit(":00")), ignore_nulls=True
    )
    zone = pl.col("zone").str.replace_all(":", "")
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    minutes = zone.str.slice(1, 2).cast(pl.Int32, strict=False) * 60
    minutes += zone.str.slice(3, 2).cast(pl.Int32, strict=False).fill_null(0)
    fraction = pl.col("fraction").fill_null("0").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64)
    read = pieces.select(
        at=pl.when(pl.col("date").is_not_null()).then(whole).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False)
        + pl.duration(microseconds=fraction),
        offset=(sign * minutes).fill_null(0),
    )
    parsed = read.select(
        (pl.col("at") - pl.duration(minutes=pl.col("offset"))).dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    ).to_series()
    return parsed.alias(text.name), [*_strangers(text, parsed), *_zones(text, read.get_column("offset"), parsed)]


def _strangers(text: pl.Series, parsed: pl.Series) -> list[Mistake]:
    wrong = (text.is_not_null() & parsed.is_null()).arg_true()
    if wrong.is_empty():
        return []
    shown = ", ".join(f"row {row} is {text[row]!r}" for row in wrong.head(_SHOWN))
    more = f" and {wrong.len() - _SHOWN} more" if wrong.len() > _SHOWN else ""
    return [Mistake(text.name, f"holds what is no time: {shown}{more}.", "Expected such as 2024-05-01T12:00:00Z.")]


def _zones(text: pl.Series, offsets: pl.Series, parsed: pl.Series) -> list[Mistake]:
    known = pl.DataFrame({"text": text, "offset": offsets}).with_row_index("row").filter(parsed.is_not_null())
    firsts = known.unique("offset", keep="first", maintain_order=True)
    if firsts.height < 2:
        return []
    shown = ", ".join(f"row {row} is {value!r}" for row, value in firsts.select("row", "text").head(_SHOWN).rows())
    return [Mistake(text.name, f"mixes time zones: {shown}.", "Bring all times into one zone, best UTC.")]


_SUBJECT = "entity rows"


def entity_table(entity_df: Any) -> tuple[pa.Table, str]:
    """Return entity rows as Arrow, with their time column in UTC microseconds, and that column's name.

    `entity_df` is a pandas, polars or dask frame or Arrow table with `event_timestamp` or one other time column. Times
    may be text (ISO 8601); without a zone they are UTC. Rows, their order and all other columns stay as they are.

    Raises:
        StoreDataError: It is no frame, has no usable time column, or holds what is no time.
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
        raise StoreDataError(_SUBJECT, [Mistake("entity_df", what)])
    at = _time_column(table)
    times, problems = moments(pl.Series(at, pl.from_arrow(table.column(at))))
    if problems:
        raise StoreDataError(_SUBJECT, problems)
    in_utc = times.to_arrow()
    return table.set_column(table.column_names.index(at), at, in_utc.cast(pa.timestamp("us", tz="UTC"))), at


def _from_pandas(frame: pd.DataFrame) -> pa.Table:
    names = [str(name) for name in frame.columns]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise StoreDataError(_SUBJECT, [Mistake(name, "is the name of several columns.") for name in doubled])
    if EVENT_AT in names and frame[EVENT_AT].dtype == object:
        frame = frame.assign(**{EVENT_AT: readable(frame[EVENT_AT])})
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    except pa.ArrowException as error:
        raise StoreDataError(
            _SUBJECT, [Mistake("entity_df", f"cannot be read: {' '.join(map(str, error.args))}.")]
        ) from None


def _time_column(table: pa.Table) -> str:
    if EVENT_AT in table.column_names:
        return EVENT_AT
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    if len(times) != 1:
        what = f"needs a column '{EVENT_AT}' or one time column, has {len(times)}."
        raise StoreDataError(_SUBJECT, [Mistake("entity_df", what)])
    return str(times[0])
