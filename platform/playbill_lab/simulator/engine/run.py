"""Running a world day by day under a policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.arrays import Floats32
from playbill.clock import to_microseconds
from playbill.errors import StateError
from playbill.schema import ACTIONS
from playbill_lab.simulator.engine.executors import Executor, MultiProcess, executor_size
from playbill_lab.simulator.engine.shards import Shard, Totals, blocks_of
from playbill_lab.simulator.engine.steps import Watch
from playbill_lab.simulator.policies.policies import Policy, load_policy
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.behaviour_model import LAW
from playbill_lab.simulator.world.event_log import EventLog
from playbill_lab.simulator.world.launches import DAY_US, NEVER, moments
from playbill_lab.simulator.world.random_streams import one_thread
from playbill_lab.simulator.world.world import World


class Writer(Protocol):
    """What takes canonical rows: a `TableWriter`, or anything like it."""

    def write(self, table: str, frame: pl.DataFrame) -> None:
        """Take rows of a canonical table."""
        ...


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run came to.

    Attributes:
        members: One row per member: member_id, country, joined_at, churned_at (null = stayed), sessions, plays,
            hours, satisfaction (at the end), days (as a member, within the run), value (long-term value in days:
            days within the run, plus what the hazard leaves of the next `value_days`).
    """

    policy: str
    members: pl.DataFrame
    counts: dict[str, dict[str, int]]
    titles_per_member: NDArray[np.int64]  # [M] distinct titles that each member played
    members_per_title: NDArray[np.int64]  # [T] distinct members that played each title
    seconds: float
    _logs: list[EventLog] | None = field(default=None, repr=False)

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
        if self._logs is None:
            raise StateError("the simulation kept no log. Run `simulate(..., keep_log=True)` to read interactions.")
        return pl.concat([log.frame() for log in self._logs])


def simulate(
    world: World,
    policy: Policy | None = None,
    *,
    writer: Writer | None = None,
    keep_log: bool = False,
    progress: Callable[[int, int], None] | None = None,
    watch: Watch | None = None,
    processes: int | None = 1,
) -> Outcome:
    """Run a world from its first day to its last, under a policy or the one that its spec names.

    Equal worlds and policies give equal events, to the bit, whatever else is asked for here. Members have the same luck
    under every policy where their questions are the same ones, so runs can be compared member by member.

    `writer` takes the canonical titles, availability, members, and the interactions in batches. `keep_log` holds the
    interactions in memory, for `Outcome.interactions` and `PolicyRequest.history`. `progress` is called with days done
    and days in all, `watch` with every round of questions, answers and responses before members' counters move on.
    `processes` (None = one for each core) run blocks of members side by side with equal events; a run that is watched,
    or keeps its log, stays in this process.

    Raises:
        ConfigError: Less than one process, or a policy that cannot be sent to others.
        IntegrityError: The policy answered what cannot be shown.
    """
    started = time.perf_counter()
    chosen = policy or load_policy(world.spec.policy)
    if writer is not None:
        for table in ("titles", "availability", "members"):
            writer.write(table, getattr(world, table))
    sink = None if writer is None else (lambda frame: writer.write("interactions", frame))
    blocks = blocks_of(world)
    size = 1 if keep_log or watch is not None else executor_size(processes, len(blocks))
    if size == 1:
        shard = Shard(world, chosen, blocks, sink=sink and (lambda _block: sink), keep_log=keep_log, watch=watch)
        with one_thread():
            totals = _run(world, shard, progress)
        logs = shard.logs if keep_log else None
    else:
        logs = None
        with MultiProcess(world, chosen, blocks, sink, size) as executor:
            totals = _run(world, executor, progress)
    return _outcome(chosen, world, totals, logs, time.perf_counter() - started)


def _run(world: World, executor: Executor, progress: Callable[[int, int], None] | None) -> Totals:
    played: Floats32 | None = None
    for day in range(world.spec.days):
        played = executor.run_day(day, played)
        if progress is not None:
            progress(day + 1, world.spec.days)
    return Totals.joined(executor.totals())


def _outcome(policy: Policy, world: World, totals: Totals, logs: list[EventLog] | None, seconds: float) -> Outcome:
    return Outcome(
        policy=policy.name,
        members=_members(world, totals),
        counts={
            canvas: {ACTIONS[code]: int(totals.counts[number, code]) for code in np.flatnonzero(totals.counts[number])}
            for number, canvas in enumerate(on.CANVASES)
            if totals.counts[number].any()
        },
        titles_per_member=totals.titles,
        members_per_title=totals.audience,
        seconds=seconds,
        _logs=logs,
    )


def _members(world: World, totals: Totals) -> pl.DataFrame:
    end = to_microseconds(world.spec.end)
    stayed = totals.churned == NEVER
    begun = np.maximum(world.people.joined, to_microseconds(world.spec.start))
    days = (np.where(stayed, end, totals.churned) - begun) / DAY_US
    remaining = LAW.remaining_days(totals.satisfaction, world.spec.value_days) * stayed
    churned = moments(np.where(stayed, 0, totals.churned))
    return world.members.select("member_id", "country", "joined_at").with_columns(
        churned_at=pl.when(pl.Series(stayed)).then(None).otherwise(churned),
        sessions=totals.sessions,
        plays=totals.plays,
        hours=totals.hours,
        satisfaction=totals.satisfaction,
        days=days,
        value=days + remaining,
    )
