"""Likeness of names: series are found in any language, and common words mislead nobody."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from playbill.ranking.scoring.name_similarity import NameLikeness, base_of

NAMES = (
    *("Toy Story", "The Philadelphia Story", "Toy Story 2", "Jaws 2", "Grease 2", "Jaws", "Aliens", "Alien 3"),
    *("The Story of Us", "2001", "Die Hard: With a Vengeance", "Die Hard 2", "Amélie", "The Story of Men", "Up"),
)
OTHERS = {"Die Hard 2": ["Stirb langsam 2"], "Die Hard: With a Vengeance": ["Stirb langsam: Jetzt erst recht"]}


@pytest.fixture(scope="module")
def names() -> NameLikeness:
    frame = pl.DataFrame(
        {
            "name": NAMES,
            "names": [[{"language": "de", "name": other} for other in OTHERS.get(name, [])] for name in NAMES],
        },
        schema_overrides={"names": pl.List(pl.Struct({"language": pl.String, "name": pl.String}))},
    )
    return NameLikeness.of(frame, np.arange(1, len(NAMES) + 1), len(NAMES) + 1)


def like(names: NameLikeness, source: str, genres: float = 1.0, described: bool = True) -> dict[str, float]:
    """Compare a title with all, where all share as much of their genres."""
    row = np.zeros(names.titles)
    described_T = np.full(names.titles, described)
    found, alike = names.near(1 + NAMES.index(source), lambda titles: np.full(len(titles), genres), described_T)
    row[found] = alike
    return dict(zip(NAMES, row[1:].tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("Die Hard 2", "die hard"),
        ("Die Hard: With a Vengeance", "die hard"),
        ("Star Trek III: The Search for Spock", "star trek"),
        ("The Godfather: Part II", "the godfather"),
        ("Father of the Bride Part II", "father of the bride"),
        ("Der Pate - Teil 2", "der pate"),
        ("Naked Gun 33 1/3: The Final Insult", "naked gun"),
        ("踊る大捜査線：完結編", "踊る大捜査線"),  # noqa: RUF001
        ("Apollo 13", "apollo"),
        ("The Last Time I Saw Paris", "the last time i saw paris"),
        ("2001", "2001"),
        ("(500) Days of Summer", "500 days of summer"),
        ("!!!", ""),
    ],
)
def test_a_series_is_what_stands_before_the_number_or_the_colon(name: str, base: str) -> None:
    assert base_of(name) == base


def test_names_of_one_series_are_alike_whatever_the_genres(names: NameLikeness) -> None:
    assert like(names, "Toy Story", genres=0.0)["Toy Story 2"] == 1.0
    assert like(names, "Die Hard 2", genres=0.0)["Die Hard: With a Vengeance"] == 1.0
    assert like(names, "Jaws", genres=0.0)["Jaws 2"] == 1.0


def test_a_shared_number_is_nothing(names: NameLikeness) -> None:
    assert like(names, "Jaws 2")["Grease 2"] == 0.0


def test_a_common_word_says_little_and_without_company_nothing(names: NameLikeness) -> None:
    together = like(names, "Toy Story")
    assert 0 < together["The Philadelphia Story"] < 0.3 < together["Toy Story 2"]
    assert like(names, "Toy Story", genres=0.04)["The Philadelphia Story"] == pytest.approx(
        0.2 * together["The Philadelphia Story"], rel=1e-5
    )
    assert like(names, "Toy Story", genres=0.0)["The Philadelphia Story"] == 0.0


def test_first_letters_are_enough_in_company(names: NameLikeness) -> None:
    assert like(names, "Aliens")["Alien 3"] > 0.9
    assert like(names, "Aliens", genres=0.25)["Alien 3"] == pytest.approx(0.5, abs=0.05)


def test_a_title_without_genres_has_half_the_company(names: NameLikeness) -> None:
    assert like(names, "Aliens", genres=0.0, described=False)["Alien 3"] == pytest.approx(0.5, abs=0.05)


def test_a_title_without_names_is_like_none() -> None:
    frame = pl.DataFrame({"name": ["", "!!!", "???", "Up"]})
    names = NameLikeness.of(frame, np.array([1, 2, 3, 4]), 5)
    for source in (1, 2):
        assert not len(names.near(source, lambda titles: np.ones(len(titles)), np.ones(5, np.bool_))[0])
    nameless = NameLikeness.of(frame.head(0), np.zeros(0, np.int64), 3)
    assert not len(nameless.near(1, lambda titles: np.ones(len(titles)), np.ones(3, np.bool_))[0])
