"""The workspace's SQL database: engines, canonical tables as SQL tables, and rows as frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import DataError as DatabaseDataError
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError

from playbill.clock import to_microseconds
from playbill.errors import ConfigError, DataError, IntegrityError, Problem, ServiceError
from playbill.files import database_file, storage_error
from playbill.schema import TABLES, ColumnType
from playbill.tables.frames import TIMESTAMP, polars_schema

BUSY_TIMEOUT_MS = 15_000
"""How long a writer waits for another one on SQLite."""

_BULK_ROWS = 20_000

_CREATION_LOCK = 0x504C4159
"""Any number that no other user of advisory locks picks."""

_SQL_TYPES: dict[ColumnType, type[sa.types.TypeEngine[Any]]] = {
    "string": sa.Text,
    "int32": sa.Integer,
    "int64": sa.BigInteger,
    "float32": sa.Double,
    "float64": sa.Double,
    # Microseconds since 1970: exact, and the same on every database.
    "timestamp": sa.BigInteger,
}


@cache
def open_database(url: str) -> sa.Engine:
    """Return the process's engine for a URL; SQLite gets a write-ahead log and a busy timeout.

    Raises:
        ConfigError: The URL is malformed, or its driver is not installed.
    """
    try:
        # A file does not hang up: only a server's connection is asked whether it still stands.
        engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except ModuleNotFoundError as error:
        raise ConfigError(f"the database URL cannot be used: {missing_driver(error)}") from None
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"the database URL cannot be used: {error}") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
    return engine


def missing_driver(error: ModuleNotFoundError) -> str:
    """Say which database driver is not installed, and how to install the one for Postgres."""
    advice = ": pip install 'playbill[postgres]'" if (error.name or "").startswith("psycopg") else ""
    return f"{error}{advice}"


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


@contextmanager
def database_errors(engine: sa.Engine) -> Iterator[None]:
    """Turn a driver's error into one that names the database, without its password.

    Raises:
        ServiceError: The database did not do what was asked.
    """
    try:
        yield
    except SQLAlchemyError as error:
        name = engine.url.render_as_string(hide_password=True)
        file = database_file(name)
        refused = storage_error(error, "the database" if file else f"the database {name}", file)
        if refused is not None:
            raise refused from error
        cause = getattr(error, "orig", None) or error
        raise ServiceError(f"database {name}: {cause}") from error


_ABOUT_ROWS = ("22", "23", "54")
"""Classes of SQLSTATE that blame the row: data exception, integrity violation, a limit of the program exceeded."""


@contextmanager
def refused_rows(subject: str) -> Iterator[None]:
    """Tell a row that a database will never take from a database that does not answer now.

    Raises:
        DataError: The database, or its driver, refuses a row for what is in it: a text with a NUL or half a surrogate
            pair, a number too wide. Trying again will not help.
    """
    try:
        yield
    except (SQLAlchemyError, UnicodeError, OverflowError) as error:
        if not _blames_row(error):
            raise
        cause = getattr(error, "orig", None) or error
        raise DataError(subject, [Problem("database", f"{type(cause).__name__}: {cause}")]) from error


def _blames_row(error: Exception) -> bool:
    cause = getattr(error, "orig", None)
    # Drivers of Postgres name the state; a class alone would take "too large for an index" for an outage.
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if isinstance(state, str):
        return state.startswith(_ABOUT_ROWS)
    return isinstance(error, DatabaseDataError | DatabaseIntegrityError) or not isinstance(error, SQLAlchemyError)


def create_tables(engine: sa.Engine, metadata: sa.MetaData) -> None:
    """Create the tables, columns and indices that are not there. Processes may do this at the same time.

    A table made by an earlier version keeps its rows, and gets the columns that are new since, null in them.

    Raises:
        ServiceError: The database does not answer.
        IntegrityError: A column is there with a type that cannot hold ours, or one is missing that may not be null.
    """
    with database_errors(engine), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # There, "if not exists" asked twice at once still fails; the lock ends with the transaction.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
        for table in metadata.sorted_tables:
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            _add_missing_columns(connection, table)
            for index in table.indexes:
                connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))


def _add_missing_columns(connection: sa.Connection, table: sa.Table) -> None:
    there = {column["name"]: column["type"] for column in sa.inspect(connection).get_columns(table.name)}
    wrong = []
    for column in table.columns:
        found = there.get(column.name)
        if found is None and not column.nullable:
            wrong.append(f"column '{column.name}' is missing and may not be null")
        elif found is not None and _family(found) != _family(column.type):
            wrong.append(f"column '{column.name}' is {found}, expected {column.type.compile(connection.dialect)}")
    if wrong:
        place = connection.engine.url.render_as_string(hide_password=True)
        raise IntegrityError(f"database {place}, table {table.name}: {'; '.join(wrong)}")
    for column in table.columns:
        if column.name not in there:
            _add_column(connection, table, column)


def _add_column(connection: sa.Connection, table: sa.Table, column: sa.Column[Any]) -> None:
    quote = connection.dialect.identifier_preparer.quote
    unless = "IF NOT EXISTS " if connection.dialect.name == "postgresql" else ""
    kind = column.type.compile(connection.dialect)
    statement = f"ALTER TABLE {quote(table.name)} ADD COLUMN {unless}{quote(column.name)} {kind}"
    try:
        connection.execute(sa.text(statement))
    except SQLAlchemyError:
        # Another process may have added it between the look and the statement.
        if column.name not in {found["name"] for found in sa.inspect(connection).get_columns(table.name)}:
            raise


def _family(kind: sa.types.TypeEngine[Any]) -> str:
    if isinstance(kind, sa.types.Integer):
        return "whole"
    return "text" if isinstance(kind, sa.types.String) else "number"


def sql_columns(table: str) -> list[sa.Column[Any]]:
    """Return the canonical columns of `table` as new SQL columns, without keys."""
    return [
        sa.Column(column.name, _SQL_TYPES[column.type], nullable=column.nullable) for column in TABLES[table].columns
    ]


def sql_row(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return every canonical column of a row as its SQL value; columns not given are null."""
    values = {**_nulls(table), **row}
    for name in _moments(table):
        if values[name] is not None:
            values[name] = to_microseconds(values[name])
    return values


@cache
def _nulls(table: str) -> dict[str, Any]:
    return dict.fromkeys(TABLES[table].names())


@cache
def _moments(table: str) -> tuple[str, ...]:
    return tuple(column.name for column in TABLES[table].columns if column.type == "timestamp")


def sql_frame(table: str, rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Return SQL rows, whose columns are those of `table` in order, as a canonical frame."""
    schema = polars_schema(table)
    stored = pl.Schema({name: pl.Int64() if kind == TIMESTAMP else kind for name, kind in schema.items()})
    frame = pl.DataFrame([tuple(row) for row in rows], schema=stored, orient="row")
    return frame.cast({name: kind for name, kind in schema.items() if kind == TIMESTAMP})


def hold_keys(connection: sa.Connection, names: Sequence[str]) -> None:
    """Let no other transaction that holds one of these names go on until this one has ended.

    Call it before reading what a write depends on. SQLite has one writer at a time, so there all names are one.
    Other databases than SQLite and Postgres hold nothing.
    """
    if connection.dialect.name == "sqlite":
        # A transaction that begins with a read would be refused when it comes to write after another one.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        # In one order everywhere, so that two transactions cannot wait for each other.
        keys = sorted({int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), signed=True) for name in names})
        held = sa.func.unnest(sa.cast(keys, postgresql.ARRAY(sa.BigInteger))).column_valued("key")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(held)))


def insert_frame(connection: sa.Connection, table: sa.Table, name: str, rows: pl.DataFrame) -> int:
    """Insert canonical rows whose key is not there yet, in bulk, and return how many were inserted.

    On databases other than SQLite and Postgres a key that is there already is the database's own error.
    """
    if rows.is_empty():
        return 0
    moments = [column for column, kind in polars_schema(name).items() if kind == TIMESTAMP]
    plain = rows.with_columns(pl.col(moments).dt.epoch("us"))
    dialect = connection.dialect.name
    statement: sa.Insert = sa.insert(table)
    if dialect == "sqlite":
        statement = sqlite.insert(table).on_conflict_do_nothing()
    elif dialect == "postgresql":
        statement = postgresql.insert(table).on_conflict_do_nothing()
    counting = statement.execution_options(preserve_rowcount=True)
    return sum(connection.execute(counting, part.to_dicts()).rowcount for part in plain.iter_slices(_BULK_ROWS))


@cache
def _unless_there(
    table: sa.Table, dialect: sa.Dialect, key: tuple[str, ...], columns: tuple[str, ...]
) -> tuple[str, tuple[str, ...] | None]:
    """Return an insert that passes over rows whose key is there, and its columns where the driver wants their order."""
    maker = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
    # Counting by RETURNING would send every row back: several times as slow.
    statement = maker(table).on_conflict_do_nothing(index_elements=key)
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    return str(compiled), tuple(compiled.positiontup) if compiled.positiontup else None


def insert_new(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], key: Sequence[str]
) -> int:
    """Insert the rows whose key is not there yet, and return how many were inserted.

    SQLite and Postgres decide in one statement, so writers at the same time cannot both insert a key. Other
    databases are asked first; there a race ends in the database's own error, never in a double row.
    """
    if not rows:
        return 0
    if connection.dialect.name in ("sqlite", "postgresql"):
        statement, names = _unless_there(table, connection.dialect, tuple(key), tuple(rows[0]))
        # The driver is given the rows as they are: looking at each value again takes longer than writing them.
        values = [tuple(map(row.get, names)) for row in rows] if names else list(rows)
        found = connection.exec_driver_sql(statement, values, execution_options={"preserve_rowcount": True})
        return int(found.rowcount)
    columns = [table.c[name] for name in key]
    known = set()
    for row in rows:
        wanted = sa.and_(*(column == row[column.name] for column in columns))
        known |= {tuple(found) for found in connection.execute(sa.select(*columns).where(wanted))}
    fresh = {identity: row for row in rows if (identity := tuple(row[name] for name in key)) not in known}
    if fresh:
        connection.execute(sa.insert(table), list(fresh.values()))
    return len(fresh)
