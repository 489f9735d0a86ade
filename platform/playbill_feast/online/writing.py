"""Rows to write, from Arrow tables and from Feast's protobufs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from playbill.errors import DataError, Problem
from playbill_feast.online.backend import Batch
from playbill_feast.online.columns import column_of
from playbill_feast.online.entity_keys import keys_of_arrow
from playbill_feast.online.feast_values import (
    column_of_protos,
    column_of_rare,
    key_kinds,
    keys_of_protos,
    kind_of,
    view_fields,
    view_layout,
)
from playbill_feast.online.ragged import Ints
from playbill_feast.online.row_codec import Column
from playbill_feast.online.row_layout import NEVER
from playbill_feast.online.rows import batch_of

_LOG = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_A_MICROSECOND = timedelta(microseconds=1)
_ROWS_PER_BATCH = 200_000
"""Packed at a time: a hundred bytes of Python objects per row beside the row itself."""
FeastRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


def batches_of_arrow(view: Any, table: pa.Table) -> Iterator[Batch]:
    """Pack a table with a view's join keys, features and times, named as the view names them, in parts.

    As in Feast, a NaN among numbers counts as null. Rows whose key has a null cannot be asked for and are left out.

    Raises:
        DataError: Columns are missing, at once; while packing, they are of another type, or a row has no event
            time. Every mistake is named.
    """
    _require_columns(view, table)
    return (_batch(view, table.slice(start, _ROWS_PER_BATCH)) for start in range(0, table.num_rows, _ROWS_PER_BATCH))


def _batch(view: Any, table: pa.Table) -> Batch:
    keys = keys_of_arrow(key_kinds(view), table)
    if None in keys:
        kept = np.array([key is not None for key in keys])
        _LOG.warning("view '%s': %d rows without a complete key are left out", view.name, int((~kept).sum()))
        table = table.filter(pa.array(kept))
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
    wanted = [*view_fields(view), *(name for name, _ in key_kinds(view)), at]
    absent = [name for name in wanted if name not in table.column_names]
    if absent:
        problems = [Problem(name, "column is missing.") for name in absent]
        raise DataError(f"rows of feature view '{view.name}'", problems)


def times_us(column: pa.ChunkedArray, name: str, view: str, missing: int | None = None) -> Ints:
    """Return a time column as microseconds since 1970; a time without a zone is UTC.

    Raises:
        DataError: A time is null and `missing` is not given, or the column holds no times.
    """
    stored = column_of(column, "time", f"{view}.{name}")
    times: Ints = np.asarray(stored.values)
    if stored.valid is None:
        return times
    if missing is None:
        count = int((~stored.valid).sum())
        raise DataError(f"rows of feature view '{view}'", [Problem(name, f"{count} rows have no time.")])
    return np.where(stored.valid, times, missing)


def _columns(view: Any, table: pa.Table) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    problems: list[Problem] = []
    for name, value_type in view_fields(view).items():
        try:
            columns[name] = _column(table.column(name), value_type, name)
        except DataError as error:
            problems.extend(error.problems)
    if problems:
        raise DataError(f"rows of feature view '{view.name}'", problems)
    return columns


def _column(array: pa.ChunkedArray, value_type: ValueType, where: str) -> Column:
    kind = kind_of(value_type)
    if kind == "proto":
        return column_of_rare(array, value_type, where)
    stored = column_of(array, kind, where)
    if kind not in ("float32", "float64"):
        return stored
    numbers = np.isnan(np.asarray(stored.values, np.float64))
    if not numbers.any():
        return stored
    return Column(kind, stored.values, ~numbers if stored.valid is None else stored.valid & ~numbers)


def batch_of_protos(view: Any, rows: Sequence[FeastRow]) -> Batch:
    """Pack rows as Feast hands them to a store. A feature that a row lacks is null.

    Raises:
        DataError: A key or a value does not fit the view.
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
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // _A_MICROSECOND


def moment_of(event_us: int) -> datetime:
    """Return microseconds since 1970 as a moment in UTC."""
    return _EPOCH + event_us * _A_MICROSECOND


class Counted:
    """Batches, and how many rows they had once they have passed."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches
        self.rows = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            self.rows += len(batch.keys)
            yield batch
