"""Byte strings of many lengths in one buffer, moved without a loop over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Blobs:
    """N byte strings inside one buffer. They may overlap, and stand in any order."""

    data: Bytes
    starts: Ints
    lengths: Ints


def spread(starts: Ints, lengths: Ints) -> Ints:
    """Return every index of N ranges, one range after the other.

    Args:
        starts: First index of each range, (N,).
        lengths: Length of each range, (N,).

    Returns:
        (sum of lengths,) indices.
    """
    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    indices: Ints = np.repeat(starts - before, lengths) + np.arange(total)
    return indices


def gather(blobs: Blobs) -> Bytes:
    """Return the byte strings one after the other in a buffer of their own."""
    if not len(blobs.starts):
        return np.empty(0, np.uint8)
    ends = blobs.starts + blobs.lengths
    if (ends[:-1] == blobs.starts[1:]).all():
        return blobs.data[blobs.starts[0] : ends[-1]]
    taken: Bytes = blobs.data[spread(blobs.starts, blobs.lengths)]
    return taken


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
