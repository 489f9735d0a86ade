"""The interactions of one generation on disk, twice: by day for whole-log reads, by member for one history.

`interactions/day=YYYY-MM-DD/part-*.parquet` is the log, Hive style. `by_member/NNNNN.parquet` holds the same
rows in the log's order in contiguous ranges of members (buckets), so that one member's history is a single small
read. Both are written from staged batches in slices of bounded size. Appending adds files beside, a part to every
day it touches and a `by_member/NNNNN-KKKK.parquet` to every bucket, and merges a bucket when it has enough of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from playbill.tables.frames import aligned, scan_files, utc_literal
from playbill.tables.generations import BY_MEMBER, INTERACTIONS, GenerationManifest, link_file

SLICE_ROWS = 1_000_000
"""Rows held at once while the log is written, unless one day or one member alone has more."""

ORDER = ("member_id", "seq", "event_at", "recorded_at")
"""The log's order. Only a late event that found no free `seq` shares one, with the event it follows."""

ADDED_SHARE = 0.25
ADDED_FILES = 8
"""A bucket is merged when what was added to it is more than this share of it, or is in this many files."""

_ROW_GROUP_ROWS = 8_192
"""Small row groups: reading one member decodes little more than that member."""


@dataclass(frozen=True, slots=True)
class LogSummary:
    """What was written: rows per ISO day, the first member of every bucket, the last event."""

    days: dict[str, int]
    bucket_starts: tuple[str, ...]
    last_event_us: int

    @property
    def rows(self) -> int:
        """The number of interactions."""
        return sum(self.days.values())


def write_log(staged: Sequence[Path], folder: Path, schema: pl.Schema) -> LogSummary:
    """Write staged parquet files of canonical interactions into a new generation, by day and by member."""
    log = scan_files(staged, schema)
    days = _days(log)
    for first, last in _day_slices(days):
        rows = log.filter(pl.col("event_at").is_between(*_day_bounds(first, last), closed="left")).collect()
        for part in _by_day(rows):
            write_day_part(folder, part.get_column("day")[0], part.drop("day"), number=0)
    starts = _write_buckets(log, folder)
    return LogSummary({day.isoformat(): count for day, count in days.items()}, starts, last_event_us(log))


def write_day_part(folder: Path, day: date, rows: pl.DataFrame, number: int) -> Path:
    """Write one part of a day's partition and return its path relative to the generation."""
    relative = Path(INTERACTIONS) / f"day={day.isoformat()}" / f"part-{number:05d}.parquet"
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path)
    return relative


def append_log(
    old: Path, manifest: GenerationManifest, events: pl.DataFrame, folder: Path, schema: pl.Schema
) -> tuple[LogSummary, list[Path]]:
    """Build a new generation's log from an old one plus a few new events, sharing every untouched file.

    Args:
        old: The published generation.
        manifest: Its manifest.
        events: Canonical interactions that are not in it yet.
        folder: The new generation's folder; its `interactions` already holds the old parts.
        schema: Columns of the old log and the events together.

    Returns:
        The summary for the manifest, and the added parts relative to the generation.
    """
    days = dict(manifest.days)
    added: list[Path] = []
    if events.is_empty():
        _append_buckets(old, manifest.bucket_starts, schema.to_frame(), folder, schema)
        return LogSummary(days, manifest.bucket_starts, manifest.last_event_us), added
    for part in _by_day(aligned(events, schema)):
        day = part.get_column("day")[0]
        number = len(list((folder / INTERACTIONS / f"day={day.isoformat()}").glob("part-*.parquet")))
        added.append(write_day_part(folder, day, part.drop("day"), number))
        days[day.isoformat()] = days.get(day.isoformat(), 0) + part.height
    _append_buckets(old, manifest.bucket_starts, aligned(events, schema), folder, schema)
    last = max(manifest.last_event_us, last_event_us(events.lazy()))
    return LogSummary(dict(sorted(days.items())), manifest.bucket_starts, last), added


def day_files(generation: Path, days: Sequence[str]) -> list[Path]:
    """Return the parts of some ISO days, in order."""
    folders = (generation / INTERACTIONS / f"day={day}" for day in days)
    return [path for folder in folders for path in sorted(folder.glob("part-*.parquet"))]


def days_between(days: Sequence[str], since: datetime | None, until: datetime | None) -> list[str]:
    """Return the ISO days that can hold events with `since <= event_at < until`."""
    first = since.astimezone(UTC).date().isoformat() if since else ""
    last = until.astimezone(UTC).date().isoformat() if until else "9999-12-31"
    return [day for day in days if first <= day <= last]


def bucket_files(generation: Path, starts: Sequence[str], members: Sequence[str] | None) -> list[list[Path]]:
    """Return the files of each bucket that can hold some members' rows, or of every bucket."""
    every = range(len(starts))
    wanted = every if members is None else sorted({bucket_of(starts, member) for member in members})
    return [bucket_paths(generation, number) for number in wanted]


def bucket_of(starts: Sequence[str], member_id: str) -> int:
    """Return the number of the bucket a member belongs to."""
    return max(0, bisect_right(starts, member_id) - 1)


def bucket_paths(generation: Path, number: int) -> list[Path]:
    """Return the files of one bucket: the sorted one, then those added to it."""
    added = sorted((generation / BY_MEMBER).glob(f"{number:05d}-*.parquet"))
    return [_bucket_path(generation, number), *added]


def last_event_us(log: pl.LazyFrame) -> int:
    """Return the time of the last event in microseconds since 1970."""
    return int(log.select(pl.col("event_at").max().dt.epoch("us")).collect().item())


def _bucket_path(generation: Path, number: int) -> Path:
    return generation / BY_MEMBER / f"{number:05d}.parquet"


def _day() -> pl.Expr:
    return pl.col("event_at").dt.date().alias("day")


def _by_day(rows: pl.DataFrame) -> list[pl.DataFrame]:
    return rows.sort("event_at", "member_id", "seq", "event_id").with_columns(_day()).partition_by("day")


def _days(log: pl.LazyFrame) -> dict[date, int]:
    counts = log.group_by(_day()).len().sort("day").collect()
    return dict(zip(counts.get_column("day").to_list(), counts.get_column("len").to_list(), strict=True))


def _day_slices(days: Mapping[date, int]) -> Iterator[tuple[date, date]]:
    first: date | None = None
    last, rows = date.min, 0
    for day, count in days.items():
        if first is not None and rows + count > SLICE_ROWS:
            yield first, last
            first, rows = None, 0
        first = first or day
        last, rows = day, rows + count
    if first is not None:
        yield first, last


def _day_bounds(first: date, last: date) -> tuple[pl.Expr, pl.Expr]:
    start = datetime.combine(first, time(), tzinfo=UTC)
    end = datetime.combine(last, time(), tzinfo=UTC) + timedelta(days=1)
    return utc_literal(start), utc_literal(end)


def _write_buckets(log: pl.LazyFrame, folder: Path) -> tuple[str, ...]:
    counts = log.group_by("member_id").len().sort("member_id").collect()
    members = counts.get_column("member_id")
    numbers = (counts.get_column("len").cum_sum().to_numpy() - 1) // SLICE_ROWS
    edges = [0, *(int(edge) + 1 for edge in np.flatnonzero(np.diff(numbers))), len(members)]
    (folder / BY_MEMBER).mkdir(parents=True)
    for number, (start, end) in enumerate(pairwise(edges)):
        inside = pl.col("member_id").is_between(pl.lit(members[start]), pl.lit(members[end - 1]))
        _write_bucket(log.filter(inside).collect(), _bucket_path(folder, number))
    return tuple(members[start] for start in edges[:-1])


def _append_buckets(old: Path, starts: Sequence[str], events: pl.DataFrame, folder: Path, schema: pl.Schema) -> None:
    (folder / BY_MEMBER).mkdir(parents=True)
    place = pl.Series(starts, dtype=pl.String).search_sorted(events.get_column("member_id"), side="right")
    numbered = events.with_columns((pl.Series("_bucket", place).cast(pl.Int64) - 1).clip(lower_bound=0))
    grouped = numbered.partition_by("_bucket", as_dict=True, include_key=False)
    for number in range(len(starts)):
        paths = bucket_paths(old, number)
        added = grouped.get((number,))
        if added is not None and _is_full(paths, added.height):
            _write_bucket(pl.concat([scan_files(paths, schema).collect(), added]), _bucket_path(folder, number))
            continue
        for path in paths:
            link_file(path, folder / BY_MEMBER / path.name)
        if added is not None:
            _write_bucket(added, folder / BY_MEMBER / f"{number:05d}-{len(paths):04d}.parquet")


def _is_full(paths: Sequence[Path], rows: int) -> bool:
    base, *added = (pl.scan_parquet(path).select(pl.len()).collect().item() for path in paths)
    return len(added) + 1 >= ADDED_FILES or sum(added) + rows > ADDED_SHARE * base


def _write_bucket(rows: pl.DataFrame, path: Path) -> None:
    rows.sort(*ORDER, "event_id").write_parquet(path, row_group_size=_ROW_GROUP_ROWS)
