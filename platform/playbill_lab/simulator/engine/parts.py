"""A part of a run: some blocks of members in one process, brought to the same mornings as all the others.

Axis letters: M members of the world, N of the part, C countries, T titles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill_lab.simulator.engine.shards import Block, run_day
from playbill_lab.simulator.engine.steps import Watch
from playbill_lab.simulator.policies.policies import Policy
from playbill_lab.simulator.world.event_log import EventLog
from playbill_lab.simulator.world.launches import microseconds
from playbill_lab.simulator.world.random_streams import Streams
from playbill_lab.simulator.world.state import State
from playbill_lab.simulator.world.world import World

Sink = Callable[[pl.DataFrame], None]
Plays = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Totals:
    """What came of the members of a block; members in order.

    Attributes:
        churned: [N] moment of leaving; NEVER = still a member.
        sessions: [N].
        plays: [N].
        hours: [N] watched.
        satisfaction: [N] at the end.
        titles: [N] distinct titles played.
        audience: [T] distinct members of the part that played each title.
        counts: [canvases, actions] events.
    """

    churned: NDArray[np.int64]
    sessions: NDArray[np.int64]
    plays: NDArray[np.int64]
    hours: NDArray[np.float64]
    satisfaction: NDArray[np.float64]
    titles: NDArray[np.int64]
    audience: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def joined(cls, blocks: Sequence[Totals]) -> Totals:
        """Return those of several blocks, in their order."""
        added = ("audience", "counts")
        every = {item.name: [getattr(block, item.name) for block in blocks] for item in fields(cls)}
        return cls(
            **{
                name: np.sum(values, axis=0) if name in added else np.concatenate(values)
                for name, values in every.items()
            }
        )


class Part:
    """Some blocks of a run.

    Args:
        world: The whole world.
        policy: Who fills the pages.
        blocks: Which members.
        sink: Returns what takes the canonical interactions of a block; None = nobody does.
        keep_log: Hold the interactions in memory.
        watch: Called with every round.
    """

    def __init__(
        self,
        world: World,
        policy: Policy,
        blocks: Sequence[Block],
        *,
        sink: Callable[[Block], Sink] | None = None,
        keep_log: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.blocks = tuple(blocks)
        self._policy, self._watch = policy, watch
        self._state, self._streams = State(world), Streams(world.spec.seed)
        end = microseconds(world.spec.end)
        self.logs = [EventLog(world, end, sink(block) if sink else None, keep=keep_log) for block in blocks]

    def run_day(self, day: int, yesterday: Plays | None) -> Plays:
        """Run one day.

        Args:
            day: Of the run.
            yesterday: [C, T] what members of all parts played the day before; None on the first day.

        Returns:
            [C, T] what the members of this part played.
        """
        if yesterday is not None:
            self._state.start_day(day, yesterday)
        for block, log in zip(self.blocks, self.logs, strict=True):
            run_day(day, block, self._state, self._policy, self._streams, log, self._watch)
        return self._state.take_today()

    def totals(self) -> list[Totals]:
        """Hand on what waits in the logs, and return what came of each block."""
        for log in self.logs:
            log.flush()
        return [self._totals(block, log) for block, log in zip(self.blocks, self.logs, strict=True)]

    def _totals(self, block: Block, log: EventLog) -> Totals:
        own, state = slice(block.first, block.last), self._state
        pairs = state.played[own] > 0
        return Totals(
            churned=state.churned[own],
            sessions=state.sessions[own],
            plays=state.plays[own],
            hours=state.hours[own],
            satisfaction=state.satisfaction[own],
            titles=pairs.sum(axis=1),
            audience=pairs.sum(axis=0),
            counts=log.counts,
        )
