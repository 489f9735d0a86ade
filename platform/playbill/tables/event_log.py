"""The interactions of one generation on disk, twice: by day for whole-log reads, by member for one history.

`interactions/day=YYYY-MM-DD/part-*.parquet` is the log, Hive style. `by_member/NNNNN.parquet` holds the same
rows sorted by member and seq in contiguous ranges of members, so that one member's history is a single small
read. Both are written from staged batches in slices of bounded size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from playbill.tables.frames import TIMESTAMP, polars_schema
from playbill.tables.generations import BY_MEMBER, INTERACTIONS, Manifest, link_file

SLICE_ROWS = 1_000_000
"""Rows held at once while the log is written, unless one day or one member alone has more."""

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


def write_log(staged: Sequence[Path], folder: Path) -> LogSummary:
    """Write staged canonical batches into a new generation, by day and by member.

    Args:
        staged: Parquet files of canonical interactions, in any order.
        folder: The generation's folder.

    Returns:
        The summary for the manifest.
    """
    log = pl.scan_parquet(list(staged))
    days = _days(log)
    for first, last in _day_slices(days):
        rows = log.filter(pl.col("event_at").is_between(*_day_bounds(first, last), closed="left")).collect()
        for part in rows.sort("event_at", "member_id", "seq").with_columns(_day()).partition_by("day"):
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


def append_log(old: Path, manifest: Manifest, events: pl.DataFrame, folder: Path) -> tuple[LogSummary, list[Path]]:
    """Build a new generation's log from an old one plus a few events, sharing every untouched file.

    Args:
        old: The published generation.
        manifest: Its manifest.
        events: Canonical interactions that are not in it yet.
        folder: The new generation's folder; its `interactions` already holds the old parts.

    Returns:
        The summary for the manifest, and the added parts relative to the generation.
    """
    days, added = dict(manifest.days), []
    for part in events.sort("event_at", "member_id", "seq").with_columns(_day()).partition_by("day"):
        day = part.get_column("day")[0]
        number = len(list((folder / INTERACTIONS / f"day={day.isoformat()}").glob("part-*.parquet")))
        added.append(write_day_part(folder, day, part.drop("day"), number))
        days[day.isoformat()] = days.get(day.isoformat(), 0) + part.height
    _append_buckets(old, manifest.bucket_starts, events, folder)
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


def bucket_files(generation: Path, starts: Sequence[str], members: Sequence[str] | None) -> list[Path]:
    """Return the files of `by_member` that can hold some members' rows, or all of them."""
    every = range(len(starts))
    wanted = every if members is None else sorted({bucket_of(starts, member) for member in members})
    return [bucket_path(generation, number) for number in wanted]


def bucket_of(starts: Sequence[str], member_id: str) -> int:
    """Return the number of the bucket a member belongs to."""
    return max(0, bisect_right(starts, member_id) - 1)


def bucket_path(generation: Path, number: int) -> Path:
    """Return the path of one file of `by_member`."""
    return generation / BY_MEMBER / f"{number:05d}.parquet"


def to_microseconds(moment: datetime) -> int:
    """Return exact microseconds since 1970 of a zone-aware moment."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def last_event_us(log: pl.LazyFrame) -> int:
    """Return the time of the last event in microseconds since 1970."""
    return int(log.select(pl.col("event_at").max().dt.epoch("us")).collect().item())


def _day() -> pl.Expr:
    return pl.col("event_at").dt.date().alias("day")


def _days(log: pl.LazyFrame) -> dict[date, int]:
    counts = log.group_by(_day()).len().sort("day").collect()
    return dict(zip(counts.get_column("day").to_list(), counts.get_column("len").to_list(), strict=True))


def _day_slices(days: dict[date, int]) -> Iterator[tuple[date, date]]:
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
    return pl.lit(start, dtype=TIMESTAMP), pl.lit(end, dtype=TIMESTAMP)


def _write_buckets(log: pl.LazyFrame, folder: Path) -> tuple[str, ...]:
    counts = log.group_by("member_id").len().sort("member_id").collect()
    members = counts.get_column("member_id")
    numbers = (counts.get_column("len").cum_sum().to_numpy() - 1) // SLICE_ROWS
    edges = [0, *(int(edge) + 1 for edge in np.flatnonzero(np.diff(numbers))), len(members)]
    (folder / BY_MEMBER).mkdir(parents=True)
    for number, (start, end) in enumerate(pairwise(edges)):
        inside = pl.col("member_id").is_between(pl.lit(members[start]), pl.lit(members[end - 1]))
        _write_bucket(log.filter(inside).collect(), folder, number)
    return tuple(members[start] for start in edges[:-1])


def _append_buckets(old: Path, starts: Sequence[str], events: pl.DataFrame, folder: Path) -> None:
    (folder / BY_MEMBER).mkdir(parents=True)
    numbers = [bucket_of(starts, member) for member in events.get_column("member_id")]
    grouped = events.with_columns(pl.Series("bucket", numbers, dtype=pl.Int64)).partition_by(
        "bucket", as_dict=True, include_key=False
    )
    for number in range(len(starts)):
        added = grouped.get((number,))
        if added is None:
            link_file(bucket_path(old, number), bucket_path(folder, number))
        else:
            _write_bucket(pl.concat([pl.read_parquet(bucket_path(old, number)), added]), folder, number)


def _write_bucket(rows: pl.DataFrame, folder: Path, number: int) -> None:
    ordered = rows.select(polars_schema("interactions").names()).sort("member_id", "seq")
    ordered.write_parquet(bucket_path(folder, number), row_group_size=_ROW_GROUP_ROWS)
