"""A view's packed rows in a database, with the schemas they were written by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.errors import IntegrityError
from playbill_feast.online.backend import Backend, Batch
from playbill_feast.online.ragged import Ints
from playbill_feast.online.row_codec import Column, PackedRows, pack, unpack
from playbill_feast.online.row_layout import NEVER, Layout, PackedField, parse_layout


class Rows:
    """Packed rows of many views in one database.

    Args:
        backend: The database.
        name: What messages call it, such as a path or a host.
    """

    def __init__(self, backend: Backend, name: str) -> None:
        self.backend, self.name = backend, name
        self._layouts: dict[tuple[str, int], Layout] = {}

    def layout(self, view: str, schema_id: int) -> Layout:
        """Return a schema of a view by its id.

        Raises:
            IntegrityError: The database does not hold the schema.
        """
        found = self._layouts.get((view, schema_id))
        if found is not None:
            return found
        for number, text in self.backend.schemas(view).items():
            self._layouts[view, number] = parse_layout(text, f"{self.name}, view '{view}'")
        try:
            return self._layouts[view, schema_id]
        except KeyError:
            raise IntegrityError(
                f"{self.name}: rows of view '{view}' were written with schema {schema_id:08x}, which is not stored. "
                "Run `feast teardown`, then `feast apply` and `feast materialize`."
            ) from None

    def open(self, view: str, rows: Sequence[bytes | None], wanted: Sequence[PackedField]) -> PackedRows:
        """Open rows that were read from a view."""
        return unpack(rows, wanted, lambda schema_id: self.layout(view, schema_id), f"{self.name}, view '{view}'")


def batch_of(
    layout: Layout, keys: Sequence[bytes], columns: Mapping[str, Column], event_us: Ints, created_us: Ints | None
) -> Batch:
    """Pack N rows for writing, in the order of their keys: databases write neighbours faster.

    Rows of one key keep their order, so that of equal times the later row wins.
    """
    rows = pack(layout, columns, event_us, created_us)
    created = np.full(len(event_us), NEVER, np.int64) if created_us is None else created_us
    encoded = pa.array(keys, pa.binary())
    order = pc.array_sort_indices(encoded)
    return Batch(
        layout.schema_id,
        layout.text,
        encoded.take(order).to_pylist(),
        pa.array(rows, pa.large_binary()).take(order).to_pylist(),
        event_us[order.to_numpy()].tolist(),
        created[order.to_numpy()].tolist(),
    )
