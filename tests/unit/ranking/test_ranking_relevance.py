"""What fits a query or a source title by the catalogue alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from playbill.ranking.candidates import Catalogue
from playbill.ranking.relevance import is_matched, matches_of_query, matches_of_source
from playbill.tables import empty_frame, polars_schema

TITLES = {
    "Toy Story": (["Animation", "Children", "Comedy"], ["Woody", "Buzz"]),
    "Toy Story 2": (["Animation", "Children", "Comedy"], ["Woody", "Buzz"]),
    "Star Wars": (["Action", "Sci-Fi"], ["Leia"]),
    "Star Trek": (["Action", "Sci-Fi"], ["Kirk"]),
    "Return of the Jedi": (["Action", "Sci-Fi"], ["Leia"]),
    "Heat": (["Crime", "Thriller"], []),
    "A Film of Nothing": ([], []),
    "Aladdin": (["Animation", "Children", "Musical"], ["Genie"]),
}
NAMES = list(TITLES)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    rows = [
        {"title_id": f"t{number}", "name": name, "genres": genres, "characters": characters}
        for number, (name, (genres, characters)) in enumerate(TITLES.items())
    ]
    schema = {name: kind for name, kind in polars_schema("titles").items() if name in {*rows[0], "names"}}
    titles = pl.DataFrame(rows, schema={**schema})
    return Catalogue(titles["title_id"].to_list(), titles, empty_frame("availability"))


def best(scores: np.ndarray) -> list[str]:
    return [NAMES[column] for column in np.argsort(-scores, kind="stable") if scores[column] > 0]


@pytest.mark.parametrize(
    ("query", "first", "absent"),
    [
        ("star w", "Star Wars", "Toy Story"),
        ("STAR TREK", "Star Trek", "Heat"),
        ("leia", "Star Wars", "Star Trek"),
        ("toy stroy", "Toy Story", "Heat"),
        ("h", "Heat", "Star Wars"),
        ("musical", "Aladdin", "Heat"),
    ],
)
def test_titles_that_match_by_name_character_or_genre_fit_a_query(
    catalogue: Catalogue, query: str, first: str, absent: str
) -> None:
    found = best(matches_of_query(catalogue, query))
    assert found[0] == first
    assert absent not in found


def test_nothing_fits_a_query_that_no_title_has_anything_of(catalogue: Catalogue) -> None:
    assert best(matches_of_query(catalogue, "qqzzxx")) == []


def test_a_popular_title_comes_before_one_that_nobody_plays_where_both_match() -> None:
    names = ["Dear God", "The Godfather", "Godzilla", "Alien"]
    titles = pl.DataFrame({"title_id": list("abcd"), "name": names}).with_columns(
        names=pl.lit(None, polars_schema("titles")["names"])
    )
    catalogue = Catalogue(list("abcd"), titles, empty_frame("availability"))
    alone = matches_of_query(catalogue, "god")
    assert alone[0] > alone[1] > 0
    found = matches_of_query(catalogue, "god", np.array([3.0, 800.0, 0.0, 5_000.0]))
    assert found[1] == found.max()
    assert (found > 0).tolist() == (alone > 0).tolist(), "popularity orders what matches, and no more"
    exact = matches_of_query(catalogue, "dear god", np.array([3.0, 800.0, 0.0, 5_000.0]))
    assert exact.argmax() == 0


@pytest.mark.parametrize(
    ("query", "matched"),
    [
        ("tarantino", False),
        ("toy stroy", True),
        ("musical", True),
        ("he forgets who killed his wife and writes it on himself", False),
        ("the one where buzz and woody are toys that a boy plays with, a story", True),
    ],
)
def test_a_query_that_only_shares_some_letters_is_matched_by_nothing(
    catalogue: Catalogue, query: str, matched: bool
) -> None:
    assert is_matched(catalogue, query) is matched


def test_what_shares_rare_metadata_fits_a_source_best(catalogue: Catalogue) -> None:
    assert best(matches_of_source(catalogue, NAMES.index("Toy Story"))) == ["Toy Story 2", "Aladdin"]
    wars = best(matches_of_source(catalogue, NAMES.index("Star Wars")))
    assert wars[0] == "Return of the Jedi"
    assert set(wars) == {"Return of the Jedi", "Star Trek"}


def test_nothing_fits_a_source_of_which_nothing_is_known(catalogue: Catalogue) -> None:
    assert best(matches_of_source(catalogue, NAMES.index("A Film of Nothing"))) == []


def test_a_catalogue_without_metadata_is_searched_by_name() -> None:
    titles = pl.DataFrame({"title_id": ["a", "b"], "name": ["Alien", "Brazil"]}).with_columns(
        names=pl.lit(None, polars_schema("titles")["names"])
    )
    catalogue = Catalogue(["a", "b"], titles, empty_frame("availability"))
    assert (matches_of_query(catalogue, "bra") > 0).tolist() == [False, True]
    assert not matches_of_source(catalogue, 0).any()
