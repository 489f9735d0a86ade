"""Parquet files that are the same bytes for the same rows, and hashes of what rows say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.datasets.export.manifest import FileRecord
from playbill.files import file_digest

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
    pq.write_table(_table(frame), target, **_FIXED)
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
    ordered = frame.select(sorted(frame.columns)).sort("event_id")
    total = hashlib.sha256(f"{frame.height}\n".encode())
    # Arrow from here on: a polars call per column and part costs ten times the hashing.
    for name, kind, column in zip(ordered.columns, ordered.dtypes, _table(ordered).columns, strict=True):
        array = column.combine_chunks()
        total.update(f"{name} {kind}\n".encode())
        total.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)).tobytes())
        for values in _text(array) if kind == pl.String else _numbers(array):
            total.update(values)
    return total.hexdigest()


def _table(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _text(array: pa.Array) -> Iterator[bytes]:
    known = array.fill_null("")
    ends = np.frombuffer(known.buffers()[1], "<i8")[known.offset : known.offset + len(known) + 1]
    yield np.diff(ends).tobytes()
    if content := known.buffers()[2]:
        yield memoryview(content)[ends[0] : ends[-1]].tobytes()


def _numbers(array: pa.Array) -> Iterator[bytes]:
    if pa.types.is_temporal(array.type):
        array = array.view(pa.int64() if array.type.bit_width == 64 else pa.int32())
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(array.type):
        # Adding zero makes -0.0 and 0.0, which are equal, the same bytes; so does one kind of nan.
        values = np.where(np.isnan(values), np.nan, values + values.dtype.type(0)).astype(values.dtype)
    yield values.astype(values.dtype.newbyteorder("<")).tobytes()
