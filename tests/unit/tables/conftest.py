from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from playbill.clock import Clock
from playbill.config import ProjectFolder, Workspace
from playbill.tables import TIMESTAMP, Tables

START = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return ProjectFolder.find(tmp_path).workspace("shop")


@pytest.fixture
def titles() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "title_id": ["1", "2", "10"],
            "valid_from": [START] * 3,
            "recorded_at": [START] * 3,
            "name": ["Alpha", "Beta", "Gamma"],
            "kind": ["film"] * 3,
            "genres": [["Drama"], ["Comedy", "Drama"], []],
        },
        schema_overrides={"valid_from": TIMESTAMP, "recorded_at": TIMESTAMP},
    )


@pytest.fixture
def events() -> pl.DataFrame:
    """Three members, two events each, one a day."""
    days = [START + timedelta(days=day) for day in range(6)]
    return pl.DataFrame(
        {
            "event_id": [f"e{index}" for index in range(6)],
            "member_id": ["a", "b", "c", "a", "b", "c"],
            "seq": [0, 0, 0, 1, 1, 1],
            "event_at": days,
            "recorded_at": days,
            "action": ["play"] * 6,
            "title_id": ["1", "2", "10", "2", "10", "1"],
            "canvas": ["home"] * 6,
            "country": ["SE", "ZZ", "SE", "SE", "ZZ", "SE"],
            "progress": [1.0, 0.5, None, 0.0, 0.9, 1.0],
        },
        schema_overrides={"event_at": TIMESTAMP, "recorded_at": TIMESTAMP},
    )


def load(tables: Tables, titles: pl.DataFrame, *batches: pl.DataFrame, clock: Clock | None = None) -> None:
    with tables.replace(clock) as writer:
        writer.write("titles", titles)
        for batch in batches:
            writer.write("interactions", batch)


@pytest.fixture(name="load")
def load_fixture() -> Callable[..., None]:
    """Replace tables by titles and batches of events."""
    return load


@pytest.fixture
def filled(workspace: Workspace, titles: pl.DataFrame, events: pl.DataFrame) -> Tables:
    """Tables of the workspace with the titles and events above."""
    tables = Tables(workspace)
    load(tables, titles, events)
    return tables


@pytest.fixture
def live() -> Callable[..., dict[str, object]]:
    """Make a live event; keywords replace its columns."""

    def make(event_id: str, **columns: object) -> dict[str, object]:
        event = {
            "event_id": event_id,
            "member_id": "a",
            "event_at": START + timedelta(days=10),
            "action": "play",
            "title_id": "1",
            "canvas": "home",
            "country": "SE",
        }
        return {**event, **columns}

    return make
