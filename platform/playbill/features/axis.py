"""Events of many keys on one sorted axis of integers, where any slice of time is found by binary search.

Key after key, within a key by time, with room for the longest window between two keys: position = key * step + time.
What happened to a key in some span is then one slice, and a count is the difference of a cumulative sum at its ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Ints64
from playbill.clock import to_microseconds
from playbill.tables.frames import utc_literal

CHANGED_AT = "event_timestamp"
"""Moment a state holds from. An as-of join at `t` returns the last state with `event_timestamp <= t`."""

MOMENT = pl.Datetime("us", "UTC")


_ROOM = 2**62
"""Positions stay below this; keys that need more are treated in several axes."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which states are wanted: those that begin in [since, until]. None is no limit.

    A state is the same whatever the span; it only says which states are returned.
    """

    since: datetime | None = None
    until: datetime | None = None

    def expr(self) -> pl.Expr:
        """Return the test on `event_timestamp`."""
        test = pl.lit(True)
        if self.since is not None:
            test &= pl.col(CHANGED_AT) >= utc_literal(self.since)
        if self.until is not None:
            test &= pl.col(CHANGED_AT) <= utc_literal(self.until)
        return test

    def keep(self, at: Ints64, tick_us: int) -> npt.NDArray[np.bool_] | None:
        """Return which of some moments, in ticks since 1970, lie in the span; None if all do."""
        if self.since is None and self.until is None:
            return None
        kept = np.ones(len(at), dtype=np.bool_)
        if self.since is not None:
            kept &= at >= -(-to_microseconds(self.since) // tick_us)
        if self.until is not None:
            kept &= at <= to_microseconds(self.until) // tick_us
        return kept


EVER = Span()


class Axis:
    """The events of one set of keys, sorted by key and time.

    Args:
        codes: [n] numbers of the keys, from 0.
        at: [n] times in ticks.
        reach: The longest window, in ticks.
    """

    def __init__(self, codes: Ints64, at: Ints64, reach: int) -> None:
        self.base = int(at.min())
        self.step = _step(at, reach)
        events = codes * self.step + (at - self.base)
        sorted_already = bool((events[1:] >= events[:-1]).all())
        # Stable, so that what a source wrote first stays first within a moment.
        self._order = None if sorted_already else np.argsort(events, kind="stable")
        self.events = events if self._order is None else events[self._order]
        self._keys = int(codes.max()) + 1

    @cached_property
    def starts(self) -> Ints64:
        """[keys] Index of every key's first event."""
        return np.searchsorted(self.events, np.arange(self._keys, dtype=np.int64) * self.step)

    def ordered(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values of the events in the axis' order."""
        return values if self._order is None else values[self._order]

    def rows(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return a frame of the events in the axis' order."""
        return frame if self._order is None else frame[self._order]

    def key_of(self, positions: Ints64) -> Ints64:
        """Return the number of each position's key."""
        return positions // self.step

    def time_of(self, positions: Ints64, keys: Ints64) -> Ints64:
        """Return each position's time in ticks, given its key."""
        return positions - keys * self.step + self.base

    def moments(self, exits: Iterable[tuple[npt.NDArray[np.bool_], int]], span: Span, tick_us: int) -> Ints64:
        """Return the positions at which a state begins, sorted and once each.

        Args:
            exits: For every window, which events are counted in it, and its length in ticks.
            span: Only those in it.
            tick_us: Microseconds in a tick.
        """
        found = [self._within(self.events, span, tick_us)]
        found += [self._within(self.events[counted] + length, span, tick_us) for counted, length in exits]
        merged = np.sort(np.concatenate(found))
        return merged[np.r_[True, merged[1:] != merged[:-1]]] if len(merged) else merged

    def _within(self, positions: Ints64, span: Span, tick_us: int) -> Ints64:
        kept = span.keep(positions % self.step + self.base, tick_us) if span != EVER else None
        return positions if kept is None else positions[kept]

    def upto(self, positions: Ints64) -> Ints64:
        """Return how many events of the axis lie at or before each position."""
        return np.searchsorted(self.events, positions, side="right")

    def running_max(self, values: Ints64, missing: int) -> Ints64:
        """Return the largest value of the key so far at every event, in the axis' order; `missing` where none."""
        known = values != missing
        if not known.any():
            return values
        low = int(values[known].min())
        codes = self.key_of(self.events)
        step = int(values[known].max()) - low + 2
        lifted = codes * step + np.where(known, values - low + 1, 0)
        highest = np.maximum.accumulate(lifted) - codes * step
        return np.where(highest > 0, highest + low - 1, missing)


def axes(codes: Ints64, at: Ints64, reach: int, others: Sequence[Ints64] = ()) -> Iterator[tuple[slice | Ints64, int]]:
    """Split events into sets of whole keys that fit on one axis each.

    Args:
        codes: [n] numbers of the keys, from 0.
        at: [n] times in ticks.
        reach: The longest window, in ticks.
        others: Further values whose running maximum will be asked for.

    Yields:
        Which events, and the number of the set's first key.
    """
    if not len(codes):
        return
    step = max([_step(at, reach), *(int(values.max()) - int(values.min()) + 2 for values in others)])
    room = max(1, _ROOM // step)
    if int(codes.max()) < room:
        yield slice(None), 0
        return
    for first in range(0, int(codes.max()) + 1, room):
        chosen = np.flatnonzero((codes >= first) & (codes < first + room))
        if len(chosen):
            yield chosen, first


def _step(at: Ints64, reach: int) -> int:
    return int(at.max()) - int(at.min()) + reach + 1


def ticks(column: pl.Series, missing: int | None = None) -> Ints64:
    """Return a column of moments as microseconds since 1970, nulls as `missing`."""
    whole = column.cast(MOMENT).to_physical()
    return (whole if missing is None else whole.fill_null(missing)).to_numpy()


class Keys:
    """Key columns of strings as one number per row, in the strings' order.

    Args:
        frame: Has the columns, without nulls.
        columns: Names of the key columns.
    """

    def __init__(self, frame: pl.DataFrame, columns: Sequence[str]) -> None:
        self._names = {name: frame.get_column(name).unique().sort() for name in columns}
        codes = np.zeros(frame.height, dtype=np.int64)
        for name, values in self._names.items():
            numbered = frame.get_column(name).cast(pl.Enum(values)).to_physical().to_numpy()
            codes = codes * len(values) + numbered
        self.codes = codes

    def columns(self, codes: Ints64) -> list[pl.Series]:
        """Return the key columns of some numbers."""
        found = []
        for name, values in reversed(self._names.items()):
            codes, index = np.divmod(codes, len(values)) if len(self._names) > 1 else (codes, codes)
            found.append(values.gather(pl.Series(index, dtype=pl.UInt32)).alias(name))
        return found[::-1]
