"""Parquet files that are the same bytes for the same rows, and hashes of what rows say."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from playbill.datasets.export_manifest import FileRecord
from playbill.tables.generations import file_digest

ROW_GROUP = 131_072
_FIXED: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "row_group_size": ROW_GROUP,
    "use_dictionary": True,
    "write_statistics": True,
    "version": "2.6",
    "data_page_version": "1.0",
}
"""Every setting of the writer that decides bytes; what a later pyarrow changes is in the manifest as its version."""


def write_rows(frame: pl.DataFrame, folder: Path, path: str) -> FileRecord:
    """Write rows as one parquet file, in their order.

    Args:
        frame: Rows with a unique event_id.
        folder: Of the training set.
        path: Of the file in it.
    """
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    # One chunk: where chunks end depends on the threads that made them, and pages on the chunks.
    table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    pq.write_table(table, target, **_FIXED)
    return FileRecord(
        path=path,
        rows=frame.height,
        bytes=target.stat().st_size,
        sha256=file_digest(target),
        rows_sha256=rows_digest(frame),
    )


def rows_digest(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of what the rows say, whatever the order of rows and columns.

    Rows are put in the order of their event_id and columns in that of their names; each column is hashed as its
    name, type, which values are missing, and the values' bytes (little-endian; text as lengths and UTF-8).
    """
    ordered = frame.sort("event_id")
    total = hashlib.sha256(f"{frame.height}\n".encode())
    for name in sorted(ordered.columns):
        column = ordered.get_column(name)
        total.update(f"{name} {column.dtype}\n".encode())
        total.update(np.packbits(column.is_null().to_numpy()).tobytes())
        for array in _bytes(column):
            total.update(array)
    return total.hexdigest()


def _bytes(column: pl.Series) -> list[bytes]:
    kind = column.dtype
    if kind == pl.String:
        known = column.fill_null("")
        lengths = known.str.len_bytes().to_numpy().astype("<u4").tobytes()
        return [lengths, str(known.str.join("").item()).encode()]
    if kind.is_float():
        values = column.fill_null(0.0).fill_nan(float("nan")).to_numpy()
        # Adding zero makes -0.0 and 0.0, which are equal, the same bytes.
        values = values + values.dtype.type(0)
    else:
        values = column.to_physical().fill_null(0).to_numpy()
    return [values.astype(values.dtype.newbyteorder("<")).tobytes()]
