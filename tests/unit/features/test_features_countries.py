"""Views by country against plain loops."""

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fixtures import plain_features as plain
from fixtures.random_log import MOMENT, SPREADS, START, TITLES, assert_same_states, by_key, plain_states, random_log
from playbill.features.axis import Span
from playbill.features.titles import (
    LEVELS,
    country_popularity,
    title_country_popularity,
    title_country_profile,
)


def received(events):
    return pl.DataFrame(plain.received(events.to_dicts()), schema=events.schema)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", SPREADS)
def test_title_country_popularity_is_the_plain_count(seed, spread):
    events = random_log(90, seed, spread)
    expected = plain_states(
        by_key(received(events), "title_id", "country"),
        ["title_id", "country"],
        lambda own: plain.popularity_moments(own, plain.COUNTRY_WINDOWS),
        lambda own, at: plain.popularity(own, at, plain.COUNTRY_WINDOWS),
    )
    assert_same_states(title_country_popularity(events), expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", SPREADS)
def test_country_popularity_is_the_plain_count(seed, spread):
    events = random_log(90, seed, spread)
    expected = plain_states(
        by_key(received(events), "country"),
        ["country"],
        lambda own: plain.popularity_moments(own, plain.COUNTRY_WINDOWS),
        lambda own, at: plain.country(own, at, LEVELS),
    )
    assert_same_states(country_popularity(events), expected)


@pytest.mark.parametrize("compute", [title_country_popularity, country_popularity])
def test_a_span_has_its_own_states_and_an_empty_log_has_none(compute):
    events = random_log(90, 5, timedelta(days=50))
    every = compute(events)
    since, until = START + timedelta(days=20), START + timedelta(days=45)
    at = pl.col("event_timestamp")
    assert_frame_equal(compute(events, TITLES, Span(since, until)), every.filter((at >= since) & (at <= until)))
    assert compute(events.clear()).schema == every.schema


def test_a_launch_in_a_country_is_what_was_known_of_it_then() -> None:
    day = timedelta(days=1)
    spans = pl.DataFrame(
        [
            ("x", "*", START + 9 * day, START),
            ("x", "NL", START + 7 * day, START + 2 * day),
            ("x", "NL", START + 5 * day, START + 3 * day),
            ("x", "NL", START + 8 * day, START + 4 * day),
            ("y", "BR", START, START),
        ],
        schema={"title_id": pl.String, "country": pl.String, "available_from": MOMENT, "recorded_at": MOMENT},
        orient="row",
    )
    found = title_country_profile(spans)
    assert found.select("title_id", "country", "event_timestamp", "launched_at").rows() == [
        ("x", "NL", START + 2 * day, START + 7 * day),
        ("x", "NL", START + 3 * day, START + 5 * day),
        ("x", "NL", START + 4 * day, START + 5 * day),
        ("y", "BR", START, START),
    ]
