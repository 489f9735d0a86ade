"""A log, cut into blocks of whole members, so that memory does not grow with the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from playbill.labels.blocks import ORDER

PLACE = "__place"
"""Row of the log an event came from."""


def member_blocks(log: pl.DataFrame | pl.LazyFrame, columns: Sequence[str], size: int) -> Iterator[pl.DataFrame]:
    """Yield all events of some members at a time, sorted by `ORDER`; members rise from block to block.

    Args:
        log: Rows of `interactions` in any order. A lazy one is read once for its members and once for each block.
        columns: Columns to yield.
        size: Events of a block; the members at its end are kept whole, so it may be more.

    Yields:
        The columns, and for a log in memory `PLACE`, each event's row of it.
    """
    if isinstance(log, pl.LazyFrame):
        yield from _scanned(log, columns, size)
        return
    order = None if _is_sorted(log) else log.select(pl.arg_sort_by(*ORDER, maintain_order=True)).to_series()
    members = log["member_id"] if order is None else log["member_id"].gather(order)
    ends = np.cumsum(members.rle().struct.field("len").to_numpy().astype(np.int64))
    for start, end in _cuts(ends, size):
        if order is None:
            rows = (
                log.select(columns)
                .slice(start, end - start)
                .with_columns(pl.int_range(start, end, dtype=pl.Int64).alias(PLACE))
            )
        else:
            places = order[start:end]
            rows = log.select(columns)[places].with_columns(places.cast(pl.Int64).alias(PLACE))
        yield rows


def _scanned(log: pl.LazyFrame, columns: Sequence[str], size: int) -> Iterator[pl.DataFrame]:
    counts = log.group_by("member_id").len().collect(engine="streaming").sort("member_id")
    ends = np.cumsum(counts["len"].to_numpy().astype(np.int64))
    members, first = counts["member_id"], 0
    for _, end in _cuts(ends, size):
        last = int(np.searchsorted(ends, end))
        own = log.filter(pl.col("member_id").is_between(pl.lit(members[first]), pl.lit(members[last])))
        yield own.select(columns).collect().sort(*ORDER, maintain_order=True)
        first = last + 1


def _cuts(ends: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Yield spans of at least `size` rows that end where a member does."""
    start = 0
    while len(ends) and start < ends[-1]:
        place = min(int(np.searchsorted(ends, start + size)), len(ends) - 1)
        yield start, int(ends[place])
        start = int(ends[place])


def _is_sorted(log: pl.DataFrame) -> bool:
    before = {name: pl.col(name).shift(1) for name in ORDER}
    member, seq, at = (pl.col(name) for name in ORDER)
    within = (seq > before["seq"]) | ((seq == before["seq"]) & (at >= before["event_at"]))
    ordered = (member > before["member_id"]) | ((member == before["member_id"]) & within)
    return bool(log.select(ordered.fill_null(True).all()).item())
