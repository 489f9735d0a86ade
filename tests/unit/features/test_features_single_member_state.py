"""One member at one moment, by the functions that build the files."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fixtures import plain_features as plain
from fixtures.random_log import GENRES, SPREADS, START, TITLES, assert_same_states, by_key, random_log
from playbill.errors import DataError, UnknownNameError
from playbill.features.views import MEMBER_VIEWS, encode_member

AT = pl.col("event_timestamp")


@given(st.integers(0, 10_000), st.sampled_from(SPREADS), st.floats(0, 1.3))
@settings(max_examples=40, deadline=None)
def test_a_members_state_is_what_the_file_of_everyone_has_as_of_the_moment(seed, spread, share):
    events = random_log(60, seed, spread).sort("member_id", "event_at", "seq")
    at = START + spread * share
    for member in events.get_column("member_id").unique():
        own = events.filter(pl.col("member_id") == member)
        for view, state in encode_member(own, TITLES, at).items():
            every = MEMBER_VIEWS[view](events, TITLES).filter((pl.col("member_id") == member) & (at >= AT))
            assert_frame_equal(state, every.sort(AT).tail(1))


def test_several_members_have_a_row_each_and_a_member_without_events_has_none():
    events = random_log(60, 3, timedelta(days=9)).sort("member_id", "event_at", "seq")
    at = START + timedelta(days=5)
    states = encode_member(events, TITLES, at, ["member_activity", "member_session"])
    assert list(states) == ["member_activity", "member_session"]
    for name, slow in (("member_activity", plain.activity), ("member_session", plain.session)):
        found = states[name]
        rows = [
            {"member_id": member, "event_timestamp": row["event_timestamp"], **slow(own, GENRES, at)}
            for (member,), own in by_key(events, "member_id").items()
            for row in found.filter(pl.col("member_id") == member).to_dicts()
        ]
        assert_same_states(found, pl.DataFrame(rows).sort("member_id"))
        assert found.height == 4
    before = encode_member(events, TITLES, START - timedelta(days=1))
    assert all(frame.is_empty() for frame in before.values())


def test_the_event_of_the_moment_itself_does_not_count():
    events = random_log(1, 1, timedelta(days=1)).with_columns(pl.lit("play").alias("action"))
    at = events.get_column("event_at").item()
    assert encode_member(events, TITLES, at)["member_session"].is_empty()
    assert encode_member(events, TITLES, at + timedelta(microseconds=1))["member_session"].height == 1


def test_unknown_views_and_moments_without_a_zone_are_refused():
    events = random_log(5, 1, timedelta(days=1))
    with pytest.raises(UnknownNameError, match="Did you mean 'member_session'"):
        encode_member(events, TITLES, START, ["member_sesion"])
    with pytest.raises(DataError, match="has no time zone"):
        encode_member(events, TITLES, datetime(2024, 3, 2, tzinfo=UTC).replace(tzinfo=None))
