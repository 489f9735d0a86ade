"""Which value was the newest at each row's moment: the search inside the as-of join, on plain integers.

Axes: R rows, V values.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

Integers = NDArray[np.int64]

_LIMIT = 2**62
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Moments:
    """Rows or values by key and time.

    Attributes:
        codes: Number of each one's key, from 0; null matches nothing.
        at: Moment of each, UTC microseconds; null matches nothing.
    """

    codes: pl.Series
    at: pl.Series


def newest_rows(
    rows: Moments, values: Moments, created: pl.Series | None, ttl: timedelta | None, created_by_row: bool
) -> pl.Series:
    """Return for every row the position of the newest value of its key at or before its moment.

    Args:
        rows: R of them.
        values: V of them; no nulls.
        created: [V] decides between values of one key and moment (the later wins, null is earliest).
        ttl: Older values are as good as none; age exactly `ttl` is kept.
        created_by_row: Only values that were created at or before the row's moment count.

    Returns:
        [R] positions among the values, null where there is none.
    """
    if values.codes.is_empty() or rows.codes.is_empty():
        return pl.repeat(None, rows.codes.len(), dtype=pl.UInt32, eager=True)
    row_codes, row_at = _integers(rows.codes, -1), _integers(rows.at, 0)
    codes, at = _integers(values.codes, 0), _integers(values.at, 0)
    if created_by_row and created is not None:
        found = _newest_visible(row_codes, row_at, codes, at, created)
    else:
        found = _newest(row_codes, row_at, codes, at, created)
    seen = (found >= 0) & (row_codes >= 0) & rows.at.is_not_null().to_numpy()
    taken = np.where(seen, found, 0)
    # What was found is held against the rows as they came: a shuffled answer cannot pass.
    age = row_at - at[taken]
    if not bool(np.all(~seen | ((codes[taken] == row_codes) & (age >= 0)))):
        raise AssertionError("a value was found for the wrong key or from the future")
    if ttl is not None:
        seen &= age <= ttl // _MICROSECOND
    return _positions(taken, seen)


def _newest(
    row_codes: Integers, row_at: Integers, codes: Integers, at: Integers, created: pl.Series | None
) -> Integers:
    """Return the position of the newest value, or a negative number; moments of null rows mean nothing."""
    key_width, row_places, places = _places(row_codes, row_at, codes, at)
    frame = pl.DataFrame({"place": places}).with_row_index("position").sort("place", maintain_order=True)
    if created is not None and bool((frame["place"].diff() == 0).any()):
        ties = pl.DataFrame({"place": places, "created": created}).with_row_index("position")
        frame = ties.sort("place", "created", nulls_last=False, maintain_order=True)
    ordered = frame["place"].to_numpy()
    index = _last_at_or_before(ordered, row_places)
    own = ordered[np.maximum(index, 0)] >= row_codes * key_width
    positions = frame["position"].to_numpy().astype(np.int64)
    return np.where((index >= 0) & own, positions[np.maximum(index, 0)], -1)


def _newest_visible(
    row_codes: Integers, row_at: Integers, codes: Integers, at: Integers, created: pl.Series
) -> Integers:
    """Like `_newest`, of the values that were created by then. A value can be seen from max(its time, created).

    Along the moments from which a key's values can be seen, the best so far is a running maximum: so one search
    answers, though there are two conditions on time.
    """
    known = np.flatnonzero(created.is_not_null().to_numpy())
    if not known.size:
        return np.full(row_codes.size, -1)
    made = created.gather(pl.Series(known))
    seen_from = np.maximum(at[known], _integers(made, 0))
    better = pl.DataFrame({"at": at[known], "created": made}).with_row_index("position")
    best_last = better.sort("at", "created", maintain_order=True)["position"].to_numpy().astype(np.int64)
    goodness = np.empty_like(best_last)
    goodness[best_last] = np.arange(best_last.size)
    key_width, row_places, places = _places(row_codes, row_at, codes[known], seen_from)
    order = pl.DataFrame({"place": places}).with_row_index("position").sort("place", maintain_order=True)
    ordered, positions = order["place"].to_numpy(), order["position"].to_numpy()
    owners = codes[known][positions]
    best = np.maximum.accumulate(owners * known.size + goodness[positions]) - owners * known.size
    index = _last_at_or_before(ordered, row_places)
    own = ordered[np.maximum(index, 0)] >= row_codes * key_width
    return np.where((index >= 0) & own, known[best_last[best[np.maximum(index, 0)]]], -1)


def _places(row_codes: Integers, row_at: Integers, codes: Integers, at: Integers) -> tuple[int, Integers, Integers]:
    """Return the width of a key, and the rows and the values as one integer each: key x width + time.

    A row before all values gets a place before its key's, one after them all the key's last.
    """
    lowest = int(at.min())
    width = int(at.max()) - lowest + 2
    if width * (int(max(codes.max(), row_codes.max())) + 2) < _LIMIT:
        row_times, times = np.clip(row_at - lowest, -1, width - 2), at - lowest
    else:
        distinct = np.unique(at)
        width = distinct.size + 1
        times = np.searchsorted(distinct, at)
        row_times = np.searchsorted(distinct, row_at, side="right") - 1
    return width, row_codes * width + row_times, codes * width + times


def _last_at_or_before(ordered: Integers, wanted: Integers) -> Integers:
    """Return for each wanted place the index of the last one at or before it, -1 where there is none."""
    # Searching in order keeps to neighbouring memory: nine times faster with millions of rows.
    sorted_rows = pl.DataFrame({"place": wanted}).with_row_index("row").sort("place")
    index = np.empty(wanted.size, dtype=np.int64)
    index[sorted_rows["row"].to_numpy()] = np.searchsorted(ordered, sorted_rows["place"].to_numpy(), side="right") - 1
    return index


def _integers(values: pl.Series, null: int) -> Integers:
    return values.to_physical().cast(pl.Int64).fill_null(null).to_numpy()


def _positions(positions: Integers, valid: NDArray[np.bool_]) -> pl.Series:
    frame = pl.DataFrame({"position": positions.astype(np.uint32), "valid": valid})
    return frame.select(pl.when("valid").then("position")).to_series()
