"""Windows of members and titles against plain loops over small random logs."""

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fixtures import plain_features as plain
from fixtures.random_log import (
    GENRES,
    MOMENT,
    SPREADS,
    START,
    TITLES,
    assert_same_states,
    by_key,
    plain_states,
    random_log,
)
from playbill.features.axis import EVER, Span, Window, axes, sweep, ticks
from playbill.features.members import member_activity
from playbill.features.titles import title_popularity


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", SPREADS)
def test_member_activity_is_the_plain_count(seed, spread):
    events = random_log(70, seed, spread)
    groups = by_key(events, "member_id")
    expected = plain_states(
        groups, ["member_id"], plain.activity_moments, lambda own, at: plain.activity(own, GENRES, at)
    )
    assert_same_states(member_activity(events, TITLES), expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", SPREADS)
def test_title_popularity_is_the_plain_count(seed, spread):
    events = random_log(90, seed, spread)
    groups = by_key(pl.DataFrame(plain.received(events.to_dicts())), "title_id")
    expected = plain_states(groups, ["title_id"], plain.popularity_moments, plain.popularity)
    assert_same_states(title_popularity(events), expected)


def test_a_state_holds_from_one_microsecond_after_its_events_until_they_leave():
    at = START + timedelta(hours=5)
    events = random_log(1, 0, timedelta(days=1)).with_columns(
        pl.lit(at, dtype=MOMENT).alias("event_at"), pl.lit("play").alias("action"), pl.lit("t0").alias("title_id")
    )
    frame = member_activity(events, TITLES)
    lengths = [timedelta(0), *plain.WINDOWS.values()]
    assert frame.get_column("event_timestamp").to_list() == [at + plain.TICK + length for length in lengths]
    week = frame.get_column("log_plays_7d").to_list()
    assert [value > 0 for value in week] == [True, True, True, False, False, False]


def test_an_idle_member_has_empty_windows_and_a_total():
    frame = member_activity(random_log(40, 3, timedelta(days=2)), TITLES)
    last = frame.group_by("member_id").agg(pl.all().last())
    assert last.get_column("log_plays_365d").to_list() == [0.0] * last.height
    assert last.get_column("completion_rate_30d").to_list() == [None] * last.height
    assert all(total > 0 for total in last.get_column("log_plays_total"))


def test_popularity_is_stamped_at_full_hours():
    at = title_popularity(random_log(50, 4, timedelta(days=3))).get_column("event_timestamp")
    assert at.equals(at.dt.truncate("1h"))


def test_no_two_rows_of_a_key_share_a_moment():
    events = random_log(200, 5, timedelta(days=40))
    for frame, key in ((member_activity(events, TITLES), "member_id"), (title_popularity(events), "title_id")):
        assert frame.select(key, "event_timestamp").is_unique().all()


def test_a_log_without_progress_or_events_has_no_rates_and_no_rows():
    events = random_log(40, 6, timedelta(days=3))
    frame = member_activity(events.drop("progress"), TITLES)
    assert frame.get_column("completion_rate").null_count() == frame.height
    assert member_activity(events.clear(), TITLES).schema == member_activity(events, TITLES).schema
    assert title_popularity(events.clear()).schema == title_popularity(events).schema


@pytest.mark.parametrize("compute", [lambda *given: member_activity(*given), lambda *given: title_popularity(*given)])
def test_a_span_returns_the_states_that_begin_in_it_and_no_others(compute):
    events = random_log(80, 7, timedelta(days=40))
    every = compute(events, TITLES, EVER)
    since, until = START + timedelta(days=10), START + timedelta(days=33, minutes=30)
    at = pl.col("event_timestamp")
    for span in (Span(since), Span(None, until), Span(since, until)):
        inside = every.filter((at >= (span.since or START)) & (at <= (span.until or START + timedelta(days=10_000))))
        assert_frame_equal(compute(events, TITLES, span), inside)
        assert 0 < inside.height < every.height


def test_keys_that_do_not_fit_on_one_axis_are_counted_all_the_same(monkeypatch):
    events = random_log(120, 8, timedelta(days=40), members=30)
    whole = member_activity(events, TITLES)
    monkeypatch.setattr("playbill.features.axis.ROOM", 200_000_000_000_000)
    codes = events.get_column("member_id").rank("dense").to_numpy().astype("int64") - 1
    assert len(list(axes(codes, ticks(events.get_column("event_at")), 31_536_000_000_000))) > 1
    assert_frame_equal(member_activity(events, TITLES), whole)


def test_a_window_is_half_open():
    events = pl.DataFrame(
        {"who": ["x", "x"], "event_timestamp": [START, START + timedelta(hours=2)], "n": [3, 4]},
        schema_overrides={"event_timestamp": MOMENT},
    )
    found = sweep(events, ["who"], totals=["n"], windows={"n_2h": Window("n", timedelta(hours=2))})
    hours = [(at - START) / timedelta(hours=1) for at in found.get_column("event_timestamp")]
    assert list(zip(hours, found.get_column("n"), found.get_column("n_2h"), strict=True)) == [
        (0, 3, 3),
        (2, 7, 4),
        (4, 7, 0),
    ]
