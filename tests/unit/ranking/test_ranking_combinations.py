"""Rows made of combined metadata and of characters, their names, and rows that are too short."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.definitions.specs import RowSpec
from playbill.definitions.zoo import load_zoo
from playbill.ranking.candidates import Catalogue, Viewer, select
from playbill.ranking.popularity import PlayLog
from playbill.ranking.row_plans import RowPlan, Setting, Taste, filled_up, plan_rows

NOW = datetime(2024, 5, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
US = pl.Datetime("us", "UTC")
ZOO = load_zoo(Path(__file__).parents[3] / "model_zoo")
LANGUAGES = ("en", "de", "fr", "es", "pt", "ja")


def catalogue_of(*titles: tuple[list[str], str, str, int], **more: list[Any]) -> Catalogue:
    """Titles by genres, kind, country of origin and year, all of them there."""
    ids = [f"t{number}" for number in range(len(titles))]
    frame = pl.DataFrame(
        {
            "title_id": ids,
            "name": ids,
            "names": [None] * len(ids),
            "genres": [title[0] for title in titles],
            "kind": [title[1] for title in titles],
            "countries": [[title[2]] for title in titles],
            "release_date": [datetime(title[3], 6, 1, tzinfo=UTC) for title in titles],
            **more,
        }
    )
    spans = pl.DataFrame({"title_id": ids, "country": "*", "available_from": [NOW - 99 * DAY] * len(ids)})
    spans = spans.with_columns(available_until=pl.lit(None, US), available_from=pl.col("available_from").cast(US))
    return Catalogue(ids, frame, spans)


def liking(*columns: int) -> Taste:
    return Taste(watched=np.array(columns), liked=np.array(columns))


def setting(catalogue: Catalogue, acclaimed: set[int] = frozenset()) -> Setting:  # type: ignore[assignment]
    mask = np.array([column in acclaimed for column in range(len(catalogue))])
    return Setting(np.ones(len(catalogue), np.bool_), mask)


SUSPENSE = (["drama", "thriller"], "series", "FR", 1994)
OTHER = (["comedy"], "film", "US", 2004)
SHELF = catalogue_of(*[SUSPENSE] * 12, *[OTHER] * 30)
NARROW = ZOO.rows["narrow_genre_rows"]


def names(taste: Taste, language: str, acclaimed: set[int] = frozenset(), catalogue: Catalogue = SHELF) -> list[str]:  # type: ignore[assignment]
    return [plan.title for plan in plan_rows([NARROW], catalogue, taste, language, setting(catalogue, acclaimed))]


def test_a_narrow_row_is_named_after_what_its_titles_have_in_common() -> None:
    plans = plan_rows([NARROW], SHELF, liking(0, 1), "en", setting(SHELF, set(range(12))))
    assert plans[0].only is not None
    assert plans[0].only.nonzero()[0].tolist() == list(range(12))
    assert plans[0].row_id.startswith("narrow_genre_rows:")
    assert len({plan.row_id for plan in plans}) == len(plans)


def test_the_words_of_a_name_are_in_the_order_of_its_language() -> None:
    catalogue = catalogue_of(
        *[(["drama", "thriller"], "series", "XX", year) for year in range(1900, 2020, 10)], *[OTHER] * 30
    )
    found = [names(liking(0, 1), language, set(range(12)), catalogue)[0] for language in LANGUAGES]
    assert found == [
        "Critically acclaimed suspenseful TV dramas",
        "Hochgelobte spannende Dramen als Serie",
        "Drames en série à suspense salués par la critique",
        "Dramas en serie de suspense con grandes críticas",
        "Dramas em série de suspense com ótimas críticas",
        "高評価のスリリングなTVドラマ",
    ]
    assert names(liking(0, 1), "fi", set(range(12)), catalogue)[0] == found[0]


def test_a_row_needs_enough_titles_and_enough_that_the_member_liked() -> None:
    assert names(liking(0), "en") == []
    assert names(liking(12, 13), "en") != names(liking(0, 1), "en")
    few = catalogue_of(*[SUSPENSE] * 5, *[OTHER] * 30)
    assert names(liking(0, 1), "en", catalogue=few) == []
    watched = catalogue_of(*[SUSPENSE] * 7, *[OTHER] * 30)
    assert names(liking(0, 1), "en", catalogue=watched) == []


def test_two_rows_never_share_most_of_their_titles() -> None:
    plans = plan_rows([NARROW], SHELF, liking(0, 1, 12, 13), "en", setting(SHELF))
    masks = [plan.only for plan in plans]
    assert len(masks) == 2
    for place, one in enumerate(masks):
        for other in masks[place + 1 :]:
            assert one is not None
            assert other is not None
            assert (one & other).sum() <= (one | other).sum() / 2


@pytest.mark.parametrize("name", sorted(ZOO.rows))
def test_every_row_of_the_zoo_has_a_name_in_every_language(name: str) -> None:
    row = ZOO.rows[name]
    assert set(row.title) >= set(LANGUAGES)
    words = row.generator.words if row.generator else None
    tables = [words.genres, words.moods, words.kinds, words.origins] if words else []
    for table in tables:
        for texts in table.values():
            assert set(texts) >= set(LANGUAGES)


def test_a_genre_row_is_called_what_the_language_calls_the_genre() -> None:
    taste = Taste(genres=("Sci-Fi", "drama", "Weird West"))
    catalogue = catalogue_of((["Sci-Fi"], "film", "US", 1999))
    for language, wanted in (
        ("de", ["Science-Fiction", "Dramen", "Weird West"]),
        ("fi", ["Sci-fi", "Dramas", "Weird West"]),
    ):
        plans = plan_rows([ZOO.rows["genre_rows"]], catalogue, taste, language)
        assert [plan.title for plan in plans] == wanted
    assert plans[0].row_id == "genre_rows:Sci-Fi"


def test_characters_come_from_the_members_titles_first_and_need_enough_titles() -> None:
    cast = [["Ann"], ["Ann", "Bo"], ["Bo", "Cy"], ["Bo"], ["Dee"], None]
    catalogue = catalogue_of(*[OTHER] * 6, characters=cast)
    spec = ZOO.rows["characters"]
    found = plan_rows([spec], catalogue, Taste(characters=("Ann", "Dee")), "en", setting(catalogue))
    assert [(plan.title, plan.only.nonzero()[0].tolist()) for plan in found if plan.only is not None] == [
        ("Ann", [0, 1]),
        ("Bo", [1, 2, 3]),
    ]
    gone = Setting(np.array([False, True, True, True, True, True]), np.zeros(6, np.bool_))
    assert [plan.title for plan in plan_rows([spec], catalogue, Taste(characters=("Ann",)), "en", gone)] == ["Bo"]


def short(**more: Any) -> tuple[np.ndarray, np.ndarray, str]:
    rules = {"watched": False, "kind": ["film"], "launched_within": "10d"}
    body = {"name": "new", "version": 1, "title": {"en": "New"}, "canvas": "home", "blend": {"play": 1.0}, **more}
    plan = RowPlan("new", RowSpec.model_validate({**body, "candidates": rules, "minimum_length": 3}), "New")
    kinds = ["film", "film", "film", "game", "film", "film"]
    catalogue = catalogue_of(*[([], kind, "US", 2000) for kind in kinds])
    log = [{"title_id": "t4", "event_at": NOW - DAY, "action": "play"}, {"title_id": "t1", "event_at": NOW - 9 * DAY}]
    plays = PlayLog(catalogue, pl.DataFrame(log).with_columns(pl.col("event_at").cast(US), action=pl.lit("play")))
    viewer = Viewer(NOW, "US", watched=np.array([2]))
    mask = select(catalogue, plan.spec.candidates, viewer)
    mask[5] = True
    return filled_up(plan, np.array([5.0, 4, 3, 2, 1, 0]), mask, plays, viewer, "popular_7d")


def test_a_short_row_is_filled_up_by_its_fallback_after_its_own_titles_and_says_so() -> None:
    scores, mask, note = short(when_short="fallback")
    order = [column for column in np.argsort(-scores, kind="stable").tolist() if mask[column]]
    assert order == [5, 4, 1, 0]
    assert note == "row new: 1 titles after filtering, fewer than 3: filled up by popular_7d"
    scores, mask, note = short(when_short="fallback", fallback="popular")
    assert "filled up by popular" in note


def test_a_short_row_that_is_dropped_stays_as_it_is() -> None:
    _, mask, note = short()
    assert mask.nonzero()[0].tolist() == [5]
    assert note == ""
