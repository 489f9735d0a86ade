"""Text matches: any name, person, genre or story, by the share of a query that a title has."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from playbill.datasets.encoding.text import description_gram, gram_arrays
from playbill.ranking.scoring.text_match import ENOUGH, FIELDS, SearchTexts, TextIndex, query_importance

BUCKETS = 2**18
NAMES = [
    (
        "Star Wars",
        {"fr": "La Guerre des étoiles", "de": "Krieg der Sterne", "pl": "Gwiezdne wojny", "ja": "スター・ウォーズ"},
    ),
    ("Star Kid", {}),
    ("Night of the Dead", {}),
    ("Gone", {}),
    ("The Long Ride", {}),
]
SYNOPSES = [
    "A farm boy joins rebels against an empire.",
    None,
    "A zombie outbreak traps strangers in a farmhouse near a cemetery.",
    "A woman looks for her sister.",
    "Two brothers cross the desert on horses.",
]


@pytest.fixture(scope="module")
def titles() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "title_id": [str(number) for number in range(5)],
            "name": [name for name, _ in NAMES],
            "names": [[{"language": code, "name": name} for code, name in others.items()] for _, others in NAMES],
            "characters": [["Luke Skywalker", "Leia Organa"], None, ["Ben"], [], ["Luke Cage"]],
            "genres": [["sci_fi"], ["family"], ["horror"], ["thriller"], ["western"]],
            "kind": ["film"] * 5,
            "release_date": [datetime(year, 5, 1, tzinfo=UTC) for year in (1977, 1997, 1968, 2012, 1980)],
            "synopsis": SYNOPSES,
        },
        schema_overrides={"names": pl.List(pl.Struct({"language": pl.String, "name": pl.String}))},
    )


@pytest.fixture(scope="module")
def index(titles) -> TextIndex:
    return TextIndex.of(SearchTexts.of(titles, BUCKETS), titles.height, BUCKETS)


def scores(index: TextIndex, *queries: str) -> np.ndarray:
    return index.scores(*gram_arrays(queries, BUCKETS, query=True))


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("star w", 0),
        ("star k", 1),
        ("gwiezdne", 0),
        ("etoiles", 0),
        ("ウォーズ", 0),
        ("leia", 0),
        ("luke c", 4),
        ("horror", 2),
        ("1997", 1),
        ("60s horror", 2),
        ("sci fi", 0),
        ("goen", 3),
    ],
)
def test_people_find_titles_by_any_name_person_genre_or_year(index, query, title):
    assert scores(index, query)[0].argmax() == title


def test_a_title_with_many_names_is_matched_as_well_as_one_with_a_single_name(titles):
    alone = titles.with_columns(names=pl.Series([[]] * 5, dtype=titles.schema["names"]))
    few = TextIndex.of(SearchTexts.of(alone, BUCKETS), 5, BUCKETS)
    many = TextIndex.of(SearchTexts.of(titles, BUCKETS), 5, BUCKETS)
    assert scores(many, "star wars")[0, 0] > 0.8 * scores(few, "star wars")[0, 0]


def test_a_story_is_found_by_its_words_and_their_stems(index):
    progress = "i remember a movie where zombies attack people who hide all over town every evening"
    found = scores(index, progress)[0]
    assert found.argmax() == 2
    assert found[2] > found[[0, 1, 3, 4]].max() > 0
    assert description_gram(BUCKETS) in gram_arrays([progress], BUCKETS, query=True)[0]
    assert description_gram(BUCKETS) not in gram_arrays(["zombies attack"], BUCKETS, query=True)[0]


def test_one_letter_says_less_than_a_whole_name(index):
    assert scores(index, "s")[0].max() < 0.5 * scores(index, "star wars")[0].max()


@pytest.mark.parametrize("query", ["", " ", "zzzz qqqq", "🎬🎬", "\u0000\u0007"])
def test_what_nothing_has_matches_nothing_much(index, query):
    found = scores(index, query)
    assert np.isfinite(found).all()
    assert found.max() < 0.1


def test_a_query_of_ten_thousand_letters_is_answered(index):
    assert np.isfinite(scores(index, "zombie " * 1_500)).all()


def test_words_that_all_queries_have_say_little():
    taught, starts = gram_arrays(["do you remember this movie "] * 500, BUCKETS, query=True)
    importance = query_importance(np.split(taught, starts[1:]), BUCKETS, prior=100)
    word = gram_arrays(["movie "], BUCKETS, query=True)[0]
    other = gram_arrays(["zombie "], BUCKETS, query=True)[0]
    assert importance[word].max() < 0.2
    assert np.median(importance[other]) == pytest.approx(1.0)


def test_matches_are_what_the_formula_says(index, titles):
    """Parity with loops over bags, in one field."""
    query = gram_arrays(["star w"], BUCKETS, query=True)[0]
    requested = set(query.tolist())
    bags = [set(gram_arrays([name], BUCKETS)[0].tolist()) for own in NAMES for name in (own[0], *own[1].values())]
    owner = [number for number, own in enumerate(NAMES) for _ in (own[0], *own[1].values())]
    having = {gram: {owner[at] for at, bag in enumerate(bags) if gram in bag} for gram in set.union(*bags)}
    rarity = {g: np.log(1 + (5 - len(t) + 0.5) / (len(t) + 0.5)) / np.log(7) for g, t in having.items()}
    mean = np.mean([len(bag) for bag in bags])
    texts = SearchTexts.of(titles, BUCKETS)
    others = set(texts.grams.tolist())
    found = index.by_field(*gram_arrays(["star w"], BUCKETS, query=True))[0, :, FIELDS.index("name")]
    total = sum(float(index.rarest[gram]) for gram in requested)
    expected = np.zeros(5)
    for bag, title in zip(bags, owner, strict=True):
        share = sum(rarity[gram] for gram in requested & bag) / (0.75 + 0.25 * len(bag) / mean) / (total + ENOUGH)
        expected[title] = max(expected[title], share)
    assert found == pytest.approx(expected, abs=1e-5)
    assert all(index.rarest[gram] == 1.0 for gram in requested - others)


@pytest.fixture(scope="module")
def many() -> TextIndex:
    """Forty films of two genres in four years, and some whose names begin like a genre or have one in them."""
    names = [f"Film {number}" for number in range(40)] + ["Drama Queen", "War Horse", "Star Wars", "Dramatis"]
    frame = pl.DataFrame(
        {
            "name": names,
            "genres": [["drama", "romance"] if number % 3 else ["drama"] for number in range(20)]
            + [["war"]] * 20
            + [["comedy"]] * 4,
            "kind": ["film"] * 44,
            "release_date": [datetime(1993 + number % 4, 5, 1, tzinfo=UTC) for number in range(44)],
        }
    )
    return TextIndex.of(SearchTexts.of(frame, BUCKETS), frame.height, BUCKETS)


def test_a_genre_with_a_year_is_answered_by_titles_of_both(many: TextIndex) -> None:
    found = scores(many, "drama 1994")[0]
    both = [number for number in range(20) if number % 4 == 1]
    others = np.setdiff1d(np.arange(40), both)
    assert found[both].min() > 2 * found[others].max()
    facets = many.by_field(*gram_arrays(["drama 1994"], BUCKETS, query=True))[0, both, FIELDS.index("facet")]
    assert np.ptp(facets) < 1e-6, "a film with a second genre is no less a drama"


def test_a_genre_alone_is_answered_by_its_titles_and_names_like_it(many: TextIndex) -> None:
    found = scores(many, "drama")[0]
    assert found[40] > found[:20].min() > 3 * found[20:40].max()


def test_a_word_of_a_name_that_is_part_of_a_genre_calls_for_no_genre(many: TextIndex) -> None:
    found = scores(many, "star wars")[0]
    assert found.argmax() == 42
    assert found[20:40].max() < 0.2 * found[42]


def test_one_letter_calls_for_no_genre(many: TextIndex) -> None:
    field = FIELDS.index("facet")
    by_field = many.by_field(*gram_arrays(["d", "dra"], BUCKETS, query=True))
    assert by_field[0, :20, field].max() < 0.1 < by_field[1, :20, field].min()


def test_scores_are_the_weighted_sum_of_fields(many) -> None:
    requested = ["drama 1994", "star w", "a film of war and drama and a queen", ""]
    grams, offsets = gram_arrays(requested, BUCKETS, query=True)
    weights = many.weights[many.described(grams, offsets)]
    plain = np.einsum("ntf,nf->nt", many.by_field(grams, offsets), weights)
    np.testing.assert_allclose(many.scores(grams, offsets), plain, atol=1e-6)
    assert (plain[:3].max(axis=1) > 0).all()
    assert not plain[3].any()
