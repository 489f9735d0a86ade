"""The source `sql`: tables or queries of any database SQLAlchemy reaches, through a mapping."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from playbill.config import expand_variables
from playbill.errors import DataError, DefinitionError, Problem, ServiceError
from playbill.sources.canonicalise import Offer, Progress
from playbill.sources.options import SqlOptions
from playbill.sources.tabular.mapped import mapped_offer
from playbill.sources.tabular.mapping import QueryTable
from playbill.sources.tabular.mapping_file import read_mapping, unknown_columns
from playbill.tables import database_errors, open_database

BATCH_ROWS = 50_000
"""Rows fetched at a time from a server-side cursor."""


class OwnDatabase:
    """A database, read in batches: neither the server's nor our memory ever holds a whole table.

    Args:
        options: The URL and the mapping.
    """

    terms = ""

    def __init__(self, options: SqlOptions) -> None:
        self._url, self._mapping = options.url, options.mapping

    def open(self, scratch: Path, progress: Progress) -> tuple[Offer, str]:
        """Check the mapping against the database and offer its rows. See `playbill.sources.source.Source`."""
        engine = open_database(expand_variables(self._url, os.environ, "the database URL (--url)"))
        _require_file(engine)
        tables, problems = read_mapping(self._mapping, QueryTable)
        with database_errors(engine), engine.connect() as connection:
            for name, table in tables.items():
                problems += _query_problems(connection, name, table)
            if problems:
                raise DefinitionError(f"mapping {self._mapping}", problems)
            opened = {
                name: _fetched(connection, name, _query(table), scratch, progress) for name, table in tables.items()
            }
        place = engine.url.render_as_string(hide_password=True)
        return mapped_offer(tables, opened, self._mapping, scratch), f"database {place}"


def _require_file(engine: sa.Engine) -> None:
    # SQLite would quietly create an empty database in its place.
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file and not file.startswith(("file:", ":")) and not Path(file).is_file():
        raise ServiceError(f"database {engine.url}: there is no file {file}")


def _query(mapping: QueryTable) -> sa.Select[Any]:
    wanted = sorted(set(mapping.sources().values()))
    columns: Sequence[sa.ColumnClause[Any]] = [sa.column(name) for name in wanted]
    return sa.select(*columns).select_from(_origin(mapping))


def _origin(mapping: QueryTable) -> sa.FromClause:
    if mapping.select is not None:
        return sa.text(mapping.select.strip().rstrip(";")).columns().subquery("mapped")
    schema, _, name = (mapping.table or "").rpartition(".")
    return sa.table(name, schema=schema or None)


def _query_problems(connection: sa.Connection, name: str, mapping: QueryTable) -> list[Problem]:
    where = f"{name}.{'select' if mapping.select is not None else 'table'}"
    probe = sa.select(sa.text("*")).select_from(_origin(mapping)).where(sa.false())
    try:
        with connection.begin_nested():
            known = list(connection.execute(probe).keys())
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        return [Problem(where, f"the database refuses this: {str(cause).splitlines()[0]}.")]
    return unknown_columns(name, mapping, known)


def _fetched(
    connection: sa.Connection, name: str, query: sa.Select[Any], scratch: Path, progress: Progress
) -> pl.LazyFrame:
    parts: list[Path] = []
    done = 0
    streamed = connection.execution_options(yield_per=BATCH_ROWS).execute(query)
    names = list(streamed.keys())
    for rows in streamed.partitions():
        frame = _frame(name, names, rows)
        parts.append(scratch / f"{name}-{len(parts):05d}.parquet")
        frame.write_parquet(parts[-1], compression="lz4")
        done += len(rows)
        progress(f"read {name}", done, None)
    if not parts:
        return pl.LazyFrame(schema={column: pl.Null for column in names})
    # A batch of nulls alone has no type of its own, so batches are brought to a common one.
    return pl.concat([pl.scan_parquet(part) for part in parts], how="vertical_relaxed")


def _frame(name: str, names: Sequence[str], rows: Sequence[sa.Row[Any]]) -> pl.DataFrame:
    try:
        return pl.DataFrame([tuple(row) for row in rows], schema=list(names), orient="row", infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        first = str(error).splitlines()[0]
        raise DataError(name, [Problem(name, f"the database's values cannot be read: {first}")]) from None
