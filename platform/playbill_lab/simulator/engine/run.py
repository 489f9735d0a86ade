"""Running a world day by day under a policy, in this process or in several that synchronise once per simulated day.

What members do depends on their block and on what all blocks played before, so the number of processes changes nothing
but the time.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import polars as pl

from playbill.arrays import Floats32, Ints64
from playbill.clock import to_microseconds
from playbill.errors import ConfigError, StateError
from playbill.schema import ACTIONS
from playbill_lab.simulator.engine.shards import BlockTotals, MemberBlock, Shard, Sink, blocks_of
from playbill_lab.simulator.engine.steps import Watch
from playbill_lab.simulator.policies.policies import Policy, load_policy
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.behaviour_model import LAW
from playbill_lab.simulator.world.event_log import EventRecorder
from playbill_lab.simulator.world.launches import DAY_US, NEVER, moments
from playbill_lab.simulator.world.random_streams import one_thread
from playbill_lab.simulator.world.world import World


class RowWriter(Protocol):
    """What takes canonical rows: a `TableWriter`, or anything like it."""

    def write(self, table: str, frame: pl.DataFrame) -> None:
        """Take rows of a canonical table."""
        ...


@dataclass(frozen=True, eq=False)
class RunOutcome:
    """What a run came to.

    `members` has a row per member: member_id, country, joined_at, churned_at (null = stayed), sessions, plays, hours,
    satisfaction (at the end), days (as a member, within the run), value (long-term value in days: days within the run,
    plus what the hazard leaves of the next `value_days`).
    """

    policy: str
    members: pl.DataFrame
    counts: dict[str, dict[str, int]]
    titles_per_member: Ints64  # [M] distinct titles that each member played
    members_per_title: Ints64  # [T] distinct members that played each title
    seconds: float
    _logs: list[EventRecorder] | None = field(default=None, repr=False)

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
    writer: RowWriter | None = None,
    keep_log: bool = False,
    progress: Callable[[int, int], None] | None = None,
    watch: Watch | None = None,
    processes: int | None = 1,
) -> RunOutcome:
    """Run a world from its first day to its last, under a policy or the one that its spec names.

    Equal worlds and policies give equal events, to the bit, whatever else is asked for here. Members have the same luck
    under every policy where their questions are the same ones, so runs can be compared member by member.

    `writer` takes the canonical titles, availability, members, and the interactions in batches. `keep_log` holds the
    interactions in memory, for `RunOutcome.interactions` and `PolicyRequest.history`. `progress` is called with days
    done and days in all, `watch` with every round of questions, answers and responses before members' counters move on.
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


def _run(world: World, executor: Executor, progress: Callable[[int, int], None] | None) -> BlockTotals:
    played: Floats32 | None = None
    for day in range(world.spec.days):
        played = executor.run_day(day, played)
        if progress is not None:
            progress(day + 1, world.spec.days)
    return BlockTotals.joined(executor.totals())


def _outcome(
    policy: Policy, world: World, totals: BlockTotals, logs: list[EventRecorder] | None, seconds: float
) -> RunOutcome:
    return RunOutcome(
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


def _members(world: World, totals: BlockTotals) -> pl.DataFrame:
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


class Executor(Protocol):
    """Runs all blocks of a world, a day at a time."""

    def run_day(self, day: int, yesterday: Floats32 | None) -> Floats32:
        """Return [C, T]: what all members played on a day."""
        ...

    def totals(self) -> list[BlockTotals]:
        """Hand on what waits, and return what came of each block, in order."""
        ...


class MultiProcess:
    """Several processes run a share of the blocks each. Use it as a context manager.

    Their interactions come as files, which this process hands on while the next day is being run.

    Raises:
        ConfigError: The policy cannot be sent to another process.
    """

    def __init__(
        self, world: World, policy: Policy, blocks: Sequence[MemberBlock], sink: Sink | None, processes: int
    ) -> None:
        try:
            payload = pickle.dumps((world, policy))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"policy '{policy.name}' cannot be sent to another process ({error}); run it in one: --processes 1"
            ) from None
        self._sink, self._count = sink, len(blocks)
        self._waiting: list[Path] = []
        self._open = ExitStack()
        self._folder = Path(self._open.enter_context(TemporaryDirectory(prefix="playbill-simulate-")))
        self._shares = [list(blocks[number::processes]) for number in range(processes)]
        self._payload = payload
        self._pipes: list[Connection] = []

    def __enter__(self) -> Self:
        context = mp.get_context("spawn")
        for share in self._shares:
            here, there = context.Pipe()
            folder = None if self._sink is None else self._folder
            worker = context.Process(target=_work, args=(there, self._payload, share, folder), daemon=True)
            worker.start()
            self._open.callback(_end, worker)
            there.close()
            self._pipes.append(here)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def run_day(self, day: int, yesterday: Floats32 | None) -> Floats32:
        """Return [C, T]: what all members played on a day."""
        played: Floats32 = np.sum(self._ask("run_day", day, yesterday), axis=0, dtype=np.float32)
        return played

    def totals(self) -> list[BlockTotals]:
        """Hand on what waits, and return what came of each block, in order."""
        answers = self._ask("totals")
        self._hand_on()
        shares = [
            dict(zip([block.number for block in share], answer, strict=True))
            for share, answer in zip(self._shares, answers, strict=True)
        ]
        return [shares[number % len(shares)][number] for number in range(self._count)]

    def _ask(self, what: str, *arguments: Any) -> list[Any]:
        """Ask every process, hand on what came with the answers before, and return their answers."""
        for pipe in self._pipes:
            with suppress(BrokenPipeError, ConnectionResetError):  # who has ended says why in its last answer
                pipe.send((what, arguments))
        self._hand_on()
        answers = []
        for pipe in self._pipes:
            answer, files = _received(pipe)
            answers.append(answer)
            self._waiting += files
        return answers

    def _hand_on(self) -> None:
        waiting, self._waiting = sorted(self._waiting), []
        for path in waiting:
            if self._sink is not None:
                self._sink(pl.read_ipc(path))
            path.unlink()


def executor_size(processes: int | None, blocks: int) -> int:
    """Return how many processes to use: no more than there are blocks; None is one for each core.

    Raises:
        ConfigError: Less than one.
    """
    if processes is not None and processes < 1:
        raise ConfigError(f"{processes} processes cannot run anything; give 1 or more")
    return min(processes or _cores(), blocks)


def _cores() -> int:
    """Return the cores this process may use; macOS does not say which."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _received(pipe: Connection) -> tuple[Any, list[Path]]:
    try:
        error, answer, files = pipe.recv()
    except (EOFError, ConnectionResetError):
        raise StateError("a process of the simulation ended by itself, as it does when memory runs out") from None
    if error is not None:
        raise error
    return answer, files


def _work(pipe: Connection, payload: bytes, blocks: Sequence[MemberBlock], folder: Path | None) -> None:
    """Run a share of the blocks in a process of its own, as the other end of the pipe asks for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked ends this one
    written: list[Path] = []
    try:
        with one_thread():
            world, policy = pickle.loads(payload)
            sink = None if folder is None else (lambda block: _to_files(folder, block, written))
            part = Shard(world, policy, blocks, sink=sink)
            while True:
                what, arguments = pipe.recv()
                answer = getattr(part, what)(*arguments)
                pipe.send((None, answer, written.copy()))
                written.clear()
    except EOFError:
        return
    except Exception as error:  # the other end raises it
        pipe.send((error, None, []))


def _to_files(folder: Path, block: MemberBlock, written: list[Path]) -> Sink:
    numbers = iter(range(1_000_000))

    def write(frame: pl.DataFrame) -> None:
        path = folder / f"{block.number:05d}-{next(numbers):06d}.arrow"
        frame.write_ipc(path)
        written.append(path)

    return write


def _end(worker: Any) -> None:
    worker.terminate()
    worker.join()
