"""Stages and how far they are, on stderr, for the commands that take a while: bars on a terminal, else plain lines."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0
"""How often a line is printed where stderr is a file or a pipe."""


class Stages:
    """A line per finished stage with its seconds. Goes to stderr, so stdout stays data.

    The stage at hand is a bar on a terminal. Elsewhere it is a line every few seconds: steps done, steps a second, and
    the time that is left; for a stage that counts nothing, how long it has taken.
    """

    def __init__(self, console: Console | None = None, line_every_s: float = LINE_EVERY_S) -> None:
        self.console = console or Console(stderr=True)
        self.seconds: dict[str, float] = {}
        self._bar = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._name: str | None = None
        self._begun, self._first = 0.0, (0.0, 0)
        self._now: tuple[int, int, str] | None = None
        self._line_every_s = line_every_s
        self._stopped = threading.Event()
        self._lines = threading.Thread(target=self._print_lines, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        else:
            self._lines.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(done=kind is None)
        self._stopped.set()
        if self._lines.is_alive():
            self._lines.join()
        self._bar.stop()

    def stage(self, name: str) -> None:
        """End the stage at hand, and begin the next."""
        self._end(done=True)
        self._name, self._begun, self._now = name, time.perf_counter(), None
        self._task = self._bar.add_task(name, total=None, detail="")

    def advance(self, done: int, total: int | None, detail: str = "") -> None:
        """Say how far the stage at hand is. Work that an earlier attempt did does not count for the rate."""
        if self._task is None:
            return
        if self._now is None or done < self._now[0]:
            self._first = (time.perf_counter(), done)
        self._now = (done, total or 0, detail)
        self._bar.update(self._task, completed=done, total=total, detail=detail)

    def line(self) -> str:
        """Return the stage at hand as a line of text, empty between stages."""
        name, now = self._name, self._now
        if name is None:
            return ""
        if now is None:
            return f"· {name}: {_clock(time.perf_counter() - self._begun)}"
        done, total, detail = now
        taken, steps = time.perf_counter() - self._first[0], done - self._first[1]
        parts = [f"{done:,}/{total:,}" if total else f"{done:,}"]
        if steps > 0 and taken > 0:
            parts.append(f"{steps / taken:,.3g}/s")
            if total > done:
                parts.append(f"{_clock((total - done) * taken / steps)} left")
        return f"· {name}: {', '.join([*parts, detail] if detail else parts)}"

    def _print_lines(self) -> None:
        while not self._stopped.wait(self._line_every_s):
            if line := self.line():
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _end(self, *, done: bool) -> None:
        if self._task is None or self._name is None:
            return
        self._bar.remove_task(self._task)
        name, self._task, self._name = self._name, None, None
        seconds = time.perf_counter() - self._begun
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        mark = "[green]✓[/]" if done else "[red]✗[/]"
        self.console.print(f"{mark} {escape(name)} [dim]{seconds:.1f} s[/]")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
