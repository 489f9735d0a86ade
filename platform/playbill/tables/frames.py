"""Canonical columns as polars types: schemas, empty frames, and bringing a frame into canonical shape.

A file keeps the columns it was written with, maybe before a column was there. What it lacks is read as null, so that a
new column needs no rebuild; whole and decimal numbers may become wider; any other change of a type is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from playbill.arrays import Ints64
from playbill.errors import IntegrityError, did_you_mean
from playbill.schema import NAMESPACED, TABLES, Column, ColumnType, Table

TIMESTAMP = pl.Datetime("us", "UTC")

POLARS_TYPES: dict[ColumnType, pl.DataType] = {
    "string": pl.String(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "float32": pl.Float32(),
    "float64": pl.Float64(),
    "bool": pl.Boolean(),
    "timestamp": TIMESTAMP,
    "list[string]": pl.List(pl.String()),
    "names": pl.List(pl.Struct({"language": pl.String(), "name": pl.String()})),
}
"""The polars type of every canonical column type."""


@dataclass(frozen=True, slots=True)
class ColumnMistake:
    """A column that is missing, unknown, or of a type that cannot be read as the canonical one."""

    column: str
    what: str
    hint: str = ""


def polars_schema(table: str) -> pl.Schema:
    """Return the canonical columns of `table` with their polars types, in order.

    Raises:
        KeyError: There is no such table; names come from code, never from a user.
    """
    return pl.Schema({column.name: POLARS_TYPES[column.type] for column in TABLES[table].columns})


def utc_literal(moment: datetime) -> pl.Expr:
    """Return a moment as an expression to compare timestamps with. polars refuses one whose zone is not the column's.

    Raises:
        ValueError: The moment has no time zone, so it would be read in whatever zone this machine is in.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    return pl.lit(moment.astimezone(UTC), dtype=TIMESTAMP)


def epoch_us(moments: pl.Series) -> Ints64:
    """Return microseconds since 1970, the smallest number for null: `dt.epoch` in a tenth of the time of a few rows."""
    return moments.to_numpy().astype("datetime64[us]", copy=False).view(np.int64)


def empty_frame(table: str) -> pl.DataFrame:
    """Return `table` without rows."""
    return pl.DataFrame(schema=polars_schema(table))


def canonical_frame(table: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[ColumnMistake]]:
    """Bring `frame` into the shape of `table`, and return every mistake found.

    Columns that may be null can be left out. Numbers of another width, categoricals and timestamps of another
    unit or zone are converted when no value is lost. Own columns are kept where the table allows them. A column with a
    mistake is missing from the frame that is returned.
    """
    spec = TABLES[table]
    mistakes: list[ColumnMistake] = []
    columns: list[pl.Series] = []
    for column in spec.columns:
        series, mistake = _canonical_column(spec, column, frame)
        if mistake:
            mistakes.append(mistake)
        elif series is not None:
            columns.append(series)
    own, strays = _extra_columns(spec, frame)
    return pl.DataFrame([*columns, *own]), [*mistakes, *strays]


def _canonical_column(
    spec: Table, column: Column, frame: pl.DataFrame
) -> tuple[pl.Series | None, ColumnMistake | None]:
    target = POLARS_TYPES[column.type]
    if column.name not in frame.columns:
        if column.nullable:
            return pl.Series(column.name, [None], dtype=target).new_from_index(0, frame.height), None
        strays = [name for name in frame.columns if spec.column(name) is None]
        return None, ColumnMistake(column.name, "the column is missing.", did_you_mean(column.name, strays))
    series = frame.get_column(column.name)
    if series.dtype == target:
        return series, None
    return _converted(series, target)


def _converted(series: pl.Series, target: pl.DataType) -> tuple[pl.Series | None, ColumnMistake | None]:
    source = series.dtype
    if isinstance(source, pl.Datetime) and isinstance(target, pl.Datetime) and source.time_zone is None:
        return None, ColumnMistake(series.name, "the timestamps have no time zone.", "Canonical ones are in UTC.")
    if not _convertible(source, target):
        return None, ColumnMistake(series.name, f"expected {target}, got {source}.")
    converted = series.cast(target, strict=False)
    lost = int(converted.null_count()) - int(series.null_count())
    if lost > 0 or (source.is_float() and target.is_integer() and not _whole(series)):
        return None, ColumnMistake(series.name, f"expected {target}, got {source} with values that do not fit.")
    return converted, None


def _convertible(source: pl.DataType, target: pl.DataType) -> bool:
    if source == pl.Null():
        return True
    if isinstance(target, pl.List):
        if not isinstance(source, pl.List):
            return False
        if isinstance(target.inner, pl.Struct):
            return source.inner == target.inner or source.inner == pl.Null()
        return _convertible(_instance(source.inner), _instance(target.inner))
    if isinstance(target, pl.Datetime):
        return isinstance(source, pl.Datetime)
    if target == pl.String():
        return source in (pl.String(), pl.Categorical()) or isinstance(source, pl.Enum | pl.Categorical)
    if target == pl.Boolean():
        return source == pl.Boolean()
    return source.is_numeric()


def _instance(kind: object) -> pl.DataType:
    return kind() if isinstance(kind, type) else kind  # type: ignore[return-value]


def _whole(series: pl.Series) -> bool:
    return bool((series.drop_nulls() % 1 == 0).all())


def _extra_columns(spec: Table, frame: pl.DataFrame) -> tuple[list[pl.Series], list[ColumnMistake]]:
    strays = [name for name in frame.columns if spec.column(name) is None]
    if spec.extra_columns == "any":
        return [frame.get_column(name) for name in strays], []
    own, mistakes = [], []
    for name in strays:
        if spec.extra_columns == "namespaced" and NAMESPACED.fullmatch(name):
            series, mistake = _own_column(frame.get_column(name))
            own += [series] if series is not None else []
            mistakes += [mistake] if mistake else []
            continue
        hint = did_you_mean(name, spec.names(), f"Known: {', '.join(spec.names())}.")
        mistakes.append(ColumnMistake(name, "unknown column.", hint))
    return own, mistakes


def _own_column(series: pl.Series) -> tuple[pl.Series | None, ColumnMistake | None]:
    """Bring a source's own column of a log to one of few types, so that batches agree; all null says nothing."""
    kind = series.dtype
    if kind == pl.Null:
        return None, None
    wide = pl.Int64() if kind.is_integer() else pl.Float64() if kind.is_float() else kind
    for target in (wide, pl.String(), TIMESTAMP, pl.List(pl.String())):
        if target in POLARS_TYPES.values() and (kind == target or _convertible(kind, target)):
            return _converted(series, target) if kind != target else (series, None)
    return None, ColumnMistake(series.name, f"a column of its own cannot hold {kind}.", "Use text, numbers or moments.")


Columns = Mapping[str, str]
"""Column -> its canonical type name, or polars's name of a type we have none for."""

_NAMES = {kind: name for name, kind in POLARS_TYPES.items()}
_WIDER = {("int32", "int64"), ("float32", "float64"), ("int32", "float64")}
_CASTS = pl.ScanCastOptions(integer_cast=("upcast", "allow-float"), float_cast="upcast")


def columns_of(schema: Mapping[str, pl.DataType]) -> dict[str, str]:
    """Return the type name of every column."""
    return {name: _NAMES.get(kind, str(kind)) for name, kind in schema.items()}


def changed_types(stored: Columns, offered: Columns) -> list[ColumnMistake]:
    """Return a mistake for every column that is stored with another type than the one offered."""
    return [
        ColumnMistake(name, f"it is stored as {stored[name]}, and the new rows have {kind}.")
        for name, kind in offered.items()
        if name in stored and stored[name] != kind
    ]


def log_schema(table: str, stored: Columns, place: Path) -> pl.Schema:
    """Return what a stored table is read as: today's canonical columns, then its own in the order stored.

    Raises:
        IntegrityError: A canonical column is stored with a type that cannot be read as today's, or a column that
            may not be null is missing.
    """
    schema = polars_schema(table)
    for column in TABLES[table].columns:
        found = stored.get(column.name)
        if found is None and not column.nullable:
            raise IntegrityError(f"{place}: {table} was stored without column '{column.name}'. {_AGAIN}")
        if found not in (None, column.type) and (found, column.type) not in _WIDER:
            what = f"column '{column.name}' of {table} is stored as {found}, this version reads {column.type}"
            raise IntegrityError(f"{place}: {what}. {_AGAIN}")
    own = {name: POLARS_TYPES[kind] for name, kind in stored.items() if name not in schema and kind in POLARS_TYPES}
    return pl.Schema({**schema, **own})


_AGAIN = "Run `playbill ingest` again."


def scan_files(files: Sequence[Path], schema: pl.Schema) -> pl.LazyFrame:
    """Open parquet files as one frame of `schema`; columns that a file lacks are null in its rows."""
    if not files:
        return schema.to_frame().lazy()
    return pl.scan_parquet(
        list(files),
        schema=schema,
        missing_columns="insert",
        extra_columns="ignore",
        cast_options=_CASTS,
        hive_partitioning=False,
    )


def scan_table(table: str, path: Path) -> pl.LazyFrame:
    """Open the file of a small table, with the source's own columns as they are.

    Raises:
        IntegrityError: It cannot be read as this version's table.
    """
    stored = pl.read_parquet_schema(path)
    schema = log_schema(table, columns_of(stored), path)
    own = {name: kind for name, kind in stored.items() if name not in schema}
    return scan_files([path], pl.Schema({**schema, **own}))


def aligned(rows: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Return rows with exactly the columns of `schema`, those they lack as null."""
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in schema.items() if name not in rows.columns]
    return rows.with_columns(missing).select(schema.names())
