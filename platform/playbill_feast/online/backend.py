"""What the packed store needs of a database, and a view's rows in it with the schemas they were written by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill_feast.errors import StoreIntegrityError
from playbill_feast.online.row_codec import Ints, PackedRows, StoredColumn, pack, unpack
from playbill_feast.online.row_layout import NEVER, PackedField, RowLayout, parse_layout

WriteProgress = Callable[[int], object]  # Called with the number of rows written since its last call


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Rows to read of one view. A key of None has no row."""

    view: str
    keys: Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class RowBatch:
    """N packed rows to write, their schema, and the times that decide which rows stay."""

    schema_id: int
    schema: str
    keys: Sequence[bytes]
    rows: Sequence[bytes]
    event_us: Sequence[int]
    created_us: Sequence[int]

    def part(self, start: int, stop: int) -> RowBatch:
        """Return some consecutive rows."""
        chosen = slice(start, stop)
        return replace(
            self,
            keys=self.keys[chosen],
            rows=self.rows[chosen],
            event_us=self.event_us[chosen],
            created_us=self.created_us[chosen],
        )


class Backend(Protocol):
    """A database of packed rows. Views are named within a project.

    Of two rows of one key, the one with the later event time stays; of equal event times the one created later; of
    equal created times the one written later.
    """

    def create(self, view: str) -> None:
        """Make a place for a view, if there is none."""
        ...

    def drop(self, view: str) -> None:
        """Remove a view's rows and schemas, and nothing else."""
        ...

    def read(self, requests: Sequence[ReadRequest]) -> list[list[bytes | None]]:
        """Read the rows of several views in one round trip, aligned to the requested keys."""
        ...

    async def read_async(self, requests: Sequence[ReadRequest]) -> list[list[bytes | None]]:
        """Do the same without blocking the event loop."""
        ...

    def write(self, view: str, batches: Iterable[RowBatch], progress: WriteProgress | None) -> None:
        """Write rows and their schema, each row only where it is not older than what is there."""
        ...

    async def write_async(self, view: str, batches: Iterable[RowBatch], progress: WriteProgress | None) -> None:
        """Do the same without blocking the event loop."""
        ...

    def schemas(self, view: str) -> dict[int, str]:
        """Return the schemas that the rows of a view were written with."""
        ...

    def scan(self, view: str) -> tuple[list[bytes], list[bytes]]:
        """Return every key and row of a view."""
        ...

    def version(self, view: str) -> object:
        """Return something that differs after a view's rows were written to, by any process."""
        ...

    async def close_async(self) -> None:
        """Close what belongs to the running event loop. The database stays usable."""
        ...

    def close(self) -> None:
        """Close this thread's connection."""
        ...


class PackedDatabase:
    """Packed rows of many views in one database, which messages call by `name`, such as a path or a host."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.backend, self.name = backend, name
        self._layouts: dict[tuple[str, int], RowLayout] = {}

    def layout(self, view: str, schema_id: int) -> RowLayout:
        """Return a schema of a view by its id.

        Raises:
            StoreIntegrityError: The database does not hold the schema.
        """
        known = self._layouts.get((view, schema_id))
        if known is not None:
            return known
        for number, text in self.backend.schemas(view).items():
            self._layouts[view, number] = parse_layout(text, f"{self.name}, view '{view}'")
        try:
            return self._layouts[view, schema_id]
        except KeyError:
            raise StoreIntegrityError(
                f"{self.name}: rows of view '{view}' were written with schema {schema_id:08x}, which is not stored. "
                "Run `feast teardown`, then `feast apply` and `feast materialize`."
            ) from None

    def open(self, view: str, rows: Sequence[bytes | None], fields: Sequence[PackedField]) -> PackedRows:
        """Open rows that were read from a view."""
        return unpack(rows, fields, lambda schema_id: self.layout(view, schema_id), f"{self.name}, view '{view}'")


def batch_of(
    layout: RowLayout,
    keys: Sequence[bytes],
    columns: Mapping[str, StoredColumn],
    event_us: Ints,
    created_us: Ints | None,
) -> RowBatch:
    """Pack N rows for writing, in the order of their keys: databases write neighbours faster.

    Rows of one key keep their order, so that of equal times the later row wins.
    """
    rows = pack(layout, columns, event_us, created_us)
    created = np.full(len(event_us), NEVER, np.int64) if created_us is None else created_us
    encoded = pa.array(keys, pa.binary())
    order = pc.array_sort_indices(encoded)
    return RowBatch(
        layout.schema_id,
        layout.text,
        encoded.take(order).to_pylist(),
        pa.array(rows, pa.large_binary()).take(order).to_pylist(),
        event_us[order.to_numpy()].tolist(),
        created[order.to_numpy()].tolist(),
    )
