"""The request log: what was asked and what was answered. A request and its slates are written as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import polars as pl
import sqlalchemy as sa

from playbill.errors import DataError, Problem
from playbill.schema import REQUESTS, SLATES, TABLES
from playbill.tables.database import (
    create_tables,
    database_errors,
    insert_new,
    open_database,
    refused_rows,
    sql_columns,
    sql_frame,
    sql_row,
)

_metadata = sa.MetaData()
_requests = sa.Table("requests", _metadata, *sql_columns("requests"), sa.PrimaryKeyConstraint(*REQUESTS.key))
_slates = sa.Table("slates", _metadata, *sql_columns("slates"), sa.PrimaryKeyConstraint(*SLATES.key))


class RequestLog:
    """Requests and their slates.

    Raises:
        ConfigError: The URL cannot be used.
        ServiceError: The database does not answer.
    """

    def __init__(self, database_url: str) -> None:
        self._engine = open_database(database_url)
        create_tables(self._engine, _metadata)

    def write(self, request: Mapping[str, Any], slates: Sequence[Mapping[str, Any]]) -> None:
        """Commit a request with everything it was answered. Writing it again changes nothing.

        `request_id` may be left out of the slates. Errors are those of `write_all`.
        """
        self.write_all([(request, slates)])

    def write_all(self, answered: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]) -> None:
        """Commit requests, each with its slates, all or none. Writing one again changes nothing.

        Raises:
            DataError: Columns are missing, unknown or of the wrong type, or the database refuses a row for what is
                in it; nothing is written, and trying again will not help.
            ServiceError: The database does not answer.
        """
        slates = [
            [{"request_id": request.get("request_id"), **slate} for slate in shown] for request, shown in answered
        ]
        problems = [
            problem
            for (request, _), shown in zip(answered, slates, strict=True)
            for problem in _request_problems(request, shown)
        ]
        if problems:
            raise DataError("the request was not logged", problems)
        requests = [sql_row("requests", request) for request, _ in answered]
        rows = [sql_row("slates", slate) for shown in slates for slate in shown]
        refused = refused_rows("the request was not logged")
        with database_errors(self._engine), refused, self._engine.begin() as connection:
            insert_new(connection, _requests, requests, REQUESTS.key)
            insert_new(connection, _slates, rows, SLATES.key)

    def requests(self) -> pl.DataFrame:
        """Return every logged request, canonical, by time."""
        query = sa.select(_requests).order_by(_requests.c.at, _requests.c.request_id)
        return self._frame("requests", query)

    def slates(self, request_id: str | None = None) -> pl.DataFrame:
        """Return what was shown, for one request or all, canonical, in the order shown."""
        query = sa.select(_slates).order_by(*(_slates.c[name] for name in SLATES.key))
        if request_id is not None:
            query = query.where(_slates.c.request_id == request_id)
        return self._frame("slates", query)

    def _frame(self, table: str, query: sa.Select[Any]) -> pl.DataFrame:
        with database_errors(self._engine), self._engine.connect() as connection:
            return sql_frame(table, connection.execute(query).all())


_VALUES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "int32": int,
    "int64": int,
    "float32": (int, float),
    "float64": (int, float),
    "timestamp": datetime,
}


def _request_problems(request: Mapping[str, Any], slates: Sequence[Mapping[str, Any]]) -> list[Problem]:
    problems = _problems("requests", "request", request)
    for index, slate in enumerate(slates):
        # Hundreds of slates of a page are of a few kinds.
        if not _sound("slates", tuple(zip(slate, map(type, slate.values()), strict=True))):
            problems += _problems("slates", f"slates[{index}]", slate)
        if slate["request_id"] != request.get("request_id"):
            problems.append(Problem(f"slates[{index}].request_id", "differs from the request's."))
    return problems


_COLUMNS = {
    table: {column.name: (column, _VALUES[column.type]) for column in TABLES[table].columns}
    for table in ("requests", "slates")
}


@lru_cache(maxsize=1024)
def _sound(table: str, given: tuple[tuple[str, type], ...]) -> bool:
    """Say whether every row of these columns and types is as it should be; of one with moments that is not sure."""
    examples: dict[type, Any] = {str: "", int: 0, float: 0.0, type(None): None}
    row = {name: examples.get(kind, object()) for name, kind in given}
    return not _problems(table, "", row)


def _problems(table: str, where: str, row: Mapping[str, Any]) -> list[Problem]:
    columns = _COLUMNS[table]
    found = [Problem(f"{where}.{name}", "unknown column.") for name in row if name not in columns]
    for name, (column, types) in columns.items():
        value = row.get(name)
        if value is None:
            if not column.nullable:
                found.append(Problem(f"{where}.{name}", "missing."))
        elif not isinstance(value, types) or isinstance(value, bool):
            found.append(Problem(f"{where}.{name}", f"expected {column.type}, got {type(value).__name__}."))
        elif isinstance(value, datetime) and value.tzinfo is None:
            found.append(Problem(f"{where}.{name}", "the timestamp has no time zone."))
    return found
