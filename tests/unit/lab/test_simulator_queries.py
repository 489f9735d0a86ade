"""What members type, and which titles it finds."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from playbill_lab.simulator.world import queries
from playbill_lab.simulator.world.catalogue import WorldCatalogue, make_catalogue
from playbill_lab.simulator.world.queries import ABSENT, QueryBook, plain
from playbill_lab.simulator.world.real_catalogue import read_catalogue

LANGUAGES = ("en", "es", "ja")


@pytest.fixture(scope="module")
def catalogue() -> WorldCatalogue:
    return make_catalogue(300, LANGUAGES, np.random.default_rng(3))


@pytest.fixture(scope="module")
def book(catalogue: WorldCatalogue) -> QueryBook:
    return QueryBook.make(catalogue, np.random.default_rng(4))


def names_of(catalogue: WorldCatalogue, title: int) -> set[str]:
    return {plain(entry["name"]) for entry in catalogue.titles["names"][title].to_list()}


def test_plain_text_is_what_a_keyboard_gives() -> None:
    assert plain("Sueño  de FUEGO") == "sueno de fuego"
    assert plain("게임 그리고 심장") == "게임 그리고 심장"
    assert plain("ゲーム") == "ゲーム"


def typed(book: QueryBook, wanted: np.ndarray, rng: np.random.Generator) -> pl.Series:
    """Return how far English members get before they look at the results: prefixes of what they mean."""
    texts = book.intended(wanted, np.zeros(len(wanted), np.int64), rng)
    letters = np.minimum(2 + rng.geometric(0.22, size=len(texts)), texts.str.len_chars().to_numpy())
    return pl.Series([text[:count].rstrip() for text, count in zip(texts, letters, strict=True)])


def test_what_is_meant_is_mostly_a_name(catalogue: WorldCatalogue, book: QueryBook) -> None:
    wanted = np.arange(300)
    meant = book.intended(wanted, np.zeros(300, np.int64), np.random.default_rng(5)).to_list()
    whole_names = sum(text in names_of(catalogue, at) for at, text in enumerate(meant))
    assert 0.65 < whole_names / 300 < 0.95


def test_the_same_seed_types_the_same(book: QueryBook) -> None:
    wanted, language = np.arange(50), np.zeros(50, np.int64)
    first, again = (book.intended(wanted, language, np.random.default_rng(6)).to_list() for _ in range(2))
    assert first == again
    assert first != book.intended(wanted, language, np.random.default_rng(7)).to_list()


def test_names_come_in_the_members_language_and_in_others(book: QueryBook) -> None:
    meant = book.intended(np.arange(300), np.full(300, LANGUAGES.index("ja")), np.random.default_rng(8)).to_list()
    japanese = sum(not text.isascii() for text in meant) / 300
    assert 0.7 < japanese < 0.95


def test_slips_stay_within_one_letter(
    monkeypatch: pytest.MonkeyPatch, catalogue: WorldCatalogue, book: QueryBook
) -> None:
    monkeypatch.setattr(queries, "SLIP", 1.0)
    monkeypatch.setattr(queries, "LATER_WORD", 0.0)
    meant = book.intended(np.arange(300), np.zeros(300, np.int64), np.random.default_rng(9)).to_list()
    distances = [min(_distance(text, name) for name in names_of(catalogue, at)) for at, text in enumerate(meant)]
    assert max(distances) == 1
    assert np.mean(distances) > 0.8
    assert (
        len({len(text) - len(plain_name) for text, plain_name in zip(meant, _nearest(catalogue, meant), strict=True)})
        == 3
    )


def _nearest(catalogue: WorldCatalogue, meant: list[str]) -> list[str]:
    return [min(names_of(catalogue, at), key=lambda name: _distance(text, name)) for at, text in enumerate(meant)]


def _distance(one: str, other: str) -> int:
    """Edits between two texts, a swap of neighbours counting as one (the plain way)."""
    table = {(row, -1): row + 1 for row in range(-1, len(one))} | {
        (-1, column): column + 1 for column in range(-1, len(other))
    }
    for row, left in enumerate(one):
        for column, right in enumerate(other):
            change = table[row - 1, column - 1] + (left != right)
            table[row, column] = min(table[row - 1, column] + 1, table[row, column - 1] + 1, change)
            if row and column and left == other[column - 1] and one[row - 1] == right:
                table[row, column] = min(table[row, column], table[row - 2, column - 2] + 1)
    return table[len(one) - 1, len(other) - 1]


def test_titles_that_are_not_there_are_asked_for_by_names_nobody_has(
    catalogue: WorldCatalogue, book: QueryBook
) -> None:
    taken = set().union(*(names_of(catalogue, at) for at in range(300)))
    absent = np.full(200, ABSENT)
    meant = book.intended(absent, np.zeros(200, np.int64), np.random.default_rng(10)).to_list()
    assert taken.isdisjoint(meant)
    assert len(set(meant)) > 50


def test_matches_equal_the_plain_rule(catalogue: WorldCatalogue, book: QueryBook) -> None:
    """A title matches a prefix if one of its names, from any word on, goes on from it; more typed scores higher."""
    request = typed(book, np.arange(60), np.random.default_rng(11))
    found = book.matches(request)
    everything = [{plain(catalogue.titles["name"][at])} | names_of(catalogue, at) for at in range(300)]
    checked = 0
    for row, text in enumerate(request.to_list()):
        plainly = np.array([max(_score(text, name) for name in names) for names in everything])
        if plainly.any():
            assert np.allclose(found[row], plainly, atol=1e-6), text
            checked += 1
    assert checked > 45


def _score(query: str, name: str) -> float:
    starts = [at for at in range(len(name)) if at == 0 or name[at - 1] == " "]
    scores = [
        (1.0 if at == 0 else 0.8) * (0.5 + 0.5 * len(query) / len(name)) for at in starts if name[at:].startswith(query)
    ]
    return max(scores, default=0.0)


def test_a_slip_still_finds_the_title(book: QueryBook, catalogue: WorldCatalogue) -> None:
    name = next(name for name in catalogue.titles["name"].to_list() if name.isascii() and len(name) > 14)
    title = catalogue.titles["name"].to_list().index(name)
    wrong = plain(name)[:5] + plain(name)[6:]
    found = book.matches(pl.Series([wrong, "", None, "zzzzzz"], dtype=pl.String))
    assert found[0, title] > 0
    assert found[0, title] == found[0].max()
    assert not found[1:].any()


def test_real_catalogues_without_variants_are_searched_by_their_name() -> None:
    frame = pl.DataFrame({"title_id": ["1", "2"], "name": ["Amélie", "Alien"], "kind": ["film", "film"]})
    rng = np.random.default_rng(0)
    book = QueryBook.make(read_catalogue(frame, None, rng), rng)
    assert (book.matches(pl.Series(["ame", "AL", "a"])) > 0).tolist() == [[True, False], [False, True], [True, True]]
    meant = book.intended(np.zeros(40, np.int64), np.zeros(40, np.int64), rng)
    assert meant.value_counts(sort=True)[0, 0] == "amelie"
