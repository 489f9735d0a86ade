"""Reading KuaiRand's logs as a stream into parts on disk, each with whole members, so that any set fits in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from playbill.clock import EPOCH
from playbill.errors import Problem
from playbill.tables import example_row

FLAGS = (
    *("is_click", "is_like", "is_follow", "is_comment", "is_forward"),
    *("is_hate", "long_view", "is_profile_enter", "is_rand"),
)
"""Columns of a log that are 0 or 1."""

AMOUNTS = ("tab", "play_time_ms", "duration_ms", "profile_stay_time", "comment_stay_time")
"""Columns of a log that are never negative."""

LOG_COLUMNS = ("user_id", "video_id", "time_ms", *AMOUNTS, *FLAGS)
"""Columns of a log that are read; all are whole numbers."""

ROWS_PER_PART = 400_000
"""Exposures in a part, about; each becomes some three events."""

_BYTES_PER_ROW = {".csv": 70, ".parquet": 12}
_PART = "_part"


@dataclass(frozen=True, slots=True)
class Exposures:
    """Logs that were read and checked."""

    files: tuple[Path, ...]
    """Parts on disk, each with whole members."""
    rows: int
    """Exposures in them."""
    repeated: int
    """Rows that were left out because they repeat another one in every column."""
    first_moment: datetime
    """Moment of the first exposure."""
    videos: pl.DataFrame
    """video_id and duration_ms of every video shown."""

    def parts(self) -> Iterator[pl.DataFrame]:
        """Yield the parts one by one."""
        return (pl.read_parquet(path) for path in self.files)


def read_exposures(logs: Sequence[tuple[Path, pl.LazyFrame]], scratch: Path) -> tuple[Exposures | None, list[Problem]]:
    """Read logs, as text or numbers with the columns of `LOG_COLUMNS`, into parts on disk.

    Returns:
        The exposures, and every mistake in the logs; with mistakes there are no exposures.
    """
    parts = 1 + sum(path.stat().st_size // _BYTES_PER_ROW[path.suffix] for path, _ in logs) // ROWS_PER_PART
    problems: list[Problem] = []
    by_member = scratch / "by_member"
    for number, (path, rows) in enumerate(logs):
        problems += _spread(path, rows, by_member / str(number), parts)
    if problems:
        return None, problems
    folders = sorted({found.parent.name for found in by_member.rglob("*.parquet")})
    if not folders:
        return None, [Problem(path.name, "there is not a single row.") for path, _ in logs]
    exposures = _gathered(by_member, folders, scratch)
    shutil.rmtree(by_member)
    return exposures, []


def _spread(path: Path, rows: pl.LazyFrame, folder: Path, parts: int) -> list[Problem]:
    """Write one log in folders of whole members, and return what is wrong in it."""
    numbers = rows.select(_whole(name, kind) for name, kind in _log_schema(rows).items())
    key = (pl.col("user_id").fill_null(0) % parts).alias(_PART)
    try:
        numbers.sink_parquet(pl.PartitionBy(folder, key=key, include_key=False), compression="lz4", mkdir=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        return [Problem(path.name, f"the file cannot be read: {first}.")]
    written = sorted(folder.rglob("*.parquet"))
    return _mistakes(path.name, rows, pl.scan_parquet(written)) if written else []


def _log_schema(rows: pl.LazyFrame) -> dict[str, pl.DataType]:
    schema = rows.collect_schema()
    return {name: schema[name] for name in LOG_COLUMNS}


def _whole(name: str, kind: pl.DataType) -> pl.Expr:
    """Read a column as int64; what is no whole number becomes null."""
    column = pl.col(name)
    if kind.is_integer():
        return column.cast(pl.Int64)
    number = column.str.strip_chars().cast(pl.Float64, strict=False) if kind == pl.String else column
    whole = pl.when(number == number.floor()).then(number).cast(pl.Int64, strict=False)
    if kind != pl.String:
        return whole.alias(name)
    # Most are plain digits; some tools write whole numbers of a column with gaps as 12.0.
    return pl.coalesce(column.str.strip_chars().cast(pl.Int64, strict=False), whole).alias(name)


def _rules() -> Iterator[tuple[str, str, pl.Expr]]:
    for name in LOG_COLUMNS:
        yield name, "a value that is no whole number", pl.col(name).is_null()
    for name in FLAGS:
        yield name, "a value that is neither 0 nor 1", ~pl.col(name).is_in([0, 1])
    for name in ("user_id", "video_id", "time_ms", *AMOUNTS):
        yield name, "a negative value", pl.col(name) < 0


def _mistakes(file: str, raw: pl.LazyFrame, numbers: pl.LazyFrame) -> list[Problem]:
    rules = list(_rules())
    counts = numbers.select(
        broken.fill_null(False).sum().alias(str(place)) for place, (*_, broken) in enumerate(rules)
    ).collect()
    broken = [(rule, count) for rule, count in zip(rules, counts.row(0), strict=True) if count]
    return [_mistake(file, raw, rule, count) for rule, count in broken]


def _mistake(file: str, raw: pl.LazyFrame, rule: tuple[str, str, pl.Expr], count: int) -> Problem:
    name, what, broken = rule
    kind = _log_schema(raw)[name]
    # The rule speaks of numbers, the example should show what is in the file.
    text = raw.select(LOG_COLUMNS).with_columns(pl.col(name).alias("_text"), _whole(name, kind))
    found = text.filter(broken).head(1).collect()
    rows = f"{count} row{'s' if count != 1 else ''}"
    example = f"For example {found.item(0, '_text')!r} where {example_row(found.drop('_text', name))}."
    return Problem(file, f"column '{name}': {what} in {rows}.", example)


def _gathered(by_member: Path, folders: Sequence[str], scratch: Path) -> Exposures:
    """Join each folder's files of all logs, and leave out repeated rows."""
    target = scratch / "exposures"
    target.mkdir()
    files, videos = [], []
    rows = repeated = 0
    first: list[int] = []
    for place, folder in enumerate(folders):
        part = pl.read_parquet(sorted(by_member.glob(f"*/{folder}/*.parquet")))
        single = part.unique()
        repeated += part.height - single.height
        rows += single.height
        first += single.get_column("time_ms").sort().head(1).to_list()
        videos.append(single.group_by("video_id").agg(pl.col("duration_ms").max()))
        files.append(target / f"{place:05d}.parquet")
        single.write_parquet(files[-1], compression="lz4")
    shown = pl.concat(videos).group_by("video_id").agg(pl.col("duration_ms").max())
    start = EPOCH + timedelta(milliseconds=min(first))
    return Exposures(tuple(files), rows, repeated, start, shown)
