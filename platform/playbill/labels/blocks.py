"""Whole members' events as arrays: what was before each event of a member and what came after it.

"Before" and "after" are the order of (member_id, seq), which also settles events at the same moment. An event's time
is never before that of the events before it: where a log says otherwise, the later of the two counts. A log is cut into
blocks of whole members, so that memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

import numpy as np
import polars as pl

from playbill.arrays import Bools, Floats64, Ints64
from playbill.clock import MICROSECOND

ORDER = ("member_id", "seq", "event_at")


@dataclass(frozen=True)
class EventGroups:
    """A partition of n events that keeps their order within each group."""

    order: Ints64
    """[n] events by group, in order within it."""
    group: Ints64
    """[n] number of the group of each place of `order`, rising."""
    start: Ints64
    """[n] place at which the group of each place of `order` begins."""
    last: Ints64
    """[n] place at which it ends, inclusive."""

    @cached_property
    def place(self) -> Ints64:
        """[n] place of each event in `order`."""
        found = np.empty(len(self.order), np.int64)
        found[self.order] = np.arange(len(self.order))
        return found

    @classmethod
    def of(cls, *codes: Ints64) -> EventGroups:
        """Group n events by several codes of at least -1."""
        key = codes[0]
        for code in codes[1:]:
            key = key * (int(code.max(initial=0)) + 2) + code + 1
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        new = np.ones(len(key), np.bool_)
        new[1:] = ordered[1:] != ordered[:-1]
        group, starts = np.cumsum(new) - 1, np.flatnonzero(new)
        lasts = np.append(starts[1:], len(key)) - 1
        return cls(order, group, starts[group], lasts[group])

    def before(self, counted: Bools) -> Ints64:
        """Count, for each of n events, the counted ones of its group before it."""
        inside = counted[self.order]
        total: Ints64 = np.cumsum(inside) - inside.astype(np.int64)
        found = np.empty(len(total), np.int64)
        found[self.order] = total - total[self.start]
        return found


@dataclass(frozen=True)
class Block:
    """All events of some members that are known at one moment."""

    frame: pl.DataFrame
    """n rows of the log, sorted by `ORDER`."""
    as_of_us: int
    """What is known, microseconds since 1970."""
    _codes: dict[str, Ints64] = field(default_factory=dict)
    _groups: dict[tuple[str, ...], EventGroups] = field(default_factory=dict)
    _actions: dict[str, Bools] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def member(self) -> Ints64:
        """[n] number of each event's member, rising."""
        return self.frame["member_id"].rle_id().to_numpy().astype(np.int64)

    @cached_property
    def time(self) -> Ints64:
        """[n] microseconds since 1970, never falling within a member."""
        at = self.frame["event_at"].dt.epoch("us").to_numpy().astype(np.int64)
        if bool(((at[1:] < at[:-1]) & (self.member[1:] == self.member[:-1])).any()):
            rising = self.frame.select(pl.col("event_at").cum_max().over("member_id").dt.epoch("us"))
            return rising.to_series().to_numpy().astype(np.int64)
        return at

    def is_action(self, action: str) -> Bools:
        """Return which of n events are of an action."""
        if action not in self._actions:
            self._actions[action] = (self.frame["action"] == action).fill_null(False).to_numpy()
        return self._actions[action]

    def are_actions(self, actions: tuple[str, ...]) -> Bools:
        """Return which of n events are of one of some actions."""
        found = np.zeros(len(self), np.bool_)
        for action in actions:
            found |= self.is_action(action)
        return found

    def known(self, column: str) -> Bools:
        """Return which of n events have a value of a column."""
        return self.frame[column].is_not_null().to_numpy()

    def groups(self, *columns: str) -> EventGroups:
        """Return the events of each member grouped by columns of text; null is a group of its own."""
        if columns not in self._groups:
            self._groups[columns] = EventGroups.of(self.member, *(self.codes(name) for name in columns))
        return self._groups[columns]

    def codes(self, column: str) -> Ints64:
        """Return a number for each text of a column, -1 for null."""
        if column not in self._codes:
            # Categories of its own: those that are shared by all of a process only ever grow.
            own = pl.Categorical(pl.Categories.random())
            codes = self.frame[column].cast(pl.String).cast(own).to_physical()
            self._codes[column] = codes.cast(pl.Int64).fill_null(-1).to_numpy()
        return self._codes[column]

    def passed(self, window: timedelta) -> Bools:
        """Return of which of n events a window after them has passed."""
        return self.time + window // MICROSECOND <= self.as_of_us


@dataclass(frozen=True)
class Spans:
    """The counted events of its group within a window of each asked event, as a span of `counted`."""

    counted: Ints64
    """[c] counted events, by group and in order."""
    first: Ints64
    """[a] place in `counted` of the first one after the asked event."""
    begin: Ints64
    """[a] place in `counted` of the first one of the asked event's group."""
    end: Ints64
    """[a] place in `counted` after the last one within the window."""


def spans(block: Block, groups: EventGroups, counted: Bools, window: timedelta, requested: Ints64) -> Spans:
    """Find the counted [n] events within a window after each of a requested ones [a, rising], in their groups."""
    inside = counted[groups.order]
    total: Ints64 = np.cumsum(inside)
    found = groups.order[inside]
    at = groups.place[requested]
    start = groups.start[at]
    first, end = total[at], total[groups.last[at]]
    # Where none comes after an event, which is the rule, there is nothing to look for.
    some = np.flatnonzero(end > first)
    until = block.time[requested[some]] + window // MICROSECOND
    end[some] = _after(groups.group[inside], block.time[found], groups.group[at[some]], until)
    return Spans(found, first, total[start] - inside[start].astype(np.int64), end)


def _after(group: Ints64, time: Ints64, requested_group: Ints64, until: Ints64) -> Ints64:
    """Return the place after the last of c events, by group and time, of a group and no later than a moment.

    Group and time become one number by the rank of times, which fits where their product does not.
    """
    moments = np.sort(time)
    size = len(moments) + 1
    keys = group * size + np.searchsorted(moments, time)
    last = np.searchsorted(moments, until, side="right") - 1
    return np.searchsorted(keys, requested_group * size + last, side="right")


def span_max(values: Floats64, first: Ints64, end: Ints64) -> Floats64:
    """Return the largest of `values[first:end]` [c, >= 0] of each span [a], 0 for an empty one; nan does not count."""
    length = np.maximum(end - first, 0)
    found = np.zeros(len(first))
    level = np.where(np.isnan(values), 0.0, values)
    # A span is two overlapping ones of a power of two each: keep the maxima of all of one length at a time.
    for power in range(int(length.max(initial=0)).bit_length()):
        mine = np.nonzero((length >= 2**power) & (length < 2 ** (power + 1)))[0]
        found[mine] = np.maximum(level[first[mine]], level[end[mine] - 2**power])
        step = min(2**power, len(level))
        level = np.maximum(level, np.concatenate([level[step:], np.zeros(step)]))
    return found


PLACE = "__place"
"""Row of the log an event came from."""


def member_blocks(log: pl.DataFrame | pl.LazyFrame, columns: Sequence[str], size: int) -> Iterator[pl.DataFrame]:
    """Yield all events of some members at a time, sorted by `ORDER`; members rise from block to block.

    A lazy log is read once for its members and once for each block. A block has `size` events, or more: the members at
    its end are kept whole. For a log in memory `PLACE`, each event's row of it, is added to the columns.
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
