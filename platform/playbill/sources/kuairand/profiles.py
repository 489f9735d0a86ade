"""KuaiRand's users and videos: checked, and made members and titles."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from playbill.errors import Problem
from playbill.schema import UNKNOWN_COUNTRY
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
    """Make members of users: known from the start of the log, joined `register_days` before it.

    Args:
        users: user_id, register_days, and the publisher's other columns, which are kept as they are.
        start: The first moment of the log.
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
    """Make titles of videos, and of those that only occur in the log.

    Args:
        videos: `VIDEO_COLUMNS`, checked.
        seen: video_id and duration_ms of every video in the log.

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
