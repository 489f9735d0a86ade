"""Values of the profile views, and how a log is split."""

from datetime import timedelta

import polars as pl
import pytest

from fixtures.random_log import START, random_log
from playbill.features import other_files
from playbill.features.build import parts_of_log
from playbill.features.members import member_profile
from playbill.features.titles import title_profile


def test_parts_hold_whole_keys_and_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbill.features.build.EVENTS_PER_PART", 20)
    events = random_log(100, 6, timedelta(days=40))
    parts = list(parts_of_log(events, "member_id"))
    members = [set(part.get_column("member_id")) for part in parts]
    assert len(parts) == 5
    assert sum(part.height for part in parts) == events.height
    assert sum(len(some) for some in members) == len(set().union(*members))


def test_a_profile_without_the_usual_columns_has_nulls_there_and_keeps_its_own() -> None:
    members = pl.DataFrame(
        {"member_id": ["a"], "valid_from": [START], "recorded_at": [START], "kids_profile": [True]}
    ).with_columns(country=pl.lit("NL"), joined_at=pl.lit(START), language=None, age=pl.lit(31), plan=pl.lit("gold"))
    row = member_profile(members.with_columns(tags=pl.lit(["x"]))).row(0, named=True)
    assert row["age"] == 31.0
    assert row["kids_profile"] == 1.0
    assert row["occupation"] is None
    assert row["gender"] is None
    assert row["plan"] == "gold"
    assert "tags" not in row


def test_a_titles_launch_is_its_first_availability() -> None:
    titles = pl.DataFrame(
        {"title_id": ["x", "y"], "valid_from": [START] * 2, "recorded_at": [START] * 2, "kind": ["film"] * 2}
    ).with_columns(
        original_language=None,
        maturity=None,
        release_date=pl.lit(START),
        runtime_min=pl.lit(90),
        genres=pl.lit(["A", "B"]),
        kids=pl.lit(False),
    )
    availability = pl.DataFrame(
        {
            "title_id": ["x", "x"],
            "country": ["*", "NL"],
            "available_from": [START + timedelta(days=3), START + timedelta(days=1)],
        }
    )
    frame = title_profile(titles, availability)
    assert frame.get_column("launched_at").to_list() == [START + timedelta(days=1), None]
    assert frame.get_column("launched_everywhere_at").to_list() == [START + timedelta(days=3), None]
    assert frame.row(0, named=True)["genre_count"] == 2.0
    assert frame.row(0, named=True)["kids"] == 0.0


def test_files_that_were_rewritten_are_named_and_those_that_grew_are_not() -> None:
    then = {"grown": ["a", "b"], "same": ["c"], "rewritten": ["d", "e"], "gone": ["f"], "table": []}
    now = {"grown": ["a", "b", "z"], "same": ["c"], "rewritten": ["d", "x"], "table": [], "new": ["y"]}
    assert other_files(then, now) == ("gone", "rewritten")
    assert other_files({}, now) == ()
