"""A small made-up service, ingested and with its features built, applied and materialized for real."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.config import ProjectFolder, ProjectSettings, Workspace
from playbill.features import FeatureDoor, build_features
from playbill.tables import Tables

START = datetime(2024, 1, 1, tzinfo=UTC)


def _events(members: int, titles: int, plays: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for member in range(members):
        seconds = np.sort(rng.integers(0, 60 * 86_400, plays))
        seconds[1] = seconds[0]
        for order, (second, title) in enumerate(zip(seconds, rng.choice(titles, plays, replace=False), strict=True)):
            at = START + timedelta(seconds=int(second))
            base = (f"m{member}", at, at, f"t{title}", "home", "US-MN")
            rows.append((f"p-{member}-{title}", 2 * order, "play", *base))
            if rng.random() < 0.6:
                thumb = "thumbs_up" if rng.random() < 0.7 else "thumbs_down"
                rows.append((f"t-{member}-{title}", 2 * order + 1, thumb, *base))
    names = ["event_id", "seq", "action", "member_id", "event_at", "recorded_at", "title_id", "canvas", "country"]
    return pl.DataFrame(rows, schema=names, orient="row")


def ingest_small_service(workspace: Workspace, members: int = 12, titles: int = 15, plays: int = 9) -> None:
    """Write a service of `members` x `plays` plays over 60 days into the workspace's tables."""
    events = _events(members, titles, plays, seed=1)
    released = START - timedelta(days=20_000)
    catalogue = pl.DataFrame(
        {
            "title_id": [f"t{title}" for title in range(titles)],
            "name": [f"Title {title}" for title in range(titles)],
            "genres": [["Drama", "Crime"] if title % 2 else ["Comedy"] for title in range(titles)],
        }
    ).with_columns(pl.lit("film").alias("kind"), *_at(released, "release_date", "valid_from", "recorded_at"))
    people = events.group_by("member_id").agg(pl.col("event_at").min().alias("joined_at"))
    people = people.with_columns(
        pl.col("joined_at").alias("valid_from"),
        pl.col("joined_at").alias("recorded_at"),
        pl.lit("US-MN").alias("country"),
        pl.lit(31).alias("age"),
        pl.lit("writer").alias("occupation"),
    )
    spans = catalogue.select("title_id", "recorded_at", pl.lit("*").alias("country")).with_columns(
        *_at(released, "available_from")
    )
    with Tables(workspace).replace() as writer:
        writer.write("titles", catalogue)
        writer.write("availability", spans)
        writer.write("members", people)
        writer.write("interactions", events)


def _at(moment: datetime, *names: str) -> list[pl.Expr]:
    return [pl.lit(moment, dtype=pl.Datetime("us", "UTC")).alias(name) for name in names]


@pytest.fixture(scope="session")
def ingest() -> Callable[[Workspace], None]:
    """The maker of the small service, for tests that want a workspace of their own."""
    return ingest_small_service


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Workspace `small` with tables and feature files, never applied. Shared: do not change it."""
    workspace = ProjectFolder(tmp_path_factory.mktemp("project"), ProjectSettings()).workspace("small")
    ingest_small_service(workspace)
    build_features(workspace)
    return workspace


@pytest.fixture(scope="session")
def door(built: Workspace) -> FeatureDoor:
    """The door of `built`, applied and materialized up to its clock."""
    door = FeatureDoor(built)
    door.apply()
    door.materialize()
    return door


@pytest.fixture
def own(tmp_path: Path) -> Workspace:
    """A workspace of the test's own, with tables and feature files."""
    workspace = ProjectFolder(tmp_path, ProjectSettings()).workspace("own")
    ingest_small_service(workspace)
    build_features(workspace)
    return workspace
