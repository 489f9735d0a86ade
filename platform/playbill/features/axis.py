"""Running counts and sliding windows of many keys, after every change, on one sorted axis of integers.

Key after key, within a key by time, with room for the longest window between two keys: position = key * step + time.
What happened to a key in some span is a slice, found by binary search, and a count is the difference of a cumulative
sum at its ends: O((n + r) log n) for n events and r states, without a row per event and window in between. Sums are of
integers: a state does not depend on which other keys or states are computed beside it, which is what lets increments,
backfills and live requests share this code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Ints64
from playbill.clock import MICROSECOND, to_microseconds
from playbill.tables.frames import utc_literal

CHANGED_AT = "event_timestamp"
"""Moment a state holds from. An as-of join at `t` returns the last state with `event_timestamp <= t`."""

MOMENT = pl.Datetime("us", "UTC")
ROOM = 2**62
"""Positions stay below this; keys that need more are treated in several axes."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which states to return: those that begin in [since, until]; None is no limit. It changes no state."""

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
    """The n events of some keys, sorted by key and time in ticks, with room for the longest window between two keys."""

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
        """Return the positions at which a state of a span begins, sorted and once each.

        `exits` has for every window which events are counted in it, and its length in ticks.
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
    """Yield sets of whole keys that fit on one axis each: which events, and the number of the set's first key.

    Arguments are those of `Axis`; `others` are further values whose running maximum will be asked for.
    """
    if not len(codes):
        return
    step = max([_step(at, reach), *(int(values.max()) - int(values.min()) + 2 for values in others)])
    room = max(1, ROOM // step)
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
    """Key columns of strings, without nulls, as one number per row, in the strings' order."""

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


CREATED_AT = "created_timestamp"
"""When we came to know a value; of two values of one moment the later known one wins."""

_MISSING = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Window:
    """The sum of a count column over the last `length`: an event at `a` is in the states of [a, a + length)."""

    count: str
    length: timedelta


def sweep(
    events: pl.DataFrame,
    key: Sequence[str],
    *,
    totals: Sequence[str],
    windows: Mapping[str, Window],
    last: Mapping[str, tuple[str, int]] | None = None,
    latest: Sequence[str] = (),
    span: Span = EVER,
    grain: timedelta = MICROSECOND,
) -> pl.DataFrame:
    """Turn events into the state of every key after each change.

    An event that enters at `a` is counted in a window of length `w` by the states from `a` up to, not
    including, `a + w`; the state at `a + w` is a row of its own.

    Args:
        events: At least `key`, `event_timestamp` (when the event enters), the count columns (integers, no nulls)
            and `latest`.
        key: Columns of strings that say whose state it is.
        totals: Count columns that are summed for ever.
        windows: Output column -> which count is summed over which window.
        last: Output column -> which count is summed over how many last events.
        latest: Columns of moments carried forward as their running maximum, nulls skipped.
        span: Which states to return.
        grain: `event_timestamp` and every window are multiples of it. A coarser one makes for fewer axes.

    Returns:
        One row per (key, moment of change), sorted by both: `key`, `event_timestamp`, the totals, the windows,
        the `last` and the `latest` columns. Sums of int64 counts are int64, all others int32.
    """
    keys = Keys(events, key)
    tick = grain // MICROSECOND
    at = ticks(events.get_column(CHANGED_AT)) // tick
    last = last or {}
    needed = dict.fromkeys(
        [*totals, *(window.count for window in windows.values()), *(name for name, _ in last.values())]
    )
    counts = {name: events.get_column(name).to_numpy() for name in needed}
    moments = {name: ticks(events.get_column(name), _MISSING) for name in latest}
    lengths = {name: (window.count, window.length // grain) for name, window in windows.items()}
    reach = max((length for _, length in lengths.values()), default=0)
    frames = []
    for chosen, first in axes(keys.codes, at, reach, [_known(values) for values in moments.values()]):
        axis = Axis(keys.codes[chosen] - first, at[chosen], reach)
        sums = {name: axis.ordered(values[chosen]) for name, values in counts.items()}
        held = {name: axis.ordered(values[chosen]) for name, values in moments.items()}
        states = _States(axis, sums, lengths, span, tick)
        columns = [*keys.columns(states.keys + first), states.at]
        columns += [pl.Series(name, states.total(name)) for name in totals]
        columns += [pl.Series(name, states.window(*of)) for name, of in lengths.items()]
        columns += [pl.Series(name, states.last(*of)) for name, of in last.items()]
        columns += [states.latest(name, values) for name, values in held.items()]
        frames.append(pl.DataFrame(columns))
    return pl.concat(frames) if frames else _empty(key, totals, [*windows, *last], latest)


class _States:
    """The moments at which the states of one axis begin, and what is counted there."""

    def __init__(
        self,
        axis: Axis,
        counts: Mapping[str, npt.NDArray[Any]],
        windows: Mapping[str, tuple[str, int]],
        span: Span,
        tick: int,
    ) -> None:
        self._axis = axis
        self._positions = axis.moments([(counts[name] > 0, length) for name, length in {*windows.values()}], span, tick)
        self.keys = axis.key_of(self._positions)
        self._upto = axis.upto(self._positions)
        self._cumulative = {
            name: np.concatenate([[0], np.cumsum(values, dtype=np.int64)]) for name, values in counts.items()
        }
        self._types = {name: np.int64 if values.dtype == np.int64 else np.int32 for name, values in counts.items()}
        self._left: dict[int, Ints64] = {}
        self._tick = tick

    @property
    def at(self) -> pl.Series:
        times = self._axis.time_of(self._positions, self.keys) * self._tick
        return pl.Series(CHANGED_AT, times).cast(MOMENT)

    def total(self, name: str) -> npt.NDArray[Any]:
        return self._since(name, self._axis.starts[self.keys])

    def window(self, name: str, length: int) -> npt.NDArray[Any]:
        if length not in self._left:
            self._left[length] = self._axis.upto(self._positions - length)
        return self._since(name, self._left[length])

    def last(self, name: str, events: int) -> npt.NDArray[Any]:
        return self._since(name, np.maximum(self._upto - events, self._axis.starts[self.keys]))

    def _since(self, name: str, first: Ints64) -> npt.NDArray[Any]:
        # Sums of all keys may wrap around in int64; their differences come out right all the same.
        sums = self._cumulative[name]
        found: npt.NDArray[Any] = (sums[self._upto] - sums[first]).astype(self._types[name])
        return found

    def latest(self, name: str, values: Ints64) -> pl.Series:
        found = self._axis.running_max(values, _MISSING)[self._upto - 1]
        column = pl.Series(name, found)
        return pl.select(pl.when(column != _MISSING).then(column).alias(name)).to_series().cast(MOMENT)


def _known(values: Ints64) -> Ints64:
    known = values[values != _MISSING]
    return known if len(known) else np.zeros(1, dtype=np.int64)


def _empty(key: Sequence[str], totals: Sequence[str], windows: Sequence[str], latest: Sequence[str]) -> pl.DataFrame:
    schema: dict[str, Any] = dict.fromkeys(key, pl.String) | {CHANGED_AT: MOMENT}
    schema |= dict.fromkeys([*totals, *windows], pl.Int32) | dict.fromkeys(latest, MOMENT)
    return pl.DataFrame(schema=schema)


def log_count(column: str) -> pl.Expr:
    """Return log(1 + count) as float32: counts are heavy-tailed, their logarithms are not."""
    return pl.col(column).cast(pl.Float64).log1p().cast(pl.Float32)


def share(part: str, rest: str) -> pl.Expr:
    """Return part / (part + rest) as float32, null where both are zero."""
    whole = pl.col(part) + pl.col(rest)
    return pl.when(whole > 0).then(pl.col(part) / whole).cast(pl.Float32)


def ratio(part: str, whole: str) -> pl.Expr:
    """Return part / whole as float32, null where whole is zero."""
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole)).cast(pl.Float32)
