"""Sessions against plain loops, and where they begin and end."""

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fixtures import plain_features as plain
from fixtures.random_log import GENRES, MOMENT, START, TITLES, assert_same_states, by_key, plain_states, random_log
from playbill.features.axis import Span
from playbill.features.members import member_session
from playbill.schema import SESSION_PAUSE


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("hours", [3, 12, 100, 20_000])
def test_member_session_is_the_plain_count(seed, hours):
    events = random_log(120, seed, timedelta(hours=hours)).sort("member_id", "event_at", "seq")
    groups = by_key(events, "member_id")
    expected = plain_states(
        groups, ["member_id"], plain.session_moments, lambda own, at: plain.session(own, GENRES, at)
    )
    assert_same_states(member_session(events, TITLES), expected)


def log_at(*moments):
    return pl.DataFrame(
        {
            "member_id": ["m"] * len(moments),
            "event_at": [START + moment for moment in moments],
            "recorded_at": [START + moment for moment in moments],
            "action": ["play"] * len(moments),
            "title_id": ["t1"] * len(moments),
        },
        schema_overrides={"event_at": MOMENT, "recorded_at": MOMENT},
    )


def test_a_session_ends_exactly_where_its_value_expires():
    # A value is stamped one microsecond after its event and kept while its age is at most the ttl.
    last_alive = SESSION_PAUSE + plain.TICK
    together = member_session(log_at(timedelta(0), last_alive), TITLES)
    assert together.get_column("log_events").to_list() == [plain.log(1), plain.log(2)]
    apart = member_session(log_at(timedelta(0), last_alive + plain.TICK), TITLES)
    assert apart.get_column("log_events").to_list() == [plain.log(1), plain.log(1)]
    assert apart.get_column("started_at").n_unique() == 2


def test_shown_titles_are_events_of_a_session_but_not_its_titles():
    events = log_at(timedelta(0), timedelta(minutes=1)).with_columns(pl.lit("impression").alias("action"))
    last = member_session(events, TITLES).row(-1, named=True)
    assert (last["log_events"], last["distinct_titles"], last["last_title_id"]) == (plain.log(2), 0.0, None)
    assert last["last_action"] == "impression"


def test_a_span_has_its_own_states_and_an_empty_log_has_none():
    events = random_log(80, 7, timedelta(days=2)).sort("member_id", "event_at")
    every, since = member_session(events, TITLES), START + timedelta(days=1)
    assert_frame_equal(member_session(events, TITLES, Span(since)), every.filter(pl.col("event_timestamp") >= since))
    assert member_session(events.clear(), TITLES).schema == every.schema
