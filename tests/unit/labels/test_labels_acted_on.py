"""The extractor `acted_on`: one value for each exposure, against a plain loop and at its edges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from playbill.definitions.specs import LabelSpec
from playbill.labels import extract

T0 = datetime(2022, 5, 1, tzinfo=UTC)
LATER = T0 + timedelta(days=30)


def label(*actions: str, **fields) -> LabelSpec:
    head = {"kind": "Label", "name": "acted", "version": 1, "extractor": "acted_on", "options": {"actions": actions}}
    return LabelSpec.model_validate({**head, "window": "1h", "matures_after": "1h", **fields})


def log(*rows: tuple[str, str, str | None, str | None, float]) -> pl.DataFrame:
    """Events as (member, action, request, title, hour), each member's in order."""
    schema = {"member_id": pl.String, "action": pl.String, "request_id": pl.String, "title_id": pl.String}
    frame = pl.DataFrame(rows, schema={**schema, "hour": pl.Float64}, orient="row")
    at = pl.lit(T0) + pl.duration(seconds=(pl.col("hour") * 3600).cast(pl.Int64))
    return frame.with_columns(
        event_id=pl.format("e{}", pl.int_range(pl.len())),
        seq=pl.int_range(pl.len(), dtype=pl.Int64).over("member_id"),
        event_at=at.cast(pl.Datetime("us", "UTC")),
        recorded_at=at.cast(pl.Datetime("us", "UTC")),
    ).drop("hour")


def values(spec: LabelSpec, frame: pl.DataFrame, as_of: datetime = LATER) -> dict[str, float]:
    found = extract(spec, frame, as_of)
    return dict(zip(found["event_id"], found["value"], strict=True))


def test_each_exposure_has_one_value():
    frame = log(
        ("u", "impression", "r1", "a", 0),
        ("u", "play", "r1", "a", 0),
        ("u", "kuairand.follow", "r1", "a", 0),
        ("u", "impression", "r2", "a", 1),
        ("u", "play", "r2", "a", 1),
        ("v", "impression", "r3", "b", 2),
    )
    assert values(label("play"), frame) == {"e0": 1, "e3": 1, "e5": 0}
    assert values(label("kuairand.follow"), frame) == {"e0": 1, "e3": 0, "e5": 0}
    assert values(label("kuairand.follow", "play"), frame) == {"e0": 1, "e3": 1, "e5": 0}


def test_only_the_same_request_title_and_member_after_it_and_in_time():
    frame = log(
        ("u", "impression", "r1", "a", 0),
        ("u", "impression", "r1", "b", 0),
        ("u", "play", "r1", "c", 0),  # another title
        ("u", "play", "r2", "a", 0),  # another request
        ("u", "play", "r1", "a", 1.5),  # too late
        ("u", "play", "r3", "d", 2),
        ("u", "impression", "r3", "d", 2),  # played before it was shown
        ("v", "play", "r1", "b", 0),  # somebody else
    )
    assert values(label("play"), frame) == {"e0": 0, "e1": 0, "e6": 0}


def test_an_exposure_without_request_or_title_is_unlabelled():
    frame = log(("u", "impression", None, "a", 0), ("u", "impression", "r1", None, 0), ("u", "play", "r1", None, 0))
    assert values(label("play"), frame) == {}


def test_a_young_exposure_is_unlabelled_not_zero():
    frame = log(("u", "impression", "r1", "a", 0), ("u", "impression", "r2", "a", 1))
    assert values(label("play"), frame, T0 + timedelta(hours=1.5)) == {"e0": 0}


def test_only_exposures_of_titles_are_labelled():
    with pytest.raises(ValueError, match="'acted_on' labels no row"):
        label("play", level="row")


def test_an_unknown_action_is_named():
    with pytest.raises(ValueError, match="unknown action 'plai'"):
        label("plai")


def test_equal_to_a_plain_loop_on_a_random_log():
    draw = np.random.default_rng(0)
    rows = []
    for member in range(20):
        hour = 0.0
        for _ in range(30):
            hour += float(draw.choice([0.0, 0.0, 0.4, 0.9]))
            action = str(draw.choice(["impression", "impression", "play", "thumbs_up"]))
            rows.append((f"m{member}", action, f"r{draw.integers(4)}", str(draw.choice(["a", "b"])), hour))
    frame = log(*rows)
    expected = {}
    for place, (member, action, request, title, hour) in enumerate(rows):
        if action == "impression":
            came = [
                after
                for after in rows[place + 1 :]
                if after[:4] == (member, "play", request, title) and int(after[4] * 3600) <= int(hour * 3600) + 3600
            ]
            expected[f"e{place}"] = float(bool(came))
    assert values(label("play"), frame) == expected
    assert 20 < sum(expected.values()) < len(expected) - 20
