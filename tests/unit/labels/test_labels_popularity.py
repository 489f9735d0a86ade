"""How popular a title was just before an event, against plain loops over the whole log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.derived_columns import add_derived
from playbill.definitions.specs import LabelSpec
from playbill.definitions.zoo import load_zoo
from playbill.errors import StateError
from playbill.labels import extract
from playbill.tables import polars_schema

START = datetime(2024, 1, 1, 6, tzinfo=UTC)
DAY = timedelta(days=1)
TITLES = ("a", "b", "c", "d", "e")
COLUMN = "popularity_percentile_of_title"
MOMENT = pl.Datetime("us", "UTC")


def availability() -> pl.DataFrame:
    launches = [START - 30 * DAY, START - 30 * DAY, START - 20 * DAY, START + 2 * DAY]
    frame = pl.DataFrame({"title_id": TITLES[:4], "country": ["*", "US", "DE", "*"], "available_from": launches})
    return frame.cast({"available_from": MOMENT})


def log(rows: list[tuple[str, str, int, int, str]]) -> pl.DataFrame:
    """Rows of member, title, hour of the event, hours until it is known, action."""
    ordered = sorted(rows, key=lambda row: (row[0], row[2]))
    made = [
        {
            "event_id": f"e{number}",
            "member_id": member,
            "seq": number,
            "event_at": START + timedelta(hours=hour),
            "recorded_at": START + timedelta(hours=hour + late),
            "action": action,
            "title_id": title,
            "canvas": "home",
            "country": "US",
            "progress": 1.0,
        }
        for number, (member, title, hour, late, action) in enumerate(ordered)
    ]
    return pl.DataFrame(made, schema={name: polars_schema("interactions")[name] for name in made[0]})


def plain(events: pl.DataFrame, event: dict[str, Any]) -> float | None:
    day = event["event_at"].replace(hour=0, minute=0, second=0, microsecond=0)
    launched = {row["title_id"] for row in availability().iter_rows(named=True) if row["available_from"] < day}
    if event["title_id"] not in launched:
        return None
    plays = dict.fromkeys(launched, 0)
    for other in events.filter(pl.col("action") == "play").iter_rows(named=True):
        if max(other["event_at"], other["recorded_at"]) < day and other["title_id"] in launched:
            plays[other["title_id"]] += 1
    own = plays[event["title_id"]]
    fewer, same = sum(count < own for count in plays.values()), sum(count == own for count in plays.values())
    return 100 * (fewer + same / 2) / len(plays)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("xyz"),
        st.sampled_from(TITLES),
        st.integers(0, 120),
        st.integers(0, 30),
        st.sampled_from(["play", "impression"]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(rows=EVENTS)
def test_the_percentile_is_what_plain_loops_say(rows: list[tuple[str, str, int, int, str]]) -> None:
    events = log(rows)
    found = add_derived(events, [COLUMN], availability())
    for event in found.iter_rows(named=True):
        wanted = plain(events, event)
        assert event[COLUMN] == (None if wanted is None else pytest.approx(wanted))


@settings(max_examples=25, deadline=None)
@given(rows=EVENTS, later=EVENTS)
def test_what_comes_after_an_event_does_not_change_it(
    rows: list[tuple[str, str, int, int, str]], later: list[tuple[str, str, int, int, str]]
) -> None:
    after = [(f"w{member}", title, 200 + hour, late, action) for member, title, hour, late, action in later]
    before, both = (add_derived(log(own), [COLUMN], availability()) for own in (rows, rows + after))
    keys = ["member_id", "event_at", "title_id", "action"]
    once, more = (frame.sort(*keys).select(*keys, COLUMN) for frame in (before, both))
    assert once.equals(more.filter(~pl.col("member_id").str.starts_with("w")))


def gem() -> LabelSpec:
    return load_zoo(Path(__file__).parents[3] / "model_zoo").labels["gem"]


def test_a_gem_is_a_title_that_few_played_before_and_this_member_finished() -> None:
    crowd = [(f"m{number}", "a", 1, 0, "play") for number in range(9)]
    events = log([*crowd, ("x", "a", 60, 0, "play"), ("x", "b", 61, 0, "play"), ("x", "b", 80, 0, "play")])
    found = extract(gem(), events, START + 60 * DAY, availability())
    own = dict(found.filter(pl.col("member_id") == "x").select("seq", "value").iter_rows())
    first = events.filter(member_id="x")["seq"].min()
    assert own == {first: 0.0, first + 1: 1.0, first + 2: 0.0}


def test_a_label_of_popularity_needs_availability() -> None:
    with pytest.raises(StateError, match="availability"):
        extract(gem(), log([("x", "a", 1, 0, "play")]), START + 60 * DAY)
