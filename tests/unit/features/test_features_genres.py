"""Genres of members against plain loops."""

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fixtures import plain_features as plain
from fixtures.random_log import GENRES, START, TITLES, assert_same_states, by_key, plain_states, random_log
from playbill.features.axis import Span
from playbill.features.genres import member_genres


def plain_genres(events, genres):
    groups = {key: own for key, own in by_key(events, "member_id").items() if plain.genre_moments(own, genres)}
    return plain_states(
        groups,
        ["member_id"],
        lambda own: plain.genre_moments(own, genres),
        lambda own, at: plain.taste(own, genres, at),
    )


@pytest.mark.parametrize("seed", range(6))
def test_member_genres_is_the_plain_count(seed):
    events = random_log(90, seed, timedelta(days=40))
    assert_same_states(member_genres(events, TITLES), plain_genres(events, GENRES))


def test_more_genres_than_are_listed_and_parts_of_a_few_members(monkeypatch):
    titles = TITLES.with_columns(genres=pl.Series([[f"G{i}{j}" for j in range(3)] for i in range(6)]))
    events = random_log(150, 9, timedelta(days=40), members=12)
    monkeypatch.setattr("playbill.features.genres.CELLS_AT_ONCE", 18 * 7)
    found = member_genres(events, titles)
    assert_same_states(found, plain_genres(events, dict(titles.iter_rows())))
    assert found.get_column("genres").list.len().max() == 8


def test_fewer_genres_than_places_are_null():
    titles = TITLES.with_columns(genres=pl.lit(["Only"]))
    row = member_genres(random_log(30, 2, timedelta(days=4)), titles).row(-1, named=True)
    assert (row["first_genre"], row["first_share"], row["second_genre"], row["third_share"]) == (
        "Only",
        1.0,
        None,
        None,
    )
    assert row["genre_entropy"] == 0.0


def test_a_service_without_genres_has_no_rows():
    events = random_log(30, 2, timedelta(days=4))
    nothing = member_genres(events, TITLES.with_columns(genres=pl.lit(None, dtype=pl.List(pl.String))))
    assert nothing.is_empty()
    assert nothing.schema == member_genres(events, TITLES).schema


def test_a_span_returns_the_states_that_begin_in_it():
    events = random_log(90, 3, timedelta(days=40))
    since = START + timedelta(days=20)
    expected = member_genres(events, TITLES).filter(pl.col("event_timestamp") >= since)
    assert_frame_equal(member_genres(events, TITLES, Span(since)), expected)
