"""Files like the publisher's of KuaiRand-Pure, invented: planted taste, two surfaces, and some random exposures.

Every member likes one of three tags. A video is opened with probability 0.7 when its tag is liked and 0.1 otherwise,
and then often watched for long. The standard log shows mostly liked videos, popular ones first, so its plain mean is
far above what a video drawn alike would get; random exposures are drawn alike from the whole pool.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

START_MS = int(datetime(2022, 4, 22, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 86_400_000
TAGS = 3
LIKED, OTHER = 0.7, 0.1
"""Chance that a video is opened, by whether its tag is liked."""


def write_kuairand(
    folder: Path,
    *,
    members: int = 120,
    videos: int = 45,
    standard: int = 14,
    random: int = 10,
    days: int = 10,
    seed: int = 3,
) -> Path:
    """Write the five files into a folder and return it.

    Args:
        folder: Where to.
        members: Users.
        videos: Videos, which are the pool of random exposures too.
        standard: Exposures of each member that the service chose.
        random: Exposures of each member that were drawn.
        days: Over which they spread.
        seed: Of everything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    likes, tags = np.arange(members) % TAGS, np.arange(videos) % TAGS
    users = pl.DataFrame({"user_id": range(members), "register_days": rng.integers(10, 900, members)})
    users.write_csv(folder / "user_features_pure.csv")
    pl.DataFrame(
        {
            "video_id": range(videos),
            "upload_dt": ["2022-04-10"] * videos,
            "video_duration": [20_000.0] * videos,
            "tag": [str(tag) for tag in tags],
        }
    ).write_csv(folder / "video_features_basic_pure.csv")
    chosen = _chosen(rng, likes, tags, standard)
    drawn = rng.integers(0, videos, (members, random))
    log = _exposures(rng, likes, tags, chosen, days)
    cut = START_MS + days * DAY_MS // 2
    log.filter(pl.col("time_ms") < cut).write_csv(folder / "log_standard_4_08_to_4_21_pure.csv")
    log.filter(pl.col("time_ms") >= cut).write_csv(folder / "log_standard_4_22_to_5_08_pure.csv")
    at_random = _exposures(rng, likes, tags, drawn, days).with_columns(is_rand=pl.lit(1), tab=pl.lit(1))
    at_random.write_csv(folder / "log_random_4_22_to_5_08_pure.csv")
    return folder


def _chosen(rng: np.random.Generator, likes: np.ndarray, tags: np.ndarray, count: int) -> np.ndarray:
    """[members, count] videos: mostly of the liked tag, low numbers more often."""
    weight = np.where(likes[:, None] == tags[None], 6.0, 1.0) / np.sqrt(1.0 + np.arange(len(tags)))
    share = weight / weight.sum(axis=1, keepdims=True)
    return np.stack([rng.choice(len(tags), count, p=own) for own in share])


def _exposures(
    rng: np.random.Generator, likes: np.ndarray, tags: np.ndarray, videos: np.ndarray, days: int
) -> pl.DataFrame:
    member, video = np.repeat(np.arange(len(likes)), videos.shape[1]), videos.ravel()
    size = len(member)
    click = rng.random(size) < np.where(likes[member] == tags[video], LIKED, OTHER)
    long = click & (rng.random(size) < 0.6)

    def some(share: float) -> np.ndarray:
        return (click & (rng.random(size) < share)).astype(int)

    return pl.DataFrame(
        {
            "user_id": member,
            "video_id": video,
            "time_ms": START_MS + rng.integers(0, days * DAY_MS, size),
            "tab": (rng.random(size) < 0.8).astype(int),
            "is_click": click.astype(int),
            "is_like": some(0.3),
            "is_follow": some(0.1),
            "is_comment": some(0.1),
            "is_forward": some(0.1),
            "is_hate": ((~click) & (rng.random(size) < 0.1)).astype(int),
            "long_view": long.astype(int),
            "play_time_ms": np.where(long, 20_000, np.where(click, 4_000, 500)),
            "duration_ms": np.full(size, 20_000),
            "profile_stay_time": np.zeros(size, int),
            "comment_stay_time": 1_000 * some(0.2),
            "is_profile_enter": some(0.2),
            "is_rand": np.zeros(size, int),
        }
    )
