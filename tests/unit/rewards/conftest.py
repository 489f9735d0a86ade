"""Small logs, the shipped zoo, and rewards over plain labels."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from playbill.definitions.zoo import Zoo, load_zoo

START = datetime(2024, 3, 1, 12, tzinfo=UTC)
MOMENT = pl.Datetime("us", "UTC")
SCHEMA: dict[str, Any] = {
    "event_id": pl.String,
    "member_id": pl.String,
    "seq": pl.Int64,
    "event_at": MOMENT,
    "recorded_at": MOMENT,
    "action": pl.String,
    "title_id": pl.String,
    "request_id": pl.String,
    "session_id": pl.String,
    "row_id": pl.String,
    "canvas": pl.String,
    "country": pl.String,
    "duration_s": pl.Float32,
    "progress": pl.Float32,
}


@pytest.fixture(scope="session")
def zoo() -> Zoo:
    root = Path(__file__).parents[3]
    return load_zoo(root / "model_zoo", root / "feature_repo")


@pytest.fixture
def make_log() -> Callable[..., pl.DataFrame]:
    """Fill in what an event does not say: `hour` after the start, member m, title t, a play half through."""

    def make(*events: dict[str, Any]) -> pl.DataFrame:
        rows = []
        for number, event in enumerate(events):
            texts = dict(event)
            at = START + timedelta(hours=texts.pop("hour", number))
            usual = {"event_id": f"e{number}", "member_id": "m", "seq": number, "event_at": at, "recorded_at": at}
            usual |= {"action": "play", "title_id": "t", "canvas": "home", "country": "US", "progress": 0.5}
            rows.append(usual | texts)
        return pl.DataFrame(rows, schema=SCHEMA)

    return make
