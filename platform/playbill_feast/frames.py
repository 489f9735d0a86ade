"""Columns in the one form that the stores use between frames, Arrow and Feast: moments in UTC, plain Arrow types."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pyarrow as pa

EVENT_AT = "event_timestamp"  # Feast's name of the entity rows' time column

MOMENT = pl.Datetime("us", "UTC")  # How moments are compared: in microseconds, with a zone


def in_utc(column: str, kind: pl.DataType) -> pl.Expr:
    """Return a time column as UTC microseconds; a column without zone is UTC already."""
    moment = pl.col(column)
    if kind == MOMENT:
        return moment
    if isinstance(kind, pl.Date) or (isinstance(kind, pl.Datetime) and kind.time_zone is None):
        return moment.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return moment.cast(MOMENT)


def as_utc(moment: datetime) -> datetime:
    """Return a moment in UTC; without a zone it is UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def utc_literal(moment: datetime) -> pl.Expr:
    """Return a moment as an expression to compare times with. polars refuses one whose zone is not the column's.

    Raises:
        ValueError: The moment has no time zone, so it would be read in whatever zone this machine is in.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    return pl.lit(moment.astimezone(UTC), dtype=MOMENT)


def plain_arrow(frame: pl.DataFrame) -> pa.Table:
    """Return a frame as Arrow with plain `string` and `list`: Feast knows no large ones."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    return table.cast(pa.schema([field.with_type(plain_type(field.type)) for field in table.schema]))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return a type without the large, view and dictionary kinds of it that Feast does not know."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    return kind
