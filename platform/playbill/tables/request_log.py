"""The request log: what was asked and what was answered, written in one transaction per request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
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
    sql_columns,
    sql_frame,
    sql_row,
)

_metadata = sa.MetaData()
_requests = sa.Table("requests", _metadata, *sql_columns("requests"), sa.PrimaryKeyConstraint(*REQUESTS.key))
_slates = sa.Table("slates", _metadata, *sql_columns("slates"), sa.PrimaryKeyConstraint(*SLATES.key))


class RequestLog:
    """Requests and their slates.

    Args:
        database_url: `Workspace.database_url`.

    Raises:
        ConfigError: The URL cannot be used.
        ServiceError: The database does not answer.
    """

    def __init__(self, database_url: str) -> None:
        self._engine = open_database(database_url)
        create_tables(self._engine, _metadata)

    def write(self, request: Mapping[str, Any], slates: Sequence[Mapping[str, Any]]) -> None:
        """Commit a request with everything it was answered. Writing it again changes nothing.

        Args:
            request: One row of `requests`.
            slates: Its rows of `slates`; `request_id` may be left out.

        Raises:
            DataError: Columns are missing, unknown, or of the wrong type; nothing is written.
            ServiceError: The database does not answer.
        """
        shown = [{"request_id": request.get("request_id"), **slate} for slate in slates]
        problems = _problems("requests", "request", request)
        for index, slate in enumerate(shown):
            problems += _problems("slates", f"slates[{index}]", slate)
            if slate["request_id"] != request.get("request_id"):
                problems.append(Problem(f"slates[{index}].request_id", "differs from the request's."))
        if problems:
            raise DataError("the request was not logged", problems)
        with database_errors(self._engine), self._engine.begin() as connection:
            if insert_new(connection, _requests, [sql_row("requests", request)], REQUESTS.key):
                insert_new(connection, _slates, [sql_row("slates", slate) for slate in shown], SLATES.key)

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


def _problems(table: str, where: str, row: Mapping[str, Any]) -> list[Problem]:
    names = TABLES[table].names()
    found = [Problem(f"{where}.{name}", "unknown column.") for name in row if name not in names]
    for column in TABLES[table].columns:
        value, place = row.get(column.name), f"{where}.{column.name}"
        if value is None:
            if not column.nullable:
                found.append(Problem(place, "missing."))
        elif not isinstance(value, _VALUES[column.type]) or isinstance(value, bool):
            found.append(Problem(place, f"expected {column.type}, got {type(value).__name__}."))
        elif isinstance(value, datetime) and value.tzinfo is None:
            found.append(Problem(place, "the timestamp has no time zone."))
    return found
