"""A feature view in a database: rows written from Arrow tables and protobufs, and read as protobufs and tables."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from playbill_feast.errors import Mistake, StoreDataError, suggestion
from playbill_feast.frames import as_utc
from playbill_feast.online.backend import PackedDatabase, ReadRequest, RowBatch, batch_of
from playbill_feast.online.columns import column_of, feature_table
from playbill_feast.online.entity_keys import KeyKinds, keys_of_arrow
from playbill_feast.online.feast_values import (
    column_of_protos,
    column_of_rare,
    key_kinds,
    keys_of_protos,
    kind_of,
    protos_of,
    view_fields,
    view_layout,
)
from playbill_feast.online.row_codec import Flags, Ints, PackedRows, StoredColumn
from playbill_feast.online.row_layout import NEVER, PackedField


def fields_of(view: Any, features: Sequence[str]) -> tuple[PackedField, ...]:
    """Return some features of a view as they are stored.

    Raises:
        StoreDataError: The view has no such feature; all are named.
    """
    types = view_fields(view)
    problems = [
        Mistake(name, "is no feature of the view.", suggestion(name, types)) for name in features if name not in types
    ]
    if problems:
        raise StoreDataError(f"feature view '{view.name}'", problems)
    return tuple(PackedField(name, kind_of(types[name])) for name in features)


def keys_of_frame(view: Any, keys: pa.Table | pl.DataFrame) -> list[bytes | None]:
    """Encode the keys of a frame's rows; a null anywhere has no key."""
    table = keys.to_arrow() if isinstance(keys, pl.DataFrame) else keys
    kinds = key_kinds(view)
    # A view without entities has one row, whatever the keys.
    return keys_of_arrow(kinds, table) if kinds else [b""] * table.num_rows


def feature_frame(rows: PackedRows, names: Sequence[str], alive: np.ndarray[Any, Any] | None) -> pl.DataFrame:
    """Return the same as a frame."""
    return pl.DataFrame(pl.from_arrow(feature_table(rows, names, alive)))


_LOG = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_A_MICROSECOND = timedelta(microseconds=1)
_ROWS_PER_BATCH = 200_000  # Packed at a time: a hundred bytes of Python objects per row beside the row itself
FeastRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


def batches_of_arrow(view: Any, table: pa.Table) -> Iterator[RowBatch]:
    """Pack a table with a view's join keys, features and times, named as the view names them, in parts.

    As in Feast, a NaN among numbers counts as null. Rows whose key has a null cannot be read again and are left out.

    Raises:
        StoreDataError: Columns are missing, at once; while packing, they are of another type, or a row has no event
            time. Every mistake is named.
    """
    _require_columns(view, table)
    return (_batch(view, table.slice(start, _ROWS_PER_BATCH)) for start in range(0, table.num_rows, _ROWS_PER_BATCH))


def _batch(view: Any, table: pa.Table) -> RowBatch:
    keys = keys_of_arrow(key_kinds(view), table)
    if None in keys:
        complete = np.array([key is not None for key in keys])
        _LOG.warning("view '%s': %d rows without a complete key are left out", view.name, int((~complete).sum()))
        table = table.filter(pa.array(complete))
    at, created = _time_columns(view)
    event_us = times_us(table.column(at), at, view.name)
    created_us = None
    if created is not None and created in table.column_names:
        created_us = times_us(table.column(created), created, view.name, missing=NEVER)
    there = [key for key in keys if key is not None]
    return batch_of(view_layout(view), there, _columns(view, table), event_us, created_us)


def _time_columns(view: Any) -> tuple[str, str | None]:
    source = view.batch_source
    if source is None:
        return "event_timestamp", None
    mapping = source.field_mapping or {}
    at, created = source.timestamp_field, source.created_timestamp_column or None
    return mapping.get(at, at), created and mapping.get(created, created)


def _require_columns(view: Any, table: pa.Table) -> None:
    at, _ = _time_columns(view)
    required = [*view_fields(view), *(name for name, _ in key_kinds(view)), at]
    absent = [name for name in required if name not in table.column_names]
    if absent:
        problems = [Mistake(name, "column is missing.") for name in absent]
        raise StoreDataError(f"rows of feature view '{view.name}'", problems)


def times_us(column: pa.ChunkedArray, name: str, view: str, missing: int | None = None) -> Ints:
    """Return a time column as microseconds since 1970; a time without a zone is UTC.

    Raises:
        StoreDataError: A time is null and `missing` is not given, or the column holds no times.
    """
    stored = column_of(column, "time", f"{view}.{name}")
    times: Ints = np.asarray(stored.values)
    if stored.valid is None:
        return times
    if missing is None:
        count = int((~stored.valid).sum())
        raise StoreDataError(f"rows of feature view '{view}'", [Mistake(name, f"{count} rows have no time.")])
    return np.where(stored.valid, times, missing)


def _columns(view: Any, table: pa.Table) -> dict[str, StoredColumn]:
    columns: dict[str, StoredColumn] = {}
    problems: list[Mistake] = []
    for name, value_type in view_fields(view).items():
        try:
            columns[name] = _column(table.column(name), value_type, name)
        except StoreDataError as error:
            problems.extend(error.problems)
    if problems:
        raise StoreDataError(f"rows of feature view '{view.name}'", problems)
    return columns


def _column(array: pa.ChunkedArray, value_type: ValueType, where: str) -> StoredColumn:
    kind = kind_of(value_type)
    if kind == "proto":
        return column_of_rare(array, value_type, where)
    stored = column_of(array, kind, where)
    if kind not in ("float32", "float64"):
        return stored
    numbers = np.isnan(np.asarray(stored.values, np.float64))
    if not numbers.any():
        return stored
    return StoredColumn(kind, stored.values, ~numbers if stored.valid is None else stored.valid & ~numbers)


def batch_of_protos(view: Any, rows: Sequence[FeastRow]) -> RowBatch:
    """Pack rows as Feast hands them to a store. A feature that a row lacks is null.

    Raises:
        StoreDataError: A key or a value does not fit the view.
    """
    keys = keys_of_protos(key_kinds(view), [row[0] for row in rows])
    if None in keys:
        count = sum(key is None for key in keys)
        _LOG.warning("view '%s': %d rows without a complete key are left out", view.name, count)
        rows = [row for row, key in zip(rows, keys, strict=True) if key is not None]
    columns = {
        name: column_of_protos([row[1].get(name) for row in rows], kind_of(value_type), f"{view.name}.{name}")
        for name, value_type in view_fields(view).items()
    }
    event_us = np.array([moment_us(row[2]) for row in rows], np.int64)
    created_us = np.array([NEVER if row[3] is None else moment_us(row[3]) for row in rows], np.int64)
    return batch_of(view_layout(view), [key for key in keys if key is not None], columns, event_us, created_us)


def moment_us(moment: datetime) -> int:
    """Return microseconds since 1970; a time without a zone is UTC."""
    return (as_utc(moment) - _EPOCH) // _A_MICROSECOND


def moment_of(event_us: int) -> datetime:
    """Return microseconds since 1970 as a moment in UTC."""
    return _EPOCH + event_us * _A_MICROSECOND


class CountedBatches:
    """Batches, and how many rows they had once they have passed."""

    def __init__(self, batches: Iterable[RowBatch]) -> None:
        self._batches = batches
        self.rows = 0

    def __iter__(self) -> Iterator[RowBatch]:
        for batch in self._batches:
            self.rows += len(batch.keys)
            yield batch


StoredRow = tuple[datetime | None, dict[str, Value] | None]


def stored_name(project: str, view: Any) -> str:
    """Return a view's name in the database."""
    return f"{project}/{view.name}"


def ttl_us_of(view: Any) -> int | None:
    """Return a view's ttl in microseconds, None for no limit. An on-demand view has none."""
    ttl = getattr(view, "ttl", None)
    return ttl // _A_MICROSECOND if ttl else None


def past_ttl(event_us: Ints, ttl_us: int | None, now_us: int | None) -> Flags | None:
    """Return which rows are older than the ttl at a moment, None for none of them. An age of exactly ttl is alive."""
    if ttl_us is None or now_us is None:
        return None
    expired: Flags = (event_us < now_us - ttl_us) & (event_us != NEVER)
    return expired if expired.any() else None


class StoredView:
    """A feature view, its stored rows, and the moment `now_us` that ages are counted to; None enforces no ttl."""

    def __init__(self, rows: PackedDatabase, project: str, view: Any, now_us: int | None) -> None:
        self.rows, self.view, self.now_us = rows, view, now_us
        self.name = stored_name(project, view)

    @cached_property
    def kinds(self) -> KeyKinds:
        """Join keys and their kinds."""
        return key_kinds(self.view)

    def expired(self, event_us: Ints) -> Flags | None:
        """Return which rows are past the ttl, None for none of them."""
        return past_ttl(event_us, ttl_us_of(self.view), self.now_us)

    def read_request(self, entity_keys: Sequence[EntityKey]) -> ReadRequest:
        """Return what to read for Feast's entity keys."""
        return ReadRequest(self.name, keys_of_protos(self.kinds, entity_keys))

    def protos(self, packed: Sequence[bytes | None], features: Sequence[str] | None) -> list[StoredRow]:
        """Open rows as Feast's protobufs: time and values. A row past its ttl has its time and no values."""
        stored = view_fields(self.view)
        names = [name for name in (features or stored) if name in stored]
        rows = self.rows.open(self.name, packed, fields_of(self.view, names))
        expired = self.expired(rows.event_us)
        alive = rows.found if expired is None else rows.found & ~expired
        values = zip(*map(protos_of, rows.columns), strict=True) if names else [()] * len(packed)
        moments = map(moment_of, np.where(rows.found, rows.event_us, 0).tolist())
        return [
            (moment if there else None, dict(zip(names, row, strict=True)) if fresh else None)
            for moment, there, fresh, row in zip(moments, rows.found.tolist(), alive.tolist(), values, strict=True)
        ]

    def table(self, keys: pa.Table | pl.DataFrame, features: Sequence[str]) -> pa.Table:
        """Read features by columns, a row per row of `keys`."""
        fields = fields_of(self.view, features)
        (packed,) = self.rows.backend.read([ReadRequest(self.name, keys_of_frame(self.view, keys))])
        rows = self.rows.open(self.name, packed, fields)
        expired = self.expired(rows.event_us)
        return feature_table(rows, features, None if expired is None else ~expired)
