"""The largest entries of sparse rows, which is what tables of titles keep of [T, T] numbers.

Axis letters: R rows, P entries, J kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from playbill.arrays import Floats32, Ints64


def largest_of_rows(sizes: Ints64, value: npt.NDArray[np.floating], kept: int) -> tuple[Ints64, Ints64, Ints64]:
    """Find the largest entries of each row; of equal ones those that come first.

    Rows have `sizes` [R] entries, `value` [P] holds them row after row.

    Returns:
        The entries that are kept, row after row with the largest first; the row of each, and its place there.
    """
    rows = np.repeat(np.arange(len(sizes)), sizes)
    order = np.argsort(-value, kind="stable")
    # Integers of 16 bits are sorted by counting.
    narrow = rows.astype(np.uint16) if len(sizes) <= np.iinfo(np.uint16).max else rows
    order = order[np.argsort(narrow[order], kind="stable")]
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    inside = place < kept
    return order[inside], rows[inside], place[inside]


def strongest(table: sparse.csr_array, kept: int) -> tuple[npt.NDArray[np.int32], Floats32]:
    """Return [R, J] the columns of each row whose values are largest in size, and those values; 0 = none."""
    table.sort_indices()
    sizes = np.diff(table.indptr).astype(np.int64)
    entries, rows, place = largest_of_rows(sizes, np.abs(table.data), kept)
    neighbour, value = np.zeros((len(sizes), kept), np.int32), np.zeros((len(sizes), kept), np.float32)
    neighbour[rows, place] = table.indices[entries]
    value[rows, place] = table.data[entries]
    return neighbour, value
