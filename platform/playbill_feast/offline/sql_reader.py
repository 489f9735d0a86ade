"""Feature rows in a database: read in batches, only what a retrieval uses; appended in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa
from polars.io.plugins import register_io_source
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, NoSuchTableError, SQLAlchemyError

from playbill_feast.connections import expand_variables, missing_driver
from playbill_feast.entity_rows import moments
from playbill_feast.errors import Mistake, StoreConfigError, StoreDataError, StoreServiceError, StoreStateError
from playbill_feast.frames import MOMENT, as_utc
from playbill_feast.offline.scan_filter import ScanFilter

BATCH_ROWS = 50_000
PROBED_ROWS = 1_000  # Rows of a query that its column types are taken from; a table has declared ones

MAX_FILTER_KEYS = 500
"""With more distinct keys than this the whole time range is read: databases limit a statement's parameters."""

_TYPES: tuple[tuple[type[sa.types.TypeEngine[Any]], pl.DataType], ...] = (
    (sa.Boolean, pl.Boolean()),
    (sa.Integer, pl.Int64()),
    (sa.Float, pl.Float64()),
    (sa.Numeric, pl.Float64()),
    (sa.Date, pl.Date()),
    (sa.LargeBinary, pl.Binary()),
)


@dataclass(frozen=True, slots=True)
class SqlRows:
    """Where rows are in a database."""

    url: str  # SQLAlchemy URL; `${NAME}` stands for a variable of the environment
    table: str = ""  # `table` or `schema.table`; empty when there is a query
    query: str = ""  # A SELECT; empty when there is a table
    times: tuple[str, ...] = ()  # Columns that hold times, perhaps as text

    def __str__(self) -> str:
        return self.table or f"the query {' '.join(self.query.split())[:60]!r}"


def scan_sql(rows: SqlRows, scan_filter: ScanFilter | None = None) -> pl.LazyFrame:
    """Open a table or query as a lazy frame; the database is read when it is collected.

    Raises:
        StoreConfigError: The URL cannot be used.
        StoreStateError: There is no such table.
        StoreServiceError: The database does not answer.
    """
    schema = sql_schema(rows)

    def batches(
        columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        names = list(schema) if columns is None else columns
        for frame in _read(rows, schema, names, scan_filter, limit):
            yield frame if predicate is None else frame.filter(predicate)

    return register_io_source(batches, schema=schema)


def sql_schema(rows: SqlRows) -> pl.Schema:
    """Return the columns and types that rows are read with. Time columns that hold text are times."""
    engine = open_engine(rows.url)
    with database_errors(engine), engine.connect() as connection:
        columns = _table_schema(connection, rows) if rows.table else _query_schema(connection, rows)
    text = pl.String()
    return pl.Schema({name: MOMENT if name in rows.times and kind == text else kind for name, kind in columns.items()})


def read_query(url: str, query: str) -> pl.DataFrame:
    """Return all rows of a SELECT, for entity rows that are a SQL text."""
    engine = open_engine(url)
    with database_errors(engine), engine.connect() as connection:
        return pl.read_database(sa.text(query), connection, infer_schema_length=None)


def append_rows(rows: SqlRows, frame: pl.DataFrame) -> None:
    """Insert rows into a table in one transaction: all of them, or none.

    Raises:
        StoreServiceError: The database did not take them; nothing was written.
    """
    engine = open_engine(rows.url)
    with database_errors(engine), engine.begin() as connection:
        table = _table(connection, rows)
        for batch in frame.iter_slices(BATCH_ROWS):
            connection.execute(sa.insert(table), batch.to_dicts())


def open_engine(url: str) -> sa.Engine:
    """Return the process's engine of a URL, with secrets filled in from the environment.

    Raises:
        StoreConfigError: The URL or its driver cannot be used.
        StoreStateError: It is an SQLite file that does not exist: SQLite would quietly create it empty.
    """
    engine = _engine(expand_variables(url, "the database URL of a data source"))
    file = engine.url.database or ":memory:"
    if engine.dialect.name == "sqlite" and file != ":memory:" and not Path(file).exists():
        raise StoreStateError(f"the database {file} does not exist")
    return engine


@contextmanager
def database_errors(engine: sa.Engine) -> Iterator[None]:
    """Turn a driver's errors into one that names the database, without its password.

    Raises:
        StoreServiceError: The database refused the statement.
    """
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        where = engine.url.render_as_string(hide_password=True)
        raise StoreServiceError(f"database {where}: {cause}. Nothing was written.") from error


@lru_cache(maxsize=32)
def _engine(url: str) -> sa.Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise StoreConfigError(f"the database URL of a SqlSource cannot be used: {missing_driver(error)}") from None
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreConfigError(f"the database URL of a SqlSource cannot be used: {error}") from None


def _table(connection: sa.Connection, rows: SqlRows) -> sa.Table:
    schema, _, name = rows.table.rpartition(".")
    try:
        return sa.Table(name, sa.MetaData(), schema=schema or None, autoload_with=connection)
    except NoSuchTableError:
        where = connection.engine.url.render_as_string(hide_password=True)
        raise StoreStateError(f"table '{rows.table}' does not exist in {where}") from None


def _table_schema(connection: sa.Connection, rows: SqlRows) -> pl.Schema:
    return pl.Schema({column.name: _polars_type(column.type) for column in _table(connection, rows).columns})


def _polars_type(kind: sa.types.TypeEngine[Any]) -> pl.DataType:
    if isinstance(kind, sa.DateTime):
        return MOMENT if kind.timezone else pl.Datetime("us")
    if isinstance(kind, sa.ARRAY):
        return pl.List(_polars_type(kind.item_type))
    return next((polars_type for declared, polars_type in _TYPES if isinstance(kind, declared)), pl.String())


def _query_schema(connection: sa.Connection, rows: SqlRows) -> pl.Schema:
    source = sa.text(rows.query).columns().subquery("rows")
    head = pl.read_database(sa.text(f"SELECT * FROM ({rows.query}) AS rows LIMIT {PROBED_ROWS}"), connection)
    schema = dict(head.schema)
    for name in [name for name, kind in schema.items() if kind == pl.Null()]:
        column: sa.ColumnClause[Any] = sa.column(name, _selectable=source)
        first = sa.select(column).select_from(source).where(column.is_not(None)).limit(1)
        schema[name] = pl.read_database(first, connection).schema[name]
    return pl.Schema({name: MOMENT if _zoned(kind) else kind for name, kind in schema.items()})


def _zoned(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.Datetime) and kind.time_zone is not None


def _read(
    rows: SqlRows, schema: pl.Schema, names: Sequence[str], scan_filter: ScanFilter | None, limit: int | None
) -> Iterator[pl.DataFrame]:
    types = pl.Schema({name: schema[name] for name in names})
    engine = open_engine(rows.url)
    with database_errors(engine), engine.connect().execution_options(stream_results=True) as connection:
        statement = _statement(connection, rows, schema, names, scan_filter).limit(limit)
        # A column of text that holds times, and a zone of the session's, are brought to `schema` afterwards.
        native_types = {name: kind for name, kind in types.items() if not _zoned(kind)}
        empty = True
        try:
            for frame in pl.read_database(
                statement, connection, iter_batches=True, batch_size=BATCH_ROWS, schema_overrides=native_types
            ):
                empty = False
                yield _typed(frame, types)
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise StoreDataError("database", [Mistake(str(rows), f"cannot be read: {error}.")]) from None
        if empty:
            yield pl.DataFrame(schema=types)


def _typed(frame: pl.DataFrame, types: pl.Schema) -> pl.DataFrame:
    problems: list[Mistake] = []
    columns = []
    for name, kind in types.items():
        column = frame.get_column(name)
        if kind == MOMENT:
            column, mistakes = moments(column)
            problems += mistakes
        columns.append(column if mistaken(problems, name) else column.cast(kind))
    if problems:
        raise StoreDataError("database", problems)
    return pl.DataFrame(columns)


def mistaken(problems: Sequence[Mistake], name: str) -> bool:
    """Return whether a column is among the problems."""
    return any(problem.where == name for problem in problems)


def _statement(
    connection: sa.Connection, rows: SqlRows, schema: pl.Schema, names: Sequence[str], scan_filter: ScanFilter | None
) -> sa.Select[Any]:
    source: Any = _table(connection, rows) if rows.table else sa.text(rows.query).columns().subquery("rows")
    columns = {name: source.c[name] if rows.table else sa.column(name, _selectable=source) for name in schema}
    statement = sa.select(*(columns[name] for name in names)).select_from(source)
    if scan_filter is None:
        return statement
    kind = schema.get(scan_filter.at)
    # Text does not compare as the times it stands for; such rows are left out after they are read.
    native = bool(rows.table) or connection.dialect.name != "sqlite"
    if native and isinstance(kind, pl.Datetime) and not _is_text(source, scan_filter.at):
        for bound, earlier in ((scan_filter.since, False), (scan_filter.until, True)):
            if bound is not None:
                moment = as_utc(bound) if kind.time_zone else as_utc(bound).replace(tzinfo=None)
                value = sa.literal(moment, sa.DateTime(timezone=kind.time_zone is not None))
                column = columns[scan_filter.at]
                statement = statement.where(column <= value if earlier else column >= value)
    for name, values in scan_filter.keys.items():
        if name in columns and len(values) <= MAX_FILTER_KEYS:
            statement = statement.where(columns[name].in_(values))
    return statement


def _is_text(source: Any, name: str) -> bool:
    return isinstance(source, sa.Table) and not isinstance(source.c[name].type, sa.DateTime)
