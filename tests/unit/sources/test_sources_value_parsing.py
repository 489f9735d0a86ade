"""Names, regions and ratings."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

from playbill.sources.ratings import ORDER, RATING, RatingRule, rating_events
from playbill.sources.value_parsing import PREFIX_RANGES, name_of_title, region_of_zip, year_in_name
from playbill.tables import TIMESTAMP

START = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "name", "year"),
    [
        ("Matrix, The (1999)", "The Matrix", 1999),
        ("Café, Le (1995)", "Le Café", 1995),
        ("Étoile, L' (1990)", "L'Étoile", 1990),
        ("Hills, The (Colline, La) (1972)", "The Hills (La Colline)", 1972),
        ("Vie, La (A Life, The) (1991)", "La Vie (The A Life)", 1991),
        ("Hérisson (Plume, L') (1993)", "Hérisson (L'Plume)", 1993),
        ("Me, Myself and Them (2000)", "Me, Myself and Them", 2000),
        ("Ransom: Part 2, The (1995) (V)", "The Ransom: Part 2", 1995),
        ("1984 (1956)", "1984", 1956),
        ("2001: A Journey (1968)", "2001: A Journey", 1968),
        ("Serial, The (2010-2014)", "The Serial", None),
        ("No Year At All", "No Year At All", None),
        ("Alphabet, A (1950) ", "A Alphabet", 1950),
    ],
)
def test_a_name_and_its_year_are_split(written, name, year):
    found = pl.select(name=name_of_title(pl.lit(written)), year=year_in_name(pl.lit(written))).row(0)
    assert found == (name, year)


@pytest.mark.parametrize(
    ("code", "region"),
    [
        ("55117", "US-MN"),
        ("94043", "US-CA"),
        ("02139", "US-MA"),
        ("00501", "US-NY"),
        ("20001", "US-DC"),
        ("20101", "US-VA"),
        ("79912", "US-TX"),
        ("88510", "US-TX"),
        ("99501", "US-AK"),
        ("96799", "US-HI"),
        ("09096", "US-AE"),
        ("34023", "US-AA"),
        ("96349", "US-AP"),
        ("00901", "US-PR"),
        ("98107-2117", "US-WA"),
        ("981072117", "US-WA"),
        (" 55117 ", "US-MN"),
        ("T8H1N", "ZZ"),
        ("00000", "ZZ"),
        ("231702", "ZZ"),
        ("", "ZZ"),
        (None, "ZZ"),
    ],
)
def test_a_zip_code_has_its_region(code, region):
    assert pl.select(region_of_zip(pl.lit(code, dtype=pl.String))).item() == region


@pytest.mark.parametrize(("code", "region"), [("2139", "US-MA"), ("501", "US-NY"), ("21392117", "US-MA")])
def test_zip_codes_that_lost_their_zeros(code, region):
    assert pl.select(region_of_zip(pl.lit(code), digits_only=True)).item() == region


def test_the_prefix_table_is_in_order_and_has_every_state():
    for (_, last, _), (first, _, _) in pairwise(PREFIX_RANGES):
        assert last < first
    assert all(first <= last and re.fullmatch("[A-Z]{2}", state) for first, last, state in PREFIX_RANGES)
    states = {state for _, _, state in PREFIX_RANGES}
    assert len(states) == 50 + len({"DC", "PR", "VI", "GU", "AE", "AP", "AA"})


def ratings(*rows: tuple[str, str, int, float | None], order: list[int] | None = None) -> pl.DataFrame:
    frame = pl.DataFrame(
        [(member, title, START + timedelta(seconds=second), rating) for member, title, second, rating in rows],
        schema={"member_id": pl.String, "title_id": pl.String, "event_at": TIMESTAMP, RATING: pl.Float32},
        orient="row",
    )
    return frame if order is None else frame.with_columns(pl.Series(ORDER, order))


def test_rating_is_a_play_and_perhaps_a_thumb():
    rows = ratings(("a", "1", 1, 5), ("a", "2", 2, 3), ("a", "3", 3, 1), ("a", "4", 4, None), ("a", "5", 5, 3.5))
    events = rating_events(rows, RatingRule()).sort("seq")
    assert events.select("event_id", "seq", "action", "progress").rows() == [
        ("p-a-1", 0, "play", 1.0),
        ("t-a-1", 1, "thumbs_up", None),
        ("p-a-2", 2, "play", 1.0),
        ("p-a-3", 4, "play", 1.0),
        ("t-a-3", 5, "thumbs_down", None),
        ("p-a-4", 6, "play", 1.0),
        ("p-a-5", 8, "play", 1.0),
    ]
    assert events.get_column("canvas").unique().to_list() == ["home"]


def test_ties_go_by_title_number_whatever_the_order_of_rows():
    rows = ratings(("a", "10", 1, 3), ("a", "9", 1, 3), ("a", "100", 1, 3), ("a", "2", 2, 3), ("b", "7", 0, 3))
    for shuffled in (rows, rows.reverse(), rows.sample(fraction=1, shuffle=True, seed=1)):
        events = rating_events(shuffled, RatingRule()).filter(pl.col("member_id") == "a").sort("seq")
        assert events.get_column("title_id").to_list() == ["9", "10", "100", "2"]
        assert events.get_column("seq").to_list() == [0, 2, 4, 6]


def test_a_true_order_wins_over_time():
    rows = ratings(("a", "1", 5, 3), ("a", "2", 5, 3), ("a", "3", 5, 3), order=[2, 0, 1])
    events = rating_events(rows, RatingRule()).sort("seq")
    assert events.get_column("title_id").to_list() == ["2", "3", "1"]
    assert ORDER not in events.columns


def test_every_further_rating_of_a_title_is_an_event_of_its_own():
    rows = ratings(("a", "1", 1, 3), ("a", "1", 9, 5), ("a", "1", 9, 1), ("a", "1-2", 9, 3), ("a", "1", 9, 5))
    expected = ["p-a-1", "p-a-1~2", "t-a-1~2", "p-a-1~3", "t-a-1~3", "p-a-1~4", "t-a-1~4", "p-a-1-2"]
    for shuffled in (rows, rows.reverse()):
        events = rating_events(shuffled, RatingRule()).sort("seq")
        assert events.get_column("event_id").to_list() == expected
        thumbs = events.filter(pl.col("action").str.starts_with("thumbs")).get_column("action").to_list()
        assert thumbs == ["thumbs_down", "thumbs_up", "thumbs_up"]


def test_ids_of_ones_own_name_the_plays_and_their_thumbs():
    rows = ratings(("a", "1", 1, 5), ("a", "1", 1, 5)).with_columns(event_id=pl.Series(["r7", "p-8"]))
    events = rating_events(rows, RatingRule())
    assert sorted(events.get_column("event_id")) == ["p-8", "r7", "t-p-8", "t-r7"]


def test_a_rating_that_is_no_number_is_no_thumb():
    rows = ratings(("a", "1", 1, float("nan")), ("a", "2", 2, None), ("a", "3", 3, 4))
    events = rating_events(rows, RatingRule()).sort("seq")
    assert events.select("title_id", "action").rows() == [
        ("1", "play"),
        ("2", "play"),
        ("3", "play"),
        ("3", "thumbs_up"),
    ]
