"""What the packed store asks of a database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

Progress = Callable[[int], object]
"""Told how many rows were written since it was last told."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Rows wanted of one view. A key of None has no row."""

    view: str
    keys: Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class Batch:
    """N packed rows to write, their schema, and the times that decide which rows stay."""

    schema_id: int
    schema: str
    keys: Sequence[bytes]
    rows: Sequence[bytes]
    event_us: Sequence[int]
    created_us: Sequence[int]

    def part(self, start: int, stop: int) -> Batch:
        """Return some consecutive rows."""
        chosen = slice(start, stop)
        return replace(
            self,
            keys=self.keys[chosen],
            rows=self.rows[chosen],
            event_us=self.event_us[chosen],
            created_us=self.created_us[chosen],
        )


class Backend(Protocol):
    """A database of packed rows. Views are named within a project.

    Of two rows of one key, the one with the later event time stays; of equal event times the one created later; of
    equal created times the one written later.
    """

    def create(self, view: str) -> None:
        """Make a place for a view, if there is none."""
        ...

    def drop(self, view: str) -> None:
        """Remove a view's rows and schemas, and nothing else."""
        ...

    def read(self, asks: Sequence[Ask]) -> list[list[bytes | None]]:
        """Read the rows of several views in one round trip, aligned to the keys asked for."""
        ...

    async def read_async(self, asks: Sequence[Ask]) -> list[list[bytes | None]]:
        """Do the same without blocking the event loop."""
        ...

    def write(self, view: str, batches: Iterable[Batch], progress: Progress | None) -> None:
        """Write rows and their schema, each row only where it is not older than what is there."""
        ...

    async def write_async(self, view: str, batches: Iterable[Batch], progress: Progress | None) -> None:
        """Do the same without blocking the event loop."""
        ...

    def schemas(self, view: str) -> dict[int, str]:
        """Return the schemas that the rows of a view were written with."""
        ...

    def scan(self, view: str) -> tuple[list[bytes], list[bytes]]:
        """Return every key and row of a view."""
        ...

    def version(self, view: str) -> object:
        """Return something that differs after a view's rows were written to, by any process."""
        ...

    async def close_async(self) -> None:
        """Close what belongs to the running event loop. The database stays usable."""
        ...

    def close(self) -> None:
        """Close this thread's connection."""
        ...
