"""Running a world day by day under a policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.errors import StateError
from playbill.schema import ACTIONS
from playbill.simulator import canvases as on
from playbill.simulator.events import EventLog
from playbill.simulator.launches import DAY_US, HOUR_US, NEVER, microseconds, moments
from playbill.simulator.law import LAW
from playbill.simulator.policies import Policy, load_policy
from playbill.simulator.state import State
from playbill.simulator.steps import Watch, step
from playbill.simulator.streams import Streams
from playbill.simulator.visits import Visits, ask, begin
from playbill.simulator.world import World

MOST_SESSIONS = 3
"""Visits of a member on one day, at most."""
WEEKDAY = np.array([0.9, 0.88, 0.9, 0.95, 1.12, 1.2, 1.05])
HOURS = np.array([3, 2, 1, 1, 1, 1, 2, 3, 3, 3, 3, 4, 5, 4, 4, 4, 5, 6, 8, 11, 13, 12, 8, 5], np.float64)
"""Visits by hour of the local day, in parts."""
_APART_US = 300 * 1_000_000


class Writer(Protocol):
    """What takes canonical rows: a `TableWriter`, or anything like it."""

    def write(self, table: str, frame: pl.DataFrame) -> None:
        """Take rows of a canonical table."""
        ...


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run came to.

    Attributes:
        policy: Name of the policy.
        members: One row per member: member_id, country, joined_at, churned_at (null = stayed), sessions, plays,
            hours, satisfaction (at the end), days (as a member, within the run), value (long-term value in days:
            days within the run, plus what the hazard leaves of the next `value_days`).
        counts: Events by canvas and action, those with any.
        titles_per_member: [M] distinct titles that each member played.
        members_per_title: [T] distinct members that played each title.
        seconds: How long the run took.
        interactions: The canonical log, where it was kept.
    """

    policy: str
    members: pl.DataFrame
    counts: dict[str, dict[str, int]]
    titles_per_member: NDArray[np.int64]
    members_per_title: NDArray[np.int64]
    seconds: float
    _log: EventLog | None = field(default=None, repr=False)

    @property
    def events(self) -> int:
        """Number of events."""
        return sum(sum(actions.values()) for actions in self.counts.values())

    @property
    def interactions(self) -> pl.DataFrame:
        """The canonical interactions, sorted by member and seq.

        Raises:
            StateError: The run did not keep its log.
        """
        if self._log is None:
            raise StateError("the simulation kept no log. Run `simulate(..., keep_log=True)` to read interactions.")
        return self._log.frame()


def simulate(
    world: World,
    policy: Policy | None = None,
    *,
    writer: Writer | None = None,
    keep_log: bool = False,
    progress: Callable[[int, int], None] | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Run a world from its first day to its last.

    Equal worlds and policies give equal events, to the bit, whatever else is asked for here. Members have the same
    luck under every policy where their questions are the same ones, so runs can be compared member by member.

    Args:
        world: A world.
        policy: Who fills the pages; None = the one its spec names.
        writer: Takes the canonical titles, availability, members, and the interactions in batches.
        keep_log: Hold the interactions in memory: `Outcome.interactions`, and `Asked.history` for policies.
        progress: Called with days done and days in all.
        watch: Called with every round of questions, answers and responses, before members' counters move on.

    Raises:
        IntegrityError: The policy answered what cannot be shown.
    """
    started = time.perf_counter()
    chosen = policy or load_policy(world.spec.policy)
    streams, state = Streams(world.spec.seed), State(world)
    if writer is not None:
        for table in ("titles", "availability", "members"):
            writer.write(table, getattr(world, table))
    sink = None if writer is None else (lambda frame: writer.write("interactions", frame))
    log = EventLog(world, microseconds(world.spec.end), sink, keep=keep_log)
    for day in range(world.spec.days):
        _run_day(day, state, chosen, streams, log, watch)
        log.end_day()
        _end_day(day, state, streams)
        if progress is not None:
            progress(day + 1, world.spec.days)
    log.flush()
    return _outcome(chosen, state, log if keep_log else None, log.counts, time.perf_counter() - started)


def _run_day(day: int, state: State, policy: Policy, streams: Streams, log: EventLog, watch: Watch | None) -> None:
    if day:
        state.start_day(day)
    waiting = _Waiting(day, state, streams)
    texts: list[str] = []
    visits: Visits | None = None
    for number in range(1_000):
        arrivals = waiting.next(None if visits is None else visits.member)
        if len(arrivals):
            fresh = begin(arrivals, waiting.times(arrivals), state, streams, texts)
            visits = fresh if visits is None else visits.joined(fresh)
        if visits is None or not len(visits):
            return
        rng = streams.generator("policy", day, number)
        asked = ask(visits, state, streams, log, streams.generator("typing", day, number))
        visits = step(visits, asked, policy, state, streams, log, rng, watch)


class _Waiting:
    """The visits of a day that have not begun. A member's next one begins when the one before is over."""

    def __init__(self, day: int, state: State, streams: Streams) -> None:
        self._state = state
        people, spec = state.world.people, state.world.spec
        start = microseconds(spec.start) + day * DAY_US
        everyone = np.arange(len(people))
        here = (people.joined < start + DAY_US) & (state.churned == NEVER)
        weekday = WEEKDAY[(spec.start.weekday() + day) % 7]
        rate = people.activity * np.exp(LAW.visit_effect * state.satisfaction) * weekday * here
        count = _poisson(rate, streams.uniform("visits", everyone, day), MOST_SESSIONS)
        # Who joins comes to look around on the day itself.
        count = np.maximum(count, here & (people.joined >= start))
        offset = np.array([country.utc_offset_hours for country in spec.countries])[people.country]
        luck = streams.uniform("hour", everyone, day, MOST_SESSIONS)
        local = np.interp(luck, np.concatenate([[0.0], np.cumsum(HOURS) / HOURS.sum()]), np.arange(25))
        moment = start + (((local - offset[:, None]) % 24) * HOUR_US).astype(np.int64)
        moment[np.arange(MOST_SESSIONS)[None, :] >= count[:, None]] = NEVER
        self._moments = np.sort(np.maximum(moment, people.joined[:, None]), axis=1)
        self._left, self._taken = count, np.zeros(len(people), np.int64)

    def next(self, busy: NDArray[np.int32] | None) -> NDArray[np.int32]:
        """Return the members whose next visit begins: all that have one left and are not busy."""
        free = self._left > 0
        if busy is not None:
            free[busy] = False
        members = np.flatnonzero(free).astype(np.int32)
        self._left[members] -= 1
        return members

    def times(self, member: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return [N] when they begin: at their own moment, and after the last visit."""
        moment = self._moments[member, self._taken[member]]
        self._taken[member] += 1
        return np.asarray(np.maximum(moment, self._state.busy_until[member] + _APART_US), np.int64)


def _poisson(rate: NDArray[np.float64], luck: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Return Poisson counts [M], at most `most`, by inverting the distribution: more luck, more visits."""
    count: NDArray[np.int64] = np.zeros(len(rate), np.int64)
    term = np.exp(-rate)
    total = term.copy()
    for number in range(1, most + 1):
        count = count + (luck >= total)
        term = term * rate / number
        total = total + term
    return np.asarray(count, np.int64)


def _end_day(day: int, state: State, streams: Streams) -> None:
    """Let members leave by the hazard of their satisfaction, and let satisfaction fade."""
    people, spec = state.world.people, state.world.spec
    end = microseconds(spec.start) + (day + 1) * DAY_US
    here = (people.joined < end) & (state.churned == NEVER)
    luck = streams.uniform("churn", np.arange(len(people)), day)
    leaves = here & (luck < LAW.hazard(state.satisfaction))
    state.churned[leaves] = end
    state.satisfaction *= LAW.keep


def _outcome(policy: Policy, state: State, log: EventLog | None, counts: NDArray[np.int64], seconds: float) -> Outcome:
    world = state.world
    end = microseconds(world.spec.end)
    stayed = state.churned == NEVER
    begun = np.maximum(world.people.joined, microseconds(world.spec.start))
    days = (np.where(stayed, end, state.churned) - begun) / DAY_US
    remaining = LAW.remaining_days(state.satisfaction, world.spec.value_days) * stayed
    churned = moments(np.where(stayed, 0, state.churned))
    members = world.members.select("member_id", "country", "joined_at").with_columns(
        churned_at=pl.when(pl.Series(stayed)).then(None).otherwise(churned),
        sessions=state.sessions,
        plays=state.plays,
        hours=state.hours,
        satisfaction=state.satisfaction,
        days=days,
        value=days + remaining,
    )
    told = {
        canvas: {ACTIONS[code]: int(counts[number, code]) for code in np.flatnonzero(counts[number])}
        for number, canvas in enumerate(on.CANVASES)
        if counts[number].any()
    }
    pairs = state.played > 0
    return Outcome(policy.name, members, told, pairs.sum(axis=1), pairs.sum(axis=0), seconds, log)
