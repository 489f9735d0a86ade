"""Blocks of members, simulated a day at a time: whose visits begin when, what they ask, and who leaves at night.

A shard is some blocks in one process, brought to the same mornings as all others. Axis letters: M members of the world
or of a block, N of the shard, C countries, T titles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import polars as pl

from playbill.arrays import Floats32, Floats64, Ints32, Ints64
from playbill.clock import to_microseconds
from playbill_lab.simulator.engine.steps import Watch, step
from playbill_lab.simulator.engine.visits import RunContext, Visits, ask, begin
from playbill_lab.simulator.policies.policies import Policy
from playbill_lab.simulator.world.behaviour_model import LAW
from playbill_lab.simulator.world.event_log import EventRecorder
from playbill_lab.simulator.world.launches import DAY_US, HOUR_US, NEVER
from playbill_lab.simulator.world.random_streams import Streams
from playbill_lab.simulator.world.state import State
from playbill_lab.simulator.world.world import World

MOST_SESSIONS = 3  # Visits of a member on one day, at most
WEEKDAY = np.array([0.9, 0.88, 0.9, 0.95, 1.12, 1.2, 1.05])
HOURS = np.array([3, 2, 1, 1, 1, 1, 2, 3, 3, 3, 3, 4, 5, 4, 4, 4, 5, 6, 8, 11, 13, 12, 8, 5], np.float64)
"""Visits by hour of the local day, in parts."""
BLOCK_MEMBERS = 12_500  # Members simulated together. It does not depend on the machine, so neither does what they do
_APART_US = 300 * 1_000_000
_MOST_ROUNDS = 1_000


@dataclass(frozen=True, slots=True)
class MemberBlock:
    """Members `first` to `last - 1`. They meet others only in what countries have played by the morning."""

    number: int
    first: int  # Its first member
    last: int  # The member after its last one

    def occasion(self, *of: int) -> tuple[int, ...]:
        """Return what tells its random streams from those of other blocks."""
        return (*of, self.number) if self.number else of


def blocks_of(world: World) -> list[MemberBlock]:
    """Return the blocks of a world."""
    count = len(world.people)
    edges = range(0, count, BLOCK_MEMBERS)
    return [MemberBlock(number, first, min(first + BLOCK_MEMBERS, count)) for number, first in enumerate(edges)]


def run_day(day: int, block: MemberBlock, context: RunContext, watch: Watch | None) -> None:
    """Let the members of a block visit the service on one day, and sleep over it."""
    streams, waiting = context.streams, _Waiting(day, block, context.state, context.streams)
    texts: list[str] = []
    visits: Visits | None = None
    for number in range(_MOST_ROUNDS):
        arrivals = waiting.next(None if visits is None else visits.member)
        if len(arrivals):
            fresh = begin(arrivals, waiting.times(arrivals), context, texts)
            visits = fresh if visits is None else visits.joined(fresh)
        if visits is None or not len(visits):
            break
        rng = streams.generator("policy", *block.occasion(day, number))
        typing = streams.generator("typing", *block.occasion(day, number))
        orders = streams.generator("order", *block.occasion(day, number))
        visits = step(visits, ask(visits, context, typing, orders), context, rng, watch)
    context.log.end_day()
    _end_day(day, block, context.state, streams)


class _Waiting:
    """The visits of a day that have not begun. A member's next one begins when the one before is over."""

    def __init__(self, day: int, block: MemberBlock, state: State, streams: Streams) -> None:
        self._state, self._first = state, block.first
        people, spec = state.world.people, state.world.spec
        own = slice(block.first, block.last)
        everyone, joined = np.arange(block.first, block.last), people.joined[own]
        start = to_microseconds(spec.start) + day * DAY_US
        here = (joined < start + DAY_US) & (state.churned[own] == NEVER)
        weekday = WEEKDAY[(spec.start.weekday() + day) % 7]
        rate = people.activity[own] * np.exp(LAW.visit_effect * state.satisfaction[own]) * weekday * here
        count = _poisson(rate, streams.uniform("visits", everyone, day), MOST_SESSIONS)
        # Who joins comes to look around on the day itself.
        count = np.maximum(count, here & (joined >= start))
        offset = np.array([country.utc_offset_hours for country in spec.countries])[people.country[own]]
        luck = streams.uniform("hour", everyone, day, MOST_SESSIONS)
        local = np.interp(luck, np.concatenate([[0.0], np.cumsum(HOURS) / HOURS.sum()]), np.arange(25))
        moment = start + (((local - offset[:, None]) % 24) * HOUR_US).astype(np.int64)
        moment[np.arange(MOST_SESSIONS)[None, :] >= count[:, None]] = NEVER
        self._moments = np.sort(np.maximum(moment, joined[:, None]), axis=1)
        self._left, self._taken = count, np.zeros(len(everyone), np.int64)

    def next(self, busy: Ints32 | None) -> Ints32:
        """Return the members whose next visit begins: all that have one left and are not busy."""
        free = self._left > 0
        if busy is not None:
            free[busy - self._first] = False
        places = np.flatnonzero(free)
        self._left[places] -= 1
        return (places + self._first).astype(np.int32)

    def times(self, member: Ints32) -> Ints64:
        """Return [N] when they begin: at their own moment, and after the last visit."""
        places = member - self._first
        moment = self._moments[places, self._taken[places]]
        self._taken[places] += 1
        return np.asarray(np.maximum(moment, self._state.busy_until[member] + _APART_US), np.int64)


def _poisson(rate: Floats64, luck: Floats64, most: int) -> Ints64:
    """Return Poisson counts [M], at most `most`, by inverting the distribution: more luck, more visits."""
    count: Ints64 = np.zeros(len(rate), np.int64)
    term = np.exp(-rate)
    total = term.copy()
    for number in range(1, most + 1):
        count = count + (luck >= total)
        term = term * rate / number
        total = total + term
    return np.asarray(count, np.int64)


def _end_day(day: int, block: MemberBlock, state: State, streams: Streams) -> None:
    """Let members leave by the hazard of their satisfaction, and let satisfaction fade."""
    people, spec = state.world.people, state.world.spec
    own = slice(block.first, block.last)
    end = to_microseconds(spec.start) + (day + 1) * DAY_US
    here = (people.joined[own] < end) & (state.churned[own] == NEVER)
    luck = streams.uniform("churn", np.arange(block.first, block.last), day)
    leaves = here & (luck < LAW.hazard(state.satisfaction[own]))
    state.churned[own][leaves] = end
    state.satisfaction[own] *= LAW.keep


Sink = Callable[[pl.DataFrame], None]


@dataclass(frozen=True, eq=False)
class BlockTotals:
    """What came of the members of a block; members in order."""

    churned: Ints64  # [N] moment of leaving; NEVER = still a member
    sessions: Ints64  # [N]
    plays: Ints64  # [N]
    hours: Floats64  # [N] watched
    satisfaction: Floats64  # [N] at the end
    titles: Ints64  # [N] distinct titles played
    audience: Ints64  # [T] distinct members of the part that played each title
    counts: Ints64  # [canvases, actions] events

    @classmethod
    def joined(cls, blocks: Sequence[BlockTotals]) -> BlockTotals:
        """Return those of several blocks, in their order."""
        added = ("audience", "counts")
        every = {item.name: [getattr(block, item.name) for block in blocks] for item in fields(cls)}
        return cls(
            **{
                name: np.sum(values, axis=0) if name in added else np.concatenate(values)
                for name, values in every.items()
            }
        )


class Shard:
    """Some blocks of a run; `sink` returns what takes the canonical interactions of a block, None for nobody."""

    def __init__(
        self,
        world: World,
        policy: Policy,
        blocks: Sequence[MemberBlock],
        *,
        sink: Callable[[MemberBlock], Sink] | None = None,
        keep_log: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.blocks = tuple(blocks)
        self._policy, self._watch = policy, watch
        self._state, self._streams = State(world), Streams(world.spec.seed)
        end = to_microseconds(world.spec.end)
        self.logs = [EventRecorder(world, end, sink(block) if sink else None, keep=keep_log) for block in blocks]

    def run_day(self, day: int, yesterday: Floats32 | None) -> Floats32:
        """Run one day after [C, T] all plays of the day before (None on the first); return this shard's plays."""
        if yesterday is not None:
            self._state.start_day(day, yesterday)
        for block, log in zip(self.blocks, self.logs, strict=True):
            run_day(day, block, RunContext(self._policy, self._state, self._streams, log), self._watch)
        return self._state.take_today()

    def totals(self) -> list[BlockTotals]:
        """Hand on what waits in the logs, and return what came of each block."""
        for log in self.logs:
            log.flush()
        return [self._totals(block, log) for block, log in zip(self.blocks, self.logs, strict=True)]

    def _totals(self, block: MemberBlock, log: EventRecorder) -> BlockTotals:
        own, state = slice(block.first, block.last), self._state
        pairs = state.played[own] > 0
        return BlockTotals(
            churned=state.churned[own],
            sessions=state.sessions[own],
            plays=state.plays[own],
            hours=state.hours[own],
            satisfaction=state.satisfaction[own],
            titles=pairs.sum(axis=1),
            audience=pairs.sum(axis=0),
            counts=log.counts,
        )
