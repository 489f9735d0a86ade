"""How much a title is asked for, against plain loops over small random logs."""

import math
from datetime import timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import plain_features as plain
from fixtures.random_log import (
    ASKING_ACTIONS,
    MOMENT,
    SPREADS,
    START,
    assert_same_states,
    by_key,
    plain_states,
    random_log,
)
from playbill.features.axis import Span
from playbill.features.titles import title_anticipation, title_popularity

AT = "event_timestamp"


def requested_at(*moments, action="remind_me"):
    events = random_log(len(moments), 0, timedelta(days=1))
    return events.with_columns(
        pl.Series("event_at", moments, dtype=MOMENT),
        pl.Series("recorded_at", moments, dtype=MOMENT),
        pl.lit(action).alias("action"),
        pl.lit("t0").alias("title_id"),
    )


@given(seed=st.integers(0, 10_000), count=st.integers(20, 90), spread=st.sampled_from(SPREADS))
@settings(max_examples=30, deadline=None)
def test_the_view_is_the_plain_count(seed, count, spread):
    events = random_log(count, seed, spread, actions=ASKING_ACTIONS)
    groups = by_key(pl.DataFrame(plain.requested_titles(events.to_dicts())), "title_id")
    expected = plain_states(groups, ["title_id"], plain.anticipation_moments, plain.anticipation)
    assert_same_states(title_anticipation(events), expected)


@given(seed=st.integers(0, 10_000), hour=st.integers(1, 47))
@settings(max_examples=20, deadline=None)
def test_a_state_knows_nothing_of_its_own_hour_or_later(seed, hour):
    events = random_log(80, seed, timedelta(days=2), actions=ASKING_ACTIONS)
    now = START + timedelta(hours=hour)
    earlier = title_anticipation(events.filter(pl.col("event_at") < now), span=Span(until=now))
    assert title_anticipation(events, span=Span(until=now)).equals(earlier)


def test_reminders_are_seen_at_the_end_of_their_hour_and_leave_after_a_day_and_a_week():
    hour = START + timedelta(hours=10)
    found = title_anticipation(requested_at(hour, hour + timedelta(minutes=59)))
    entered = hour + timedelta(hours=1)
    assert found[AT].to_list() == [entered, entered + timedelta(days=1), entered + timedelta(days=7)]
    counts = found.select("log_reminders_1d", "log_reminders_7d", "log_reminders_total").rows()
    assert [[round(math.expm1(value)) for value in row] for row in counts] == [[2, 2, 2], [0, 2, 2], [0, 0, 2]]
    rest = [name for name in found.columns if name.startswith("log_") and "reminders" not in name]
    assert found.select(pl.max_horizontal(rest)).to_series().to_list() == [0.0] * 3


def test_plays_and_requests_do_not_mix():
    events = random_log(60, 3, timedelta(days=2), actions=ASKING_ACTIONS)
    played = pl.col("action") == "play"
    assert title_anticipation(events).equals(title_anticipation(events.filter(~played)))
    assert title_popularity(events).equals(title_popularity(events.filter(played)))


def test_a_log_in_which_nothing_is_asked_for_has_no_rows_and_the_same_columns():
    nothing = title_anticipation(random_log(40, 6, timedelta(days=3)))
    assert nothing.is_empty()
    assert nothing.schema == title_anticipation(random_log(40, 6, timedelta(days=3), actions=ASKING_ACTIONS)).schema
