"""The extractor `measured`: numbers of the log as labels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import ClassVar

import polars as pl
import pytest

from playbill.definitions.specs import LabelSpec
from playbill.labels import label_columns
from playbill.testing import LabelExtractorConformance

T0 = datetime(2022, 5, 1, tzinfo=UTC)


class TestMeasured(LabelExtractorConformance):
    label: ClassVar = {"extractor": "measured", "options": {"column": "progress", "actions": ["play", "trailer_view"]}}


def log() -> pl.DataFrame:
    rows = [("play", 0.25, 900), ("thumbs_up", 0.5, 60), ("play", None, 30), ("play", 1.0, None), ("play", 0.0, 5)]
    frame = pl.DataFrame(rows, schema=["action", "progress", "duration_s"], orient="row")
    at = pl.lit(T0).cast(pl.Datetime("us", "UTC"))
    return frame.with_columns(
        pl.col("progress", "duration_s").cast(pl.Float32),
        event_id=pl.format("e{}", pl.int_range(pl.len())),
        member_id=pl.lit("m"),
        seq=pl.int_range(pl.len(), dtype=pl.Int64),
        title_id=pl.lit("t"),
        event_at=at,
        recorded_at=at,
    )


@pytest.mark.parametrize(
    ("column", "expected"),
    [("progress", [0.25, None, None, 1.0, 0.0]), ("duration_s", [900.0, None, 30.0, None, 5.0])],
)
def test_a_column_is_the_label_and_what_is_missing_is_no_zero(column: str, expected: list[float | None]) -> None:
    raw = {"name": "watched", "version": 1, "extractor": "measured", "options": {"column": column}}
    found = label_columns([LabelSpec.model_validate(raw)], log(), T0 + timedelta(days=1))["watched"]
    assert found.to_list() == expected


def test_a_wrong_column_is_named() -> None:
    raw = {"name": "watched", "version": 1, "extractor": "measured", "options": {"column": "minutes"}}
    with pytest.raises(ValueError, match=r"options\.column"):
        LabelSpec.model_validate(raw)
