"""Stored columns as the Python objects that Feast's answers hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np

from playbill_feast.online.columns import item_kind, opened_lists
from playbill_feast.online.ragged import Blobs, slices
from playbill_feast.online.row_codec import Column
from playbill_feast.online.row_layout import FIXED, NO_TIME

_A_SECOND_US = 1_000_000


def python_values(column: Column) -> list[Any]:
    """Return a column's values: None for nulls, float32 widened, times cut to whole seconds as Feast cuts them.

    Values of the kind `proto` stay bytes.
    """
    values = _all_values(column)
    if column.valid is not None:
        for row in np.flatnonzero(~column.valid).tolist():
            values[row] = None
    return values


def _all_values(column: Column) -> list[Any]:
    if not isinstance(column.values, Blobs):
        return _numbers(column.values, column.kind)
    item = item_kind(column.kind)
    if item is None:
        return _texts(column.values if column.valid is None else _present(column), column.kind)
    counts, items = opened_lists(column.values, item, column.valid)
    if isinstance(items, Blobs):
        flat = _texts(items, item)
    else:
        flat = _numbers(np.ascontiguousarray(items).view(FIXED[item]), item)
    ends = np.concatenate([[0], np.cumsum(counts)]).tolist()
    return [flat[start:end] for start, end in pairwise(ends)]


def _present(column: Column) -> Blobs:
    assert isinstance(column.values, Blobs)
    assert column.valid is not None
    return Blobs(column.values.data, column.values.starts, np.where(column.valid, column.values.lengths, 0))


def _numbers(values: np.ndarray[Any, Any], kind: str) -> list[Any]:
    if kind == "bool":
        return list(values.astype(np.bool_).tolist())
    if kind != "time":
        return list(values.tolist())
    seconds = (values // _A_SECOND_US).tolist()
    nothing = NO_TIME // _A_SECOND_US
    return [None if second == nothing else datetime.fromtimestamp(second, UTC) for second in seconds]


def _texts(blobs: Blobs, kind: str) -> list[Any]:
    decode: Callable[[bytes], str] = bytes.decode
    return list(map(decode, slices(blobs))) if kind == "string" else list(slices(blobs))
