from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from playbill.datasets.batching.batches import QueryPool
from playbill.datasets.batching.synthetic_queries import made_queries
from playbill.datasets.encoding.text import fold, gram_arrays, word_arrays

BUCKETS = 2**20


def bag(text: str, *, query: bool = False) -> set[int]:
    return set(gram_arrays([text], BUCKETS, query=query)[0].tolist())


def best(query: str, names: list[str]) -> str:
    requested = bag(query, query=True)
    return max(names, key=lambda name: len(requested & bag(name)) / len(bag(name)) ** 0.5)


@pytest.mark.parametrize("typed", ["s", "st", "star", "star w", "star wars", "STAR W", "wars"])
def test_what_is_typed_on_the_way_to_a_name_is_part_of_its_grams(typed: str) -> None:
    assert bag(typed, query=True) <= bag("Star Wars")


def test_an_unfinished_word_is_no_whole_word() -> None:
    assert not bag("star") <= bag("starship")
    assert bag("star", query=True) <= bag("starship")
    assert not bag("star ", query=True) <= bag("starship"), "a space says the word is complete"


def test_accents_case_and_punctuation_do_not_matter() -> None:
    assert bag("amelie") == bag("Amélie")
    assert bag("AMÉLIE") == bag("ame\u0301lie!")
    assert fold("Schindler's List") == "schindlers list"
    assert fold("STRASSE") == fold("straße")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("千尋", "千と千尋の神隠し"),
        ("기생", "기생충"),
        ("ста", "Сталкер"),
        ("बाहु", "बाहुबली"),
        ("هزار", "هزار دستان"),
    ],
)
def test_any_script_matches_itself_best(query: str, name: str) -> None:
    names = ["千と千尋の神隠し", "기생충", "Сталкер", "बाहुबली", "هزار دستان", "Star Wars", "もののけ姫"]
    assert best(query, names) == name


@pytest.mark.parametrize("typed", ["termnator", "temrinator", "terminatro", "terminattor"])
def test_a_wrong_letter_still_finds_the_name(typed: str) -> None:
    names = ["The Terminator", "The Terminal", "Tremors", "Thelma", "Training Day"]
    assert best(typed, names) == "The Terminator"


def test_words_in_order_match_better_than_words_apart() -> None:
    assert best("star w", ["Star Kid", "Star Wars", "War of the Stars", "Wild Star"]) == "Star Wars"
    assert len(bag("star wars") & bag("star wars")) > len(bag("star wars") & bag("wars star"))


def test_texts_do_not_run_into_each_other() -> None:
    ids, offsets = gram_arrays(["star", "wars"], BUCKETS)
    assert set(ids[: offsets[1]]) == bag("star")
    assert set(ids[offsets[1] :]) == bag("wars")


def test_bags_are_laid_out_by_offsets() -> None:
    ids, offsets = gram_arrays(["ab", "", "a", "!?"], BUCKETS)
    assert ids.dtype == offsets.dtype == np.int64
    assert offsets.tolist() == [0, 3, 3, 5]
    assert set(ids[3:5]) == bag("a")
    assert ids.min() > 0


def test_no_texts_and_no_buckets() -> None:
    assert [part.size for part in gram_arrays([], BUCKETS)] == [0, 0]
    ids, offsets = gram_arrays(["star", "wars"], 1)
    assert ids.size == 0
    assert offsets.tolist() == [0, 0]


def test_ids_stay_in_their_range() -> None:
    ids, _ = gram_arrays([f"word{number}" for number in range(500)], 64)
    assert ids.min() >= 1
    assert ids.max() <= 63


def test_longer_texts_give_their_first_words() -> None:
    ids, offsets = word_arrays(["one two three", "x " * 500, ""], BUCKETS, limit=2)
    assert np.diff(offsets, append=len(ids)).tolist() == [2, 2, 0]
    assert set(ids[:2]) <= bag("one") | bag("two")


def test_very_long_words_differ_only_in_their_first_letters() -> None:
    assert bag("x" * 40) == bag("x" * 400)


def test_ids_are_the_same_in_every_process() -> None:
    code = (
        "from playbill.datasets.encoding.text import gram_arrays; print(gram_arrays(['Amélie 千と'], 9999)[0].tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{gram_arrays(['Amélie 千と'], 9999)[0].tolist()}\n"}


def test_made_queries_repeat_by_seed_and_vary_without() -> None:
    names = ["Star Wars (1977)", "Amélie", "Up", "", "!!"]
    one, again, other = (made_queries(names, 16, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert [len(queries) for queries in one] == [16] * 5
    assert one[3] == one[4] == [""] * 16
    assert all(queries for queries in one[2])


def test_made_queries_are_prefixes_words_and_mistakes_of_the_name() -> None:
    queries = {query for query in made_queries(["Terminator Judgment Day (1991)"], 500, 3)[0]}
    name = "terminator judgment day"
    assert {"t", name} <= queries
    assert not any("1991" in query for query in queries)
    assert any(query not in name for query in queries), "some are mistyped"
    assert any(query.startswith("judg") for query in queries), "some leave words out"


def test_made_queries_are_fast() -> None:
    names = [f"The Long Name of Film Number {number} (1999)" for number in range(5_000)]
    begun = time.perf_counter()
    flat = [query for queries in made_queries(names, 16, 1) for query in queries]
    gram_arrays(flat, 2**15, query=True)
    assert time.perf_counter() - begun < 5


def test_of_many_titles_fewer_queries_are_made_each_and_a_title_without_any_has_empty_ones(monkeypatch) -> None:
    names = ("", "Toy Story (1995)", "Alien", "Gone", "Heat", "Jaws 2")
    wanted, titles = np.array([False, True, True, False, True, True]), np.array([1, 3, 4, 5, 0, 2])
    chance = np.array([0.0, 0.5, 0.999, 0.4, 0.9, 0.3], np.float32)
    for most, each in ((1_000, 16), (8, 2), (1, 1)):
        monkeypatch.setattr("playbill.datasets.batching.batches.MOST_QUERIES", most)
        pool = QueryPool.make(names, wanted, BUCKETS, seed=5)
        made = made_queries([name if want else "" for name, want in zip(names, wanted, strict=True)], each, 5)
        requested = [made[title][int(draw * each)] for title, draw in zip(titles, chance, strict=True)]
        for own, plain in zip(pool.of(titles, chance), gram_arrays(requested, BUCKETS, query=True), strict=True):
            np.testing.assert_array_equal(own, plain)
