"""Generated catalogues and real ones given in their place."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.errors import DataError
from playbill.schema import KINDS
from playbill.tables import canonical_frame, polars_schema
from playbill_lab.simulator.world.catalogue import ENGLISH_SHARE, GENRES, KIND_SHARES, WorldCatalogue, make_catalogue
from playbill_lab.simulator.world.real_catalogue import UNKNOWN_LANGUAGE, read_catalogue
from playbill_lab.simulator.world.title_words import CONCEPTS, GENRE_WORDS, TONGUES, make_names

LANGUAGES = ("en", "es", "ja")


def made(titles: int = 600, seed: int = 0) -> WorldCatalogue:
    return make_catalogue(titles, LANGUAGES, np.random.default_rng(seed))


def real_titles(**columns: object) -> pl.DataFrame:
    given = {"title_id": ["b", "a"], "name": ["Brot", "Apfel"], "kind": ["film", "series"]}
    return pl.DataFrame(given | columns)


def test_rows_are_canonical_and_agree_with_the_arrays() -> None:
    catalogue = made()
    shaped, mistakes = canonical_frame("titles", catalogue.titles)
    assert not mistakes
    assert shaped.schema == polars_schema("titles")
    rows = shaped.to_dicts()
    assert shaped["title_id"].is_unique().all()
    assert [row["title_id"] for row in rows] == sorted(row["title_id"] for row in rows)
    for at in (0, 17, 599):
        row = rows[at]
        assert row["genres"] == [
            name for name, is_it in zip(catalogue.genres, catalogue.genre[at], strict=True) if is_it
        ]
        assert row["original_language"] == LANGUAGES[catalogue.language[at]]
        assert row["kind"] == KINDS[catalogue.kind[at]]
        assert row["runtime_min"] == catalogue.runtime_min[at]
        by_language = {entry["language"]: entry["name"] for entry in row["names"]}
        assert set(by_language) == set(LANGUAGES)
        assert row["name"] == by_language[row["original_language"]]


def test_the_same_seed_gives_the_same_catalogue() -> None:
    assert made(seed=4).titles.equals(made(seed=4).titles)
    assert not made(seed=4).titles.equals(made(seed=5).titles)


def test_shares_are_those_that_are_documented() -> None:
    catalogue = made(6000)
    kinds = np.bincount(catalogue.kind, minlength=3) / 6000
    assert np.allclose(kinds, list(KIND_SHARES.values()), atol=0.03)
    english = (catalogue.language == LANGUAGES.index("en")).mean()
    assert english == pytest.approx(ENGLISH_SHARE, abs=0.03)
    of_genre = catalogue.genre.mean(axis=0)
    assert of_genre[list(GENRES).index("drama")] > 3 * of_genre[list(GENRES).index("war")]
    assert set(catalogue.genre.sum(axis=1)) == {1.0, 2.0, 3.0}


def test_only_series_have_seasons_and_episodes() -> None:
    catalogue = made()
    series = catalogue.kind == KINDS.index("series")
    assert (catalogue.episodes[series] >= 6).all()
    assert (catalogue.episodes[~series] == 1).all()
    assert (catalogue.seasons[~series] == 1).all()
    assert (catalogue.runtime_min >= 5).all()


def test_synopses_speak_of_their_genres() -> None:
    """A reader of words alone tells the genre: most genre words of a synopsis are of the title's own."""
    catalogue = made()
    owners = {word: {name for name, words in GENRE_WORDS.items() if word in words.split()} for word in _all_words()}
    own, other = 0, 0
    for row in catalogue.titles.iter_rows(named=True):
        for word in row["synopsis"].rstrip(".").split(": ")[1].split():
            if word in owners:
                own += bool(owners[word] & set(row["genres"]))
                other += not owners[word] & set(row["genres"])
    assert own == 600 * 8
    assert other == 0


def _all_words() -> set[str]:
    return {word for words in GENRE_WORDS.values() for word in words.split()}


def test_every_language_has_every_word() -> None:
    sizes = {(len(tongue.nouns), len(set(tongue.nouns)), len(tongue.adjectives)) for tongue in TONGUES.values()}
    assert sizes == {(32, 32, 12)}


def test_names_of_one_language_differ_even_when_words_run_out() -> None:
    english, spanish = make_names(CONCEPTS + 50, ["en", "es"], np.random.default_rng(0))
    assert len(set(english)) == CONCEPTS + 50
    assert len(set(spanish)) == CONCEPTS + 50


def test_a_language_without_words_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(DataError, match=r"(?s)languages\.esp.*Did you mean 'es'.*languages\.qq"):
        make_catalogue(10, ["en", "esp", "qq"], np.random.default_rng(0))


@pytest.mark.parametrize(("titles", "languages"), [(0, ("en",)), (5, ())])
def test_a_catalogue_needs_titles_and_languages(titles: int, languages: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="at least one"):
        make_catalogue(titles, languages, np.random.default_rng(0))


def test_a_real_catalogue_keeps_what_it_says_and_gets_the_rest() -> None:
    frame = real_titles(genres=[["food"], None], runtime_min=[91, None], original_language=["de", None])
    catalogue = read_catalogue(frame, None, np.random.default_rng(0))
    assert catalogue.titles["title_id"].to_list() == ["a", "b"]
    assert catalogue.titles["name"].to_list() == ["Apfel", "Brot"]
    assert catalogue.genres == ("food",)
    assert catalogue.genre.tolist() == [[0.0], [1.0]]
    assert catalogue.runtime_min[1] == 91
    assert catalogue.runtime_min[0] >= 5
    assert [catalogue.languages[at] for at in catalogue.language] == [UNKNOWN_LANGUAGE, "de"]
    assert catalogue.availability is None


def test_the_newest_version_of_a_title_counts() -> None:
    frame = real_titles().with_columns(
        valid_from=datetime(2020, 1, 1, tzinfo=UTC), recorded_at=datetime(2020, 1, 1, tzinfo=UTC)
    )
    renamed = frame.head(1).with_columns(name=pl.lit("Brötchen"), valid_from=datetime(2021, 1, 1, tzinfo=UTC))
    catalogue = read_catalogue(pl.concat([renamed, frame]), None, np.random.default_rng(0))
    assert catalogue.titles["name"].to_list() == ["Apfel", "Brötchen"]


def test_movielens_titles_are_read_from_their_folder(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_bytes(
        "1::Toy Story (1995)::Animation|Children's\n2::Amélie (2001)::Comedy\n".encode("latin-1")
    )
    catalogue = read_catalogue(tmp_path, None, np.random.default_rng(0))
    assert catalogue.titles["name"].to_list() == ["Toy Story", "Amélie"]
    assert catalogue.titles["release_date"].dt.year().to_list() == [1995, 2001]
    assert catalogue.kids.tolist() == [True, False]
    assert catalogue.genres == ("Animation", "Children's", "Comedy")


def test_the_newer_movielens_files_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n7,"Seven, The (1979)",(no genres listed)\n')
    catalogue = read_catalogue(tmp_path, None, np.random.default_rng(0))
    assert catalogue.titles["name"].to_list() == ["Seven, The"]
    assert catalogue.genre.shape == (1, 0)


def test_a_catalogue_is_read_from_parquet(tmp_path: Path) -> None:
    real_titles().write_parquet(tmp_path / "titles.parquet")
    assert len(read_catalogue(tmp_path / "titles.parquet", None, np.random.default_rng(0))) == 2


def test_mistakes_of_a_real_catalogue_are_named_together() -> None:
    frame = real_titles(name=[" ", "Apfel"], kind=["film", "serie"])
    day = datetime(2026, 1, 1, tzinfo=UTC)
    windows = pl.DataFrame({"title_id": ["nobody"], "country": ["DE"], "available_from": [day], "recorded_at": [day]})
    with pytest.raises(DataError) as caught:
        read_catalogue(frame, windows, np.random.default_rng(0))
    text = str(caught.value)
    assert "titles.name: is empty: b" in text
    assert "'serie' is no kind: a. Did you mean 'series'?" in text
    assert "availability.title_id: is not in titles: nobody" in text
    assert "no title is available anywhere" in text


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    windows = pl.DataFrame(
        {
            "title_id": ["a"],
            "country": ["DE"],
            "available_from": [late],
            "available_until": [early],
            "recorded_at": [early],
        }
    )
    with pytest.raises(DataError, match="ends before it starts: a"):
        read_catalogue(real_titles(), windows, np.random.default_rng(0))


def test_an_empty_catalogue_is_refused() -> None:
    with pytest.raises(DataError, match="at least one title"):
        read_catalogue(real_titles().clear(), None, np.random.default_rng(0))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match=r"titles\.name"):
        read_catalogue(real_titles().drop("name"), None, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["nowhere.parquet", "folder", "noise.parquet"])
def test_a_path_without_titles_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "noise.parquet").write_text("noise")
    with pytest.raises(DataError, match=r"catalogue: "):
        read_catalogue(tmp_path / name, None, np.random.default_rng(0))
