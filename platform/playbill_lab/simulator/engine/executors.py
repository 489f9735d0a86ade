"""Who does the work of a run: a `Shard` in this process, or several processes that synchronise once per simulated day.

What members do depends on their block and on what all blocks played before, so the number of processes changes
nothing but the time.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import signal
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import polars as pl

from playbill.arrays import Floats32
from playbill.errors import ConfigError, StateError
from playbill_lab.simulator.engine.shards import Block, Shard, Sink, Totals
from playbill_lab.simulator.policies.policies import Policy
from playbill_lab.simulator.world.random_streams import one_thread
from playbill_lab.simulator.world.world import World


class Executor(Protocol):
    """Runs all blocks of a world, a day at a time."""

    def run_day(self, day: int, yesterday: Floats32 | None) -> Floats32:
        """Return [C, T]: what all members played on a day."""
        ...

    def totals(self) -> list[Totals]:
        """Hand on what waits, and return what came of each block, in order."""
        ...


class MultiProcess:
    """Several processes run a share of the blocks each. Use it as a context manager.

    Their interactions come as files, which this process hands on while the next day is being run.

    Raises:
        ConfigError: The policy cannot be sent to another process.
    """

    def __init__(
        self, world: World, policy: Policy, blocks: Sequence[Block], sink: Sink | None, processes: int
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

    def totals(self) -> list[Totals]:
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


def _work(pipe: Connection, payload: bytes, blocks: Sequence[Block], folder: Path | None) -> None:
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


def _to_files(folder: Path, block: Block, written: list[Path]) -> Sink:
    numbers = iter(range(1_000_000))

    def write(frame: pl.DataFrame) -> None:
        path = folder / f"{block.number:05d}-{next(numbers):06d}.arrow"
        frame.write_ipc(path)
        written.append(path)

    return write


def _end(worker: Any) -> None:
    worker.terminate()
    worker.join()
