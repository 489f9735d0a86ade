"""Stages and bars on the terminal, for the commands that take a while."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Stages:
    """A line per stage with its seconds, and a bar for the one at hand. Goes to stderr, so stdout stays data."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.seconds: dict[str, float] = {}
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._name, self._begun = "", 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(done=kind is None)
        self._bar.stop()

    def stage(self, name: str) -> None:
        """End the stage at hand, and begin the next."""
        self._end(done=True)
        self._name, self._begun = name, time.perf_counter()
        self._task = self._bar.add_task(name, total=None, detail="")

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """Move the bar of the stage at hand."""
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, detail=detail)

    def _end(self, *, done: bool) -> None:
        if self._task is None:
            return
        self._bar.remove_task(self._task)
        self._task = None
        seconds = time.perf_counter() - self._begun
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + seconds
        mark = "[green]✓[/]" if done else "[red]✗[/]"
        self.console.print(f"{mark} {self._name} [dim]{seconds:.1f} s[/]")
