"""From the canonical tables to the feature files of a workspace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import polars as pl
import pyarrow.parquet as pq

from playbill.config import Workspace
from playbill.features.members import member_activity, member_profile
from playbill.features.titles import title_popularity, title_profile
from playbill.tables import Tables

Progress = Callable[[str], None]

EVENTS_PER_PART = 4_000_000
"""Events whose changes are held in memory at once; a part takes about 2 GiB."""

_READ = ("member_id", "event_at", "recorded_at", "action", "title_id")


@dataclass(frozen=True, slots=True)
class BuiltView:
    """One feature file that was written."""

    view: str
    rows: int
    seconds: float
    path: Path


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What `build_features` wrote, and for which state of the tables."""

    workspace: str
    snapshot_id: str
    views: tuple[BuiltView, ...]


def build_features(workspace: Workspace, progress: Progress | None = None) -> BuildReport:
    """Compute the shipped views' values from the canonical tables, as of every moment they change.

    Each file HOME/NAME/features/VIEW.parquet is written beside and renamed, so readers see the old or the new
    one, never a half.

    Args:
        workspace: Whose tables.
        progress: Called with each view's name before it is computed.

    Raises:
        StateError: Nothing has been ingested yet.
    """
    tables = Tables(workspace).require()
    titles = tables.titles()
    events = tables.interactions().select(_READ)
    sources: dict[str, Callable[[], Iterator[pl.DataFrame]]] = {
        "member_profile": lambda: iter([member_profile(tables.members())]),
        "title_profile": lambda: iter([title_profile(titles, tables.availability())]),
        "member_activity": lambda: (member_activity(part, titles) for part in _parts(events, "member_id")),
        "title_popularity": lambda: (title_popularity(part) for part in _parts(events, "title_id")),
    }
    workspace.features.mkdir(parents=True, exist_ok=True)
    built = []
    for view, frames in sources.items():
        if progress:
            progress(view)
        started = perf_counter()
        path = workspace.features / f"{view}.parquet"
        rows = _write(frames(), path)
        built.append(BuiltView(view, rows, perf_counter() - started, path))
    return BuildReport(workspace.name, tables.snapshot_id(), tuple(built))


def _parts(events: pl.DataFrame, key: str) -> Iterator[pl.DataFrame]:
    """Split the events into parts of bounded size that hold whole keys."""
    count = max(1, -(-events.height // EVENTS_PER_PART))
    if count == 1:
        yield events
        return
    part = pl.col(key).hash() % count
    for index in range(count):
        yield events.filter(part == index)


def _write(frames: Iterator[pl.DataFrame], path: Path) -> int:
    """Write the frames as the row groups of one file, then put it in place."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    rows, writer = 0, None
    try:
        for frame in frames:
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            writer = writer or pq.ParquetWriter(beside, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=256_000)
            rows += table.num_rows
        if writer:
            writer.close()
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return rows
