"""Tables whose files differ in columns: written before a column was there, or by a source with columns of its own.

A file keeps the columns it was written with. What it lacks is read as null, so that a new column needs no rebuild;
whole and decimal numbers may become wider; any other change of a type is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from playbill.errors import IntegrityError
from playbill.schema import TABLES
from playbill.tables.frames import POLARS_TYPES, ColumnMistake, polars_schema

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
