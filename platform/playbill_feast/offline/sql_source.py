"""`SqlSource`: a Feast data source for a table or query of any database that SQLAlchemy knows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from feast import type_map
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.value_type import ValueType
from sqlalchemy.exc import ArgumentError

from playbill_feast.errors import StoreConfigError
from playbill_feast.frames import plain_arrow
from playbill_feast.offline.sql_reader import SqlRows, sql_schema

_SECRET = "SECRET"


class SqlSource(DataSource):  # type: ignore[misc]
    """Feature rows in a database.

    ```python
    SqlSource(url="postgresql+psycopg://reader:${PASSWORD}@db/features", table="taste", timestamp_field="at")
    ```

    The registry keeps the URL as it is written, so secrets stay in the environment.

    Args:
        url: SQLAlchemy URL; `${NAME}` is filled in from the environment when the database is opened.
        table: Table, or `schema.table`. Rows can be appended to it.
        query: A SELECT, instead of a table. It is read only.
        name: Of the source; the table's, or one made from the query, when left out.
        timestamp_field: Column with the event time.
        created_timestamp_column: Column that says when a row came to be known.
        field_mapping: Column -> feature name.

    Raises:
        StoreConfigError: Not exactly one of table and query is given, or the URL is malformed or relative.
    """

    def __init__(
        self,
        *,
        url: str,
        table: str | None = None,
        query: str | None = None,
        name: str | None = None,
        timestamp_field: str = "event_timestamp",
        created_timestamp_column: str = "",
        field_mapping: dict[str, str] | None = None,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
    ) -> None:
        if bool(table) == bool(query):
            raise StoreConfigError("a SqlSource needs either a table or a query")
        _check(url)
        self.url, self.table, self.query = url, table or "", (query or "").rstrip().rstrip(";")
        super().__init__(
            name=name or table or f"query_{sha256(self.query.encode()).hexdigest()[:12]}",
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
        )

    def __eq__(self, other: object) -> bool:
        mine = (self.url, self.table, self.query)
        return isinstance(other, SqlSource) and super().__eq__(other) and mine == (other.url, other.table, other.query)

    def __hash__(self) -> int:
        return hash((self.name, self.url, self.table, self.query))

    @property
    def rows(self) -> SqlRows:
        """Where the rows are."""
        times = tuple(filter(None, (self.timestamp_field, self.created_timestamp_column)))
        return SqlRows(self.url, self.table, self.query, times)

    def source_type(self) -> Any:
        """Return Feast's number for sources of outside packages."""
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> SqlSource:
        """Return the source that `to_proto` wrote."""
        options = json.loads(data_source.custom_options.configuration)
        return SqlSource(
            **options,
            name=data_source.name,
            timestamp_field=data_source.timestamp_field,
            created_timestamp_column=data_source.created_timestamp_column,
            field_mapping=dict(data_source.field_mapping),
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        settings = {"url": self.url, "table": self.table, "query": self.query}
        options = json.dumps({key: value for key, value in settings.items() if value}, sort_keys=True)
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{SqlSource.__module__}.{SqlSource.__qualname__}",
            custom_options=DataSourceProto.CustomSourceOptions(configuration=options.encode()),
            field_mapping=self.field_mapping,
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )

    def validate(self, config: RepoConfig) -> None:
        """Do nothing: the offline store checks its sources itself, all mistakes together."""

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Return how Feast reads the types of `get_table_column_names_and_types`."""
        convert: Callable[[str], ValueType] = type_map.pa_to_feast_value_type
        return convert

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """Return the columns and their Arrow types, as the offline store reads them."""
        arrow = plain_arrow(sql_schema(self.rows).to_frame()).schema
        return [(field.name, str(field.type)) for field in arrow]

    def get_table_query_string(self) -> str:
        """Return what can stand after FROM."""
        return f"({self.query})" if self.query else self.table


def _check(url: str) -> None:
    # A secret may hold any letter, but stands where none matters for the form.
    try:
        parsed = sa.make_url(re.sub(r"\$\{\w+\}", _SECRET, url))
    except ArgumentError as error:
        raise StoreConfigError(f"a SqlSource cannot use this url: {error}") from None
    relative = parsed.database and not parsed.database.startswith(("/", "file:", _SECRET))
    if parsed.get_backend_name() == "sqlite" and relative and parsed.database != ":memory:":
        raise StoreConfigError(f"a SqlSource needs an absolute path, as in sqlite:////{parsed.database}")
