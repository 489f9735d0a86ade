"""Running counts and sliding windows of many keys, after every change.

A state's counts are slices of one sorted axis (see `axis`), so the cost is O((n + r) log n) for n events and r states,
without a row per event and window in between. Sums are of integers: a state does not depend on which other keys or
states are computed beside it, which is what lets increments, backfills and live requests share this code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import Ints64
from playbill.clock import MICROSECOND
from playbill.features.axis import CHANGED_AT, EVER, MOMENT, Axis, Keys, Span, axes, ticks

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
