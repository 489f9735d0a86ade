"""The vectorised feature values against plain loops over small random logs."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from playbill.features.build import _parts
from playbill.features.members import ACTIVITY_WINDOWS, RESOLUTION, member_activity, member_profile
from playbill.features.titles import BUCKET, POPULARITY_WINDOWS, title_popularity, title_profile

START = datetime(2024, 3, 1, tzinfo=UTC)
MOMENT = pl.Datetime("us", "UTC")


def log_of(count: int, seed: int, spread: timedelta) -> pl.DataFrame:
    """Random events of four members on six titles; many share a moment, many fall on window edges."""
    rng = np.random.default_rng(seed)
    step = spread / 40
    at = [START + step * int(rng.integers(40)) for _ in range(count)]
    return pl.DataFrame(
        {
            "member_id": [f"m{rng.integers(4)}" for _ in range(count)],
            "title_id": [f"t{rng.integers(6)}" for _ in range(count)],
            "action": rng.choice(["play", "play", "thumbs_up", "thumbs_down", "search"], count).tolist(),
            "event_at": at,
            "recorded_at": [moment + timedelta(hours=int(rng.integers(50))) for moment in at],
        },
        schema_overrides={"event_at": MOMENT, "recorded_at": MOMENT},
    )


GENRES = pl.DataFrame(
    {"title_id": [f"t{i}" for i in range(6)], "genres": [["A"], ["A", "B"], ["C"], None, [], ["B", "D"]]}
)


def f32(value: float) -> float:
    return float(np.float32(value))


def share(ups: int, downs: int) -> float | None:
    return f32(ups / (ups + downs)) if ups + downs else None


def slow_activity(events: list[dict], genres: dict[str, list[str]]) -> pl.DataFrame:
    rows = []
    for member in sorted({event["member_id"] for event in events}):
        own = [event for event in events if event["member_id"] == member]
        plays = [event for event in own if event["action"] == "play"]
        moments = {event["event_at"] + RESOLUTION for event in own}
        moments |= {p["event_at"] + window + RESOLUTION for p in plays for window in ACTIVITY_WINDOWS.values()}
        for at in sorted(moments):
            past = [event for event in own if event["event_at"] < at]
            played = [event for event in past if event["action"] == "play"]
            row = {"member_id": member, "event_timestamp": at}
            row["created_timestamp"] = max(event["recorded_at"] for event in past)
            for name, window in ACTIVITY_WINDOWS.items():
                # Half-open on the microsecond grid: the play at t - window is still counted at t.
                inside = [p for p in played if p["event_at"] >= at - window]
                row[f"log_{name}"] = f32(math.log1p(len(inside)))
            row["log_plays_total"] = f32(math.log1p(len(played)))
            row["distinct_genres"] = float(len({g for p in played for g in genres[p["title_id"]] or []}))
            thumbs = [event["action"] for event in past]
            row["thumbs_up_share"] = share(thumbs.count("thumbs_up"), thumbs.count("thumbs_down"))
            row["last_play_at"] = max((p["event_at"] for p in played), default=None)
            rows.append(row)
    return pl.DataFrame(rows)


def slow_popularity(events: list[dict]) -> pl.DataFrame:
    rows = []
    for title in sorted({event["title_id"] for event in events if event["action"] != "search"}):
        own = [event for event in events if event["title_id"] == title and event["action"] != "search"]
        closed = {id(event): event["event_at"].replace(minute=0, second=0, microsecond=0) + BUCKET for event in own}
        moments = set(closed.values())
        for event in own:
            if event["action"] == "play":
                moments |= {closed[id(event)] + window for window in POPULARITY_WINDOWS.values()}
        for at in sorted(moments):
            past = [event for event in own if event["event_at"] < at]
            played = [event["event_at"] for event in past if event["action"] == "play"]
            row = {"title_id": title, "event_timestamp": at}
            row["created_timestamp"] = max(event["recorded_at"] for event in past)
            for name, window in POPULARITY_WINDOWS.items():
                row[f"log_{name}"] = f32(math.log1p(sum(moment >= at - window for moment in played)))
            row["log_plays_total"] = f32(math.log1p(len(played)))
            thumbs = [event["action"] for event in past]
            row["thumbs_up_share"] = share(thumbs.count("thumbs_up"), thumbs.count("thumbs_down"))
            rows.append(row)
    return pl.DataFrame(rows)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spread", [timedelta(days=2), timedelta(days=40), timedelta(days=400)])
def test_member_activity_is_the_plain_count(seed: int, spread: timedelta) -> None:
    events = log_of(60, seed, spread)
    plain = slow_activity(events.to_dicts(), dict(GENRES.iter_rows()))
    assert_frame_equal(member_activity(events, GENRES), plain, check_dtypes=False, abs_tol=1e-6)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spread", [timedelta(hours=30), timedelta(days=40), timedelta(days=800)])
def test_title_popularity_is_the_plain_count(seed: int, spread: timedelta) -> None:
    events = log_of(80, seed, spread)
    assert_frame_equal(title_popularity(events), slow_popularity(events.to_dicts()), check_dtypes=False, abs_tol=1e-6)


def test_a_state_holds_from_one_microsecond_after_its_events() -> None:
    at = START + timedelta(hours=5)
    events = log_of(1, 0, timedelta(days=1)).with_columns(
        pl.lit(at).alias("event_at"), pl.lit(at).alias("recorded_at"), pl.lit("play").alias("action")
    )
    frame = member_activity(events, GENRES)
    assert frame.get_column("event_timestamp").to_list() == [
        at + RESOLUTION,
        *(at + window + RESOLUTION for window in ACTIVITY_WINDOWS.values()),
    ]


def test_an_idle_member_has_empty_windows_and_a_total() -> None:
    frame = member_activity(log_of(30, 3, timedelta(days=2)), GENRES)
    last = frame.group_by("member_id").agg(pl.all().last())
    assert last.get_column("log_plays_30d").to_list() == [0.0] * last.height
    assert all(total > 0 for total in last.get_column("log_plays_total"))


def test_popularity_is_stamped_at_full_hours() -> None:
    frame = title_popularity(log_of(50, 4, timedelta(days=3)))
    at = frame.get_column("event_timestamp")
    assert at.equals(at.dt.truncate("1h"))


def test_no_two_rows_of_a_key_share_a_moment() -> None:
    events = log_of(200, 5, timedelta(days=40))
    for frame, key in ((member_activity(events, GENRES), "member_id"), (title_popularity(events), "title_id")):
        assert frame.select(key, "event_timestamp").is_unique().all()


def test_parts_hold_whole_keys_and_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbill.features.build.EVENTS_PER_PART", 20)
    events = log_of(100, 6, timedelta(days=40))
    parts = list(_parts(events, "member_id"))
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
        {"title_id": ["x", "x"], "available_from": [START + timedelta(days=3), START + timedelta(days=1)]}
    )
    frame = title_profile(titles, availability)
    assert frame.get_column("launched_at").to_list() == [START + timedelta(days=1), None]
    assert frame.row(0, named=True)["genre_count"] == 2.0
    assert frame.row(0, named=True)["kids"] == 0.0
