"""Finding and opening KuaiRand's files: the publisher's tar archive or folder, or a folder of parquet tables.

| table | publisher's files (SET is pure, 1k or 27k) | parquet |
|---|---|---|
| log | `log_standard_*_SET*.csv`, `log_random_*_SET*.csv` | `impressions.parquet` |
| users | `user_features_SET.csv` | `users.parquet` |
| videos | `video_features_basic_SET.csv` | `videos.parquet` |
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path

import polars as pl

from playbill.errors import DataError, Problem, did_you_mean
from playbill.schema import UNKNOWN_COUNTRY
from playbill.sources.kuairand.logs import LOG_COLUMNS, Exposures, read_exposures
from playbill.tables import example_row
from playbill.tables.frames import utc_literal

ZONE = "Asia/Shanghai"
"""Days in the data are days there."""

USER_COLUMNS = ("user_id", "register_days")
"""Columns that users must have; the others are kept as they are."""

VIDEO_COLUMNS = ("video_id", "upload_dt", "video_duration", "tag")
"""Columns of videos that are read."""

_MINUTE_MS = 60_000


def checked_users(users: pl.DataFrame, file: str) -> tuple[pl.DataFrame, list[Problem]]:
    """Return users with user_id and register_days as whole numbers, and what is wrong in the file."""
    read = users.with_columns(pl.col(USER_COLUMNS).cast(pl.Int64, strict=False))
    return read, [problem for name in USER_COLUMNS for problem in _unread(users, read, file, name, needed=True)]


def checked_videos(videos: pl.DataFrame, file: str) -> tuple[pl.DataFrame, list[Problem]]:
    """Return `VIDEO_COLUMNS` as a number, a day, milliseconds and text, and what is wrong in the file."""
    read = videos.select(
        pl.col("video_id").cast(pl.Int64, strict=False),
        pl.col("upload_dt").cast(pl.String).str.strip_chars().str.to_date("%Y-%m-%d", strict=False),
        pl.col("video_duration").cast(pl.Float64, strict=False),
        pl.col("tag").cast(pl.String),
    )
    problems = [*_unread(videos, read, file, "video_id", needed=True)]
    for name in ("upload_dt", "video_duration"):
        problems += _unread(videos, read, file, name, needed=False)
    return read, problems


def members_of(users: pl.DataFrame, start: datetime) -> pl.DataFrame:
    """Make members of users, whose other columns are kept.

    They are known from the start of the log, and joined `register_days` before it.
    """
    begin = utc_literal(start)
    return users.select(
        pl.col("user_id").cast(pl.String).alias("member_id"),
        begin.alias("valid_from"),
        begin.alias("recorded_at"),
        pl.lit(UNKNOWN_COUNTRY).alias("country"),
        (begin - pl.duration(days=pl.col("register_days"))).alias("joined_at"),
        pl.exclude("user_id"),
    )


def titles_of(videos: pl.DataFrame, seen: pl.DataFrame) -> pl.DataFrame:
    """Make titles of checked videos, and of those that only occur in the log (`seen`: video_id and duration_ms).

    Returns:
        title_id, name, kind, genres, release_date and runtime_min. Videos have no names: they are called by number.
    """
    strangers = seen.join(videos, on="video_id", how="anti")
    strangers = strangers.select("video_id", video_duration=pl.col("duration_ms").cast(pl.Float64))
    rows = pl.concat([videos, strangers], how="diagonal").sort("video_id", maintain_order=True)
    tag = pl.element().str.strip_chars()
    length = pl.col("video_duration")
    released = pl.col("upload_dt").cast(pl.Datetime("us")).dt.replace_time_zone(ZONE)
    return rows.select(
        title_id=pl.col("video_id").cast(pl.String),
        name=pl.format("Video {}", "video_id"),
        kind=pl.lit("film"),
        genres=pl.col("tag").str.split(",").list.eval(pl.format("kuairand.tag_{}", tag.filter(tag != ""))),
        release_date=released.dt.convert_time_zone("UTC"),
        runtime_min=pl.when(length > 0).then((length / _MINUTE_MS).ceil()).cast(pl.Int32),
    )


def _unread(given: pl.DataFrame, read: pl.DataFrame, file: str, name: str, *, needed: bool) -> list[Problem]:
    broken = read.get_column(name).is_null() & (needed | given.get_column(name).is_not_null())
    count = int(broken.sum())
    if not count:
        return []
    found = given.filter(broken).head(1)
    example = f"For example {found.item(0, name)!r} where {example_row(found.drop(name))}."
    what = "no day such as 2022-04-10" if name == "upload_dt" else "no number"
    return [
        Problem(file, f"column '{name}': a value that is {what} in {count} row{'s' if count != 1 else ''}.", example)
    ]


_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class KuaiRandFiles:
    """What was read: exposures on disk, users and videos in memory."""

    exposures: Exposures
    users: pl.DataFrame
    videos: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Table:
    """Where one table is, and the columns it must have."""

    patterns: tuple[str, ...]
    columns: tuple[str, ...]


_Layout = dict[str, _Table]


def _publishers(suffix: str) -> _Layout:
    return {
        "log": _Table((f"log_standard_*_{suffix}*.csv", f"log_random_*_{suffix}*.csv"), LOG_COLUMNS),
        "users": _Table((f"user_features_{suffix}.csv",), USER_COLUMNS),
        "videos": _Table((f"video_features_basic_{suffix}.csv",), VIDEO_COLUMNS),
    }


_PARQUET = {
    "log": _Table(("impressions.parquet",), LOG_COLUMNS),
    "users": _Table(("users.parquet",), USER_COLUMNS),
    "videos": _Table(("videos.parquet",), VIDEO_COLUMNS),
}


def read_folder(folder: Path, scratch: Path, suffix: str) -> KuaiRandFiles:
    """Read a folder of one of the two layouts.

    Args:
        folder: It, or a folder that has the publisher's files in `data` or in `KuaiRand-SET/data`.
        scratch: Where the log's parts are written.
        suffix: pure, 1k or 27k: how the publisher's files end.

    Raises:
        DataError: Files or columns are missing, or values are not what they should be; all are named.
    """
    place, layout = _layout(folder, suffix)
    found = {name: _find(place, table) for name, table in layout.items()}
    _raise(folder, [problem for _, problems in found.values() for problem in problems])
    files = {name: paths for name, (paths, _) in found.items()}
    problems = [problem for name, table in layout.items() for problem in _missing_columns(files[name], table)]
    _raise(folder, problems)
    users, of_users = checked_users(_typed(files["users"][0]), files["users"][0].name)
    videos, of_videos = checked_videos(_typed(files["videos"][0]), files["videos"][0].name)
    exposures, of_log = read_exposures([(path, _scan(path)) for path in files["log"]], scratch)
    problems = [*of_log, *of_users, *of_videos]
    if problems or exposures is None:
        raise DataError(str(folder), problems)
    return KuaiRandFiles(exposures, users, videos)


def unpack_tar(archive: Path, into: Path, suffix: str) -> Path:
    """Write the files that are read from a tar archive into a folder, and return it.

    Raises:
        DataError: It is no tar archive, or it is damaged.
    """
    wanted = [pattern for table in _publishers(suffix).values() for pattern in table.patterns]
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                name = Path(member.name).name
                if member.isfile() and any(fnmatch(name, pattern) for pattern in wanted):
                    _extract(opened, member, into / name)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        what = f"this is no readable tar archive: {error}."
        raise DataError(str(archive), [Problem(archive.name, what)]) from None
    return into


def _extract(opened: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = opened.extractfile(member)
    if source is None:
        return
    with source, target.open("wb") as written:
        while block := source.read(_BLOCK):
            written.write(block)


def _layout(folder: Path, suffix: str) -> tuple[Path, _Layout]:
    """Return where the tables are and how they are laid out; with neither there, the publisher's are missed."""
    names = [f"KuaiRand-{suffix}", f"KuaiRand-{suffix.capitalize()}", f"KuaiRand-{suffix.upper()}"]
    for place in (folder, folder / "data", *(folder / name / "data" for name in names)):
        layout = _publishers(suffix)
        if any(list(place.glob(pattern)) for table in layout.values() for pattern in table.patterns):
            return place, layout
    if any((folder / pattern).is_file() for table in _PARQUET.values() for pattern in table.patterns):
        return folder, _PARQUET
    return folder, _publishers(suffix)


def _find(place: Path, table: _Table) -> tuple[list[Path], list[Problem]]:
    paths: list[Path] = []
    problems = []
    for pattern in table.patterns:
        found = sorted(place.glob(pattern))
        paths += found
        if not found:
            problems.append(Problem(pattern, "the file is missing."))
    return paths, problems


def _missing_columns(paths: Sequence[Path], table: _Table) -> list[Problem]:
    problems = []
    for path in paths:
        try:
            known = _scan(path).collect_schema().names()
        except (pl.exceptions.PolarsError, OSError) as error:
            problems.append(Problem(path.name, f"the file cannot be read: {_first_line(error)}."))
            continue
        for name in table.columns:
            if name not in known:
                hint = did_you_mean(name, known, f"It has {', '.join(known)}.")
                problems.append(Problem(path.name, f"column '{name}' is missing.", hint))
    return problems


def _scan(path: Path) -> pl.LazyFrame:
    if path.suffix == ".parquet":
        return pl.scan_parquet(path)
    # Numbers are read as text first, so that what is no number is a mistake with a row to look at.
    return pl.scan_csv(path, infer_schema=False)


def _typed(path: Path) -> pl.DataFrame:
    """Read a small table with the types its values have."""
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        problem = Problem(path.name, f"the file cannot be read: {_first_line(error)}.")
        raise DataError(str(path.parent), [problem]) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _raise(folder: Path, problems: list[Problem]) -> None:
    if problems:
        raise DataError(str(folder), problems)
