"""Columns into packed rows and back, without a loop over cells: byte strings of many lengths lie in one buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from playbill_feast.errors import StoreIntegrityError
from playbill_feast.online.row_layout import FIXED, FORMAT_VERSION, NEVER, PackedField, RowLayout

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Blobs:
    """N byte strings inside one buffer. They may overlap, and stand in any order."""

    data: Bytes
    starts: Ints
    lengths: Ints


def spread(starts: Ints, lengths: Ints) -> Ints:
    """Return every index of N ranges, by first index and length (N,) of each, one range after the other."""
    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(total)


def gather(blobs: Blobs) -> Bytes:
    """Return the byte strings one after the other in a buffer of their own."""
    if not len(blobs.starts):
        return np.empty(0, np.uint8)
    ends = blobs.starts + blobs.lengths
    if (ends[:-1] == blobs.starts[1:]).all():
        return blobs.data[blobs.starts[0] : ends[-1]]
    return blobs.data[spread(blobs.starts, blobs.lengths)]


def packed_blobs(data: Bytes, lengths: Ints) -> Blobs:
    """Return byte strings that stand one after the other in `data`."""
    return Blobs(data, np.cumsum(lengths) - lengths, lengths)


def interleave(first: Blobs, second: Blobs) -> Blobs:
    """Return N byte strings, each of `first` followed by its neighbour of `second`."""
    lengths = first.lengths + second.lengths
    starts = np.cumsum(lengths) - lengths
    data = np.empty(int(lengths.sum()), np.uint8)
    data[spread(starts, first.lengths)] = gather(first)
    data[spread(starts + first.lengths, second.lengths)] = gather(second)
    return Blobs(data, starts, lengths)


def slices(blobs: Blobs) -> list[bytes]:
    """Return the byte strings as Python objects."""
    held = blobs.data.tobytes()
    ends = (blobs.starts + blobs.lengths).tolist()
    return [held[start:end] for start, end in zip(blobs.starts.tolist(), ends, strict=True)]


Flags = NDArray[np.bool_]
Layouts = Callable[[int], RowLayout]  # Schema id -> layout

_NO_BYTES = np.empty(0, np.uint8)
_CASTS = {("int32", "int64"), ("int32", "float64"), ("float32", "float64"), ("int64", "float64"), ("bool", "int64")}
_STAMP = 8  # Bytes of a row that say how to read it: version and schema


class StoredColumn(NamedTuple):
    """N values of one feature as they are stored: numbers, or encoded bytes for kinds of variable width."""

    kind: str
    values: NDArray[np.generic] | Blobs
    valid: Flags | None = None  # Which values are there, None for all of them


@dataclass(frozen=True, slots=True)
class PackedRows:
    """N requested rows, opened."""

    found: Flags  # Which entities have a row
    event_us: Ints  # Event time in microseconds since 1970, `NEVER` where there is no row
    columns: list[StoredColumn]  # In the order of the requested fields


def pack(
    layout: RowLayout, columns: Mapping[str, StoredColumn], event_us: Ints, created_us: Ints | None
) -> list[bytes]:
    """Pack N rows: a column per field of the layout, and (N,) event and created times (None = none) in microseconds."""
    count = len(event_us)
    head = np.zeros(count, layout.dtype)
    head["version"], head["schema"] = FORMAT_VERSION, layout.schema_id
    head["event"], head["created"] = event_us, NEVER if created_us is None else created_us
    for field in layout.fixed:
        head[f"f:{field.name}"] = columns[field.name].values
    if layout.fields:
        head["valid"] = _validity(layout, columns, count)
    if not layout.variable:
        rows: list[bytes] = head.view(f"V{layout.size}").tolist()
        return rows
    return slices(_with_variable(layout, columns, head))


def _validity(layout: RowLayout, columns: Mapping[str, StoredColumn], count: int) -> Bytes:
    flags = np.ones((count, len(layout.fields)), np.bool_)
    for number, field in enumerate(layout.fields):
        if (valid := columns[field.name].valid) is not None:
            flags[:, number] = valid
    return np.packbits(flags, axis=1, bitorder="little")


def _with_variable(layout: RowLayout, columns: Mapping[str, StoredColumn], head: NDArray[np.void]) -> Blobs:
    parts = [present_blobs(columns[field.name]) for field in layout.variable]
    ends = layout.size + np.cumsum(np.stack([part.lengths for part in parts], axis=1), axis=1)
    head["ends"] = ends
    lengths = ends[:, -1]
    starts = np.cumsum(lengths) - lengths
    data = np.empty(int(lengths.sum()), np.uint8)
    fixed = head.view(np.uint8).reshape(len(head), layout.size)
    data[starts[:, None] + np.arange(layout.size)] = fixed
    for number, part in enumerate(parts):
        data[spread(starts + ends[:, number] - part.lengths, part.lengths)] = part.data[
            spread(part.starts, part.lengths)
        ]
    return Blobs(data, starts, lengths)


def present_blobs(column: StoredColumn) -> Blobs:
    """Return a column's bytes, those of nulls empty."""
    blobs = column.values
    assert isinstance(blobs, Blobs)
    if column.valid is None:
        return blobs
    return Blobs(blobs.data, blobs.starts, np.where(column.valid, blobs.lengths, 0))


def unpack(rows: Sequence[bytes | None], fields: Sequence[PackedField], layouts: Layouts, where: str) -> PackedRows:
    """Open packed rows, each by the schema it was written with; None where an entity has no row.

    A feature that a row's schema lacks is null in that row. One whose kind changed since is widened where numbers allow
    it, and null otherwise: it counts as removed and added anew.

    Raises:
        StoreIntegrityError: A row is damaged or of another format.
    """
    there = [row for row in rows if row is not None]
    found = np.ones(len(rows), np.bool_)
    if len(there) != len(rows):
        found[[number for number, row in enumerate(rows) if row is None]] = False
    opened = _ColumnFiller(len(rows), fields)
    for head, part, at in _groups(there, found):
        opened.fill(_SchemaGroup(layouts(_schema_id(head, where)), part, where), at)
    return PackedRows(found, opened.event_us, opened.columns())


def _groups(there: list[bytes], found: Flags) -> Iterator[tuple[bytes, list[bytes], Ints | None]]:
    """Return rows by what they begin with, version and schema, and where each stands; None for everywhere."""
    heads = {row[:_STAMP] for row in there}
    if len(heads) == 1 and len(there) == len(found):
        yield heads.pop(), there, None
        return
    at = np.flatnonzero(found)
    for head in sorted(heads):
        chosen = [number for number, row in enumerate(there) if row.startswith(head)]
        yield head, [there[number] for number in chosen], at[chosen]


def _schema_id(head: bytes, where: str) -> int:
    if len(head) < _STAMP or head[0] != FORMAT_VERSION:
        raise StoreIntegrityError(
            f"{where}: stored rows are damaged or of another format (this version reads format {FORMAT_VERSION}). "
            "Remove the store and materialize again."
        )
    return int.from_bytes(head[4:_STAMP], "little")


class _SchemaGroup:
    """Rows of one schema, still inside the joined buffer."""

    def __init__(self, layout: RowLayout, rows: list[bytes], where: str) -> None:
        self.layout = layout
        sizes = set(map(len, rows))
        if min(sizes) < layout.size or (not layout.variable and sizes != {layout.size}):
            raise StoreIntegrityError(f"{where}: stored rows are cut short. Remove the store and materialize again.")
        self.joined = np.frombuffer(b"".join(rows), np.uint8)
        if layout.variable:
            self._open_variable(rows, where)
        else:
            self.head = self.joined.view(layout.dtype)
        self.flags = self._flags()

    def _open_variable(self, rows: list[bytes], where: str) -> None:
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        self.starts = np.cumsum(lengths) - lengths
        taken = self.joined[self.starts[:, None] + np.arange(self.layout.size)]
        self.head = taken.view(self.layout.dtype).ravel()
        if (self.head["ends"][:, -1] != lengths).any():
            raise StoreIntegrityError(f"{where}: stored rows are cut short. Remove the store and materialize again.")

    def _flags(self) -> Flags | None:
        """Return (N, fields) validity, or None when everything is there."""
        count = len(self.layout.fields)
        if not count:
            return None
        stored = self.head["valid"]
        if stored.tobytes() == self.layout.all_valid * len(stored):
            return None
        return np.unpackbits(stored, axis=1, count=count, bitorder="little").astype(np.bool_)

    def valid(self, name: str) -> Flags | None:
        return None if self.flags is None else self.flags[:, self.layout.position[name]]

    def blobs(self, name: str) -> tuple[Ints, Ints]:
        number = [field.name for field in self.layout.variable].index(name)
        ends = self.head["ends"]
        end = ends[:, number].astype(np.int64)
        start = ends[:, number - 1].astype(np.int64) if number else np.full(len(ends), self.layout.size)
        return self.starts + start, end - start


class _ColumnFiller:
    """Columns being filled, group by group."""

    def __init__(self, count: int, fields: Sequence[PackedField]) -> None:
        self.count, self.fields = count, fields
        self.event_us = np.full(count, NEVER, np.int64)
        self._columns: list[StoredColumn | None] = [None] * len(fields)

    def fill(self, group: _SchemaGroup, at: Ints | None) -> None:
        if at is None:
            self.event_us = group.head["event"]
        else:
            self.event_us[at] = group.head["event"]
        kinds = group.layout.kinds
        for number, field in enumerate(self.fields):
            kind = kinds.get(field.name)
            if kind is None or (kind != field.kind and (kind, field.kind) not in _CASTS):
                continue
            if at is None:
                self._columns[number] = self._whole(group, field, kind)
            else:
                self._columns[number] = self._part(group, field, at, self._columns[number])

    def _whole(self, group: _SchemaGroup, field: PackedField, kind: str) -> StoredColumn:
        if field.kind in FIXED:
            values = group.head[f"f:{field.name}"]
            cast = values if kind == field.kind else values.astype(FIXED[field.kind])
            return StoredColumn(field.kind, cast, group.valid(field.name))
        return StoredColumn(field.kind, Blobs(group.joined, *group.blobs(field.name)), group.valid(field.name))

    def _part(self, group: _SchemaGroup, field: PackedField, at: Ints, before: StoredColumn | None) -> StoredColumn:
        column = before or self._nothing(field)
        assert column.valid is not None
        valid = group.valid(field.name)
        column.valid[at] = True if valid is None else valid
        if isinstance(column.values, Blobs):
            starts, lengths = group.blobs(field.name)
            column.values.starts[at], column.values.lengths[at] = starts, lengths
            return StoredColumn(
                field.kind, Blobs(group.joined, column.values.starts, column.values.lengths), column.valid
            )
        column.values[at] = group.head[f"f:{field.name}"]
        return column

    def _nothing(self, field: PackedField) -> StoredColumn:
        nowhere = np.zeros(self.count, np.bool_)
        if field.kind in FIXED:
            return StoredColumn(field.kind, np.zeros(self.count, FIXED[field.kind]), nowhere)
        empty = Blobs(_NO_BYTES, np.zeros(self.count, np.int64), np.zeros(self.count, np.int64))
        return StoredColumn(field.kind, empty, nowhere)

    def columns(self) -> list[StoredColumn]:
        return [
            column if column is not None else self._nothing(field)
            for field, column in zip(self.fields, self._columns, strict=True)
        ]
