"""Stored columns from Arrow, and to Arrow, to the Python objects that Feast's responses hold, and to polars series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from playbill_feast.errors import Mistake, StoreDataError
from playbill_feast.online.row_codec import (
    Blobs,
    Bytes,
    Flags,
    Ints,
    PackedRows,
    StoredColumn,
    gather,
    interleave,
    packed_blobs,
    present_blobs,
    slices,
    spread,
)
from playbill_feast.online.row_layout import FIXED, NEVER, NO_TIME

_SCALAR_TYPES = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "time": pa.timestamp("us", "UTC"),
    "string": pa.large_string(),
    "bytes": pa.large_binary(),
    "proto": pa.large_binary(),
}
EVENT_TIME = "__event_timestamp"  # Column of event times: microseconds, UTC, null where an entity has no row


def item_kind(kind: str) -> str | None:
    """Return the kind of a list's items, None for a kind that is no list."""
    return kind[5:-1] if kind.startswith("list<") else None


def arrow_type(kind: str) -> pa.DataType:
    """Return the Arrow type of a stored kind, with 64-bit offsets."""
    item = item_kind(kind)
    return pa.large_list(_SCALAR_TYPES[item]) if item else _SCALAR_TYPES[kind]


def column_of(array: pa.Array | pa.ChunkedArray, kind: str, where: str) -> StoredColumn:
    """Turn an Arrow column into a stored one. A NaN stays a NaN.

    Raises:
        StoreDataError: The values do not fit the kind.
    """
    flat = _cast(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array, kind, where)
    valid = None if not flat.null_count else np.asarray(flat.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    if kind in FIXED:
        return StoredColumn(kind, _numbers(flat, kind), valid)
    item = item_kind(kind)
    if item is None:
        return StoredColumn(kind, _blobs(flat), valid)
    return StoredColumn(kind, _lists(flat, item, valid, where), valid)


def _cast(array: pa.Array, kind: str, where: str) -> pa.Array:
    target = arrow_type(kind)
    if array.type == target:
        return array
    try:
        if pa.types.is_floating(array.type) and kind in ("int32", "int64", "bool"):
            # Pandas has no null integers: it makes them floats, and nulls NaN.
            array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
        if kind == "time" and pa.types.is_timestamp(array.type):
            return _in_utc(array)
        return array.cast(target, safe=kind != "float32")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise StoreDataError("values to store", [Mistake(where, f"{array.type} is no {kind}: {reason}.")]) from None


def _in_utc(array: pa.Array) -> pa.Array:
    # A finer unit is cut to microseconds.
    plain = array.cast(pa.timestamp("us", array.type.tz), safe=False)
    return plain.cast(_SCALAR_TYPES["time"]) if array.type.tz else pc.assume_timezone(plain, "UTC")


def _numbers(array: pa.Array, kind: str) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    plain = array.cast(pa.int64()) if kind == "time" else array
    if plain.null_count:
        plain = plain.fill_null(False if kind == "bool" else 0)
    return np.asarray(plain.to_numpy(zero_copy_only=False)).astype(FIXED[kind], copy=False)


def _offsets(array: pa.Array) -> tuple[Ints, Ints]:
    """Return where each value of a large string, binary or list column starts, and its length."""
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(len(array), np.int64), np.zeros(len(array), np.int64)
    offsets = np.frombuffer(buffer, np.int64, len(array) + 1, array.offset * 8)
    return offsets[:-1], np.diff(offsets)


def _blobs(array: pa.Array) -> Blobs:
    starts, lengths = _offsets(array)
    buffer = array.buffers()[2]
    return Blobs(np.empty(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8), starts, lengths)


def _lists(array: pa.Array, item: str, valid: Flags | None, where: str) -> Blobs:
    starts, lengths = _offsets(array)
    if valid is not None:
        lengths = np.where(valid, lengths, 0)
    items = _without_nulls(array.values, item, starts, lengths, where)
    if item in FIXED:
        numbers = _numbers(items, item)
        width = numbers.dtype.itemsize
        return Blobs(np.ascontiguousarray(numbers).view(np.uint8), starts * width, lengths * width)
    return _nested(_blobs(items), starts, lengths)


def _without_nulls(items: pa.Array, kind: str, starts: Ints, lengths: Ints, where: str) -> pa.Array:
    """Fill nulls inside lists as Feast does: NaN, empty text, False, no time. It refuses whole numbers."""
    if not items.null_count:
        return items
    if kind in ("int32", "int64"):
        if items.take(pa.array(spread(starts, lengths))).null_count:
            raise StoreDataError("values to store", [Mistake(where, "a list of whole numbers has a null inside.")])
        return items.fill_null(0)
    if kind == "time":
        return items.cast(pa.int64()).fill_null(NO_TIME).cast(_SCALAR_TYPES["time"])
    filler = {"float32": float("nan"), "float64": float("nan"), "bool": False, "string": "", "bytes": b""}[kind]
    return items.fill_null(pa.scalar(filler, items.type))


def _nested(items: Blobs, starts: Ints, counts: Ints) -> Blobs:
    """Encode lists of texts: how many, where each ends, then their bytes."""
    taken = spread(starts, counts)
    inner = Blobs(items.data, items.starts[taken], items.lengths[taken])
    ends = np.cumsum(inner.lengths)
    first = np.cumsum(counts) - counts
    before = np.concatenate([[0], ends])
    bodies = before[first + counts] - before[first]
    heads = np.empty(len(taken) + len(counts), "<u4")
    at = first + np.arange(len(counts))
    heads[at] = counts
    rest = np.ones(len(heads), np.bool_)
    rest[at] = False
    heads[rest] = ends - np.repeat(before[first], counts)
    return interleave(packed_blobs(heads.view(np.uint8), 4 + 4 * counts), packed_blobs(gather(inner), bodies))


def opened_lists(column: StoredColumn, item: str) -> tuple[Ints, Bytes | Blobs]:
    """Return (N,) item counts of stored lists, and their items one after the other."""
    present = present_blobs(column)
    if item in FIXED:
        return present.lengths // np.dtype(FIXED[item]).itemsize, gather(present)
    counts = np.zeros(len(present.starts), np.int64)
    full = present.lengths > 0
    counts[full] = _words(present.data, present.starts[full], np.ones(int(full.sum()), np.int64))
    ends = _words(present.data, present.starts + 4, counts).astype(np.int64)
    first = np.cumsum(counts) - counts
    lengths = np.diff(ends, prepend=0)
    opening = first[counts > 0]
    lengths[opening] = ends[opening]
    bodies = np.repeat(present.starts + 4 + 4 * counts, counts)
    return counts, Blobs(present.data, bodies + ends - lengths, lengths)


def _words(data: Bytes, starts: Ints, counts: Ints) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.ascontiguousarray(gather(Blobs(data, starts, 4 * counts))).view("<u4")


def arrow_of(column: StoredColumn) -> pa.Array:
    """Turn a stored column into an Arrow array of `arrow_type(column.kind)`."""
    nulls = None if column.valid is None else ~column.valid
    if not isinstance(column.values, Blobs):
        return _arrow_numbers(column.values, column.kind, nulls)
    item = item_kind(column.kind)
    if item is None:
        return _arrow_blobs(present_blobs(column), column.kind, nulls)
    counts, items = opened_lists(column, item)
    if isinstance(items, Blobs):
        inner = _arrow_blobs(items, item, None)
    else:
        inner = _arrow_numbers(np.ascontiguousarray(items).view(FIXED[item]), item, None)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), inner, mask=None if nulls is None else pa.array(nulls)
    ).cast(arrow_type(column.kind))


def _arrow_numbers(values: np.ndarray[tuple[int], np.dtype[np.generic]], kind: str, nulls: Flags | None) -> pa.Array:
    plain = np.ascontiguousarray(values)
    if kind == "bool":
        return pa.array(plain.astype(np.bool_), mask=nulls)
    if kind == "time":
        absent = plain == NO_TIME if nulls is None else nulls
        return pa.array(plain, pa.int64(), mask=absent).cast(_SCALAR_TYPES["time"])
    return pa.array(plain, _SCALAR_TYPES[kind], mask=nulls)


def _arrow_blobs(blobs: Blobs, kind: str, nulls: Flags | None) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(blobs.lengths)]).astype(np.int64)
    data = np.ascontiguousarray(gather(blobs))
    valid = None if nulls is None else pa.array(~nulls).buffers()[1]
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(_SCALAR_TYPES[kind], len(blobs.starts), buffers)


def feature_table(rows: PackedRows, names: Sequence[str], alive: np.ndarray[Any, Any] | None) -> pa.Table:
    """Return the features as columns, then `__event_timestamp`. Rows that are not `alive` have nulls."""
    columns: dict[str, pa.Array] = {}
    for name, column in zip(names, rows.columns, strict=True):
        valid = column.valid
        if alive is not None:
            valid = alive if valid is None else valid & alive
        columns[name] = arrow_of(StoredColumn(column.kind, column.values, valid))
    times = pa.array(rows.event_us, pa.int64(), mask=rows.event_us == NEVER)
    columns[EVENT_TIME] = times.cast(pa.timestamp("us", "UTC"))
    return pa.table(columns)


_A_SECOND_US = 1_000_000


def python_values(column: StoredColumn) -> list[Any]:
    """Return values: None for nulls, float32 widened, times cut to whole seconds as Feast does, `proto` as bytes."""
    values = _all_values(column)
    if column.valid is not None:
        for row in np.flatnonzero(~column.valid).tolist():
            values[row] = None
    return values


def _all_values(column: StoredColumn) -> list[Any]:
    if not isinstance(column.values, Blobs):
        return _python_numbers(column.values, column.kind)
    item = item_kind(column.kind)
    if item is None:
        return _texts(present_blobs(column), column.kind)
    counts, items = opened_lists(column, item)
    if isinstance(items, Blobs):
        flat = _texts(items, item)
    else:
        flat = _python_numbers(np.ascontiguousarray(items).view(FIXED[item]), item)
    ends = np.concatenate([[0], np.cumsum(counts)]).tolist()
    return [flat[start:end] for start, end in pairwise(ends)]


def _python_numbers(values: np.ndarray[Any, Any], kind: str) -> list[Any]:
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


READABLE = frozenset({*FIXED, "string"})  # Kinds that `series_of` reads
_MOMENT = pl.Datetime("us", "UTC")


def series_of(name: str, column: StoredColumn, alive: Flags | None = None) -> pl.Series:
    """Return a stored column of a kind in `READABLE` under a name, null where it has no value or is not `alive`.

    Not by way of Arrow, which imports pandas to look at an array.
    """
    values, valid = column.values, column.valid
    if alive is not None:
        valid = alive if valid is None else valid & alive
    if isinstance(values, Blobs):
        texts = [text.decode() for text in slices(present_blobs(StoredColumn(column.kind, values, valid)))]
        there = [True] * len(texts) if valid is None else valid.tolist()
        return pl.Series(name, [text if own else None for text, own in zip(texts, there, strict=True)], pl.String)
    if column.kind == "time":
        valid = values != NO_TIME if valid is None else valid
    series = pl.Series(name, values.astype("bool") if column.kind == "bool" else values)
    if valid is not None and not valid.all():
        series.scatter(np.flatnonzero(~valid), None)
    return series.cast(_MOMENT) if column.kind == "time" else series


def moments_of(name: str, event_us: Ints) -> pl.Series:
    """Return event times, null where there is no row."""
    return series_of(name, StoredColumn("time", event_us, event_us != NEVER))
