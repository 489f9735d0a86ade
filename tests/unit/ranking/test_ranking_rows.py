from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.definitions.specs import RowSpec
from playbill.ranking.blend import Scores
from playbill.ranking.candidates import ABSENT, Catalogue, Mask
from playbill.ranking.page_builder import AS_WRITTEN, PlacedRow, build_page, row_candidates
from playbill.ranking.page_rules import PageRules
from playbill.ranking.row_plans import RowPlan, Taste, plan_rows, row_title, taste_of
from playbill.tables import empty_frame, polars_schema

NOW = datetime(2024, 5, 10, 12, tzinfo=UTC)
IDS = tuple("abcdef")


def filled(plans: list[RowPlan], lists: list[tuple[Scores, Mask]], k: int) -> tuple[PlacedRow, ...]:
    """Put rows on a page in the order they are written in."""
    return build_page(row_candidates(plans, catalogue(), lists), PageRules(AS_WRITTEN, k)).rows


def catalogue() -> Catalogue:
    titles = pl.DataFrame(
        {
            "title_id": list(IDS),
            "name": [name.upper() for name in IDS],
            "names": [None] * 6,
            "genres": [["Drama"], ["Drama", "War"], ["War"], ["Comedy"], ["Drama"], None],
            "kids": [None] * 6,
        },
        schema_overrides={"names": polars_schema("titles")["names"], "kids": pl.Boolean},
    )
    return Catalogue(IDS, titles, empty_frame("availability"))


def history(*rows: tuple[str, str]) -> pl.DataFrame:
    data = [{"seq": seq, "action": action, "title_id": title} for seq, (action, title) in enumerate(rows)]
    names = ("seq", "action", "title_id")
    return pl.DataFrame(data, schema={name: polars_schema("interactions")[name] for name in names})


def row(name: str, **more: Any) -> RowSpec:
    body = {"name": name, "version": 1, "title": {"en": name}, "canvas": "home", "minimum_length": 2, **more}
    return RowSpec.model_validate(body if "policy" in more else {"blend": {"play": 1.0}, **body})


def ranker(order: str, candidates: str = "abcdef") -> tuple[Scores, Mask]:
    scores = np.array([-float(order.index(name)) if name in order else -99.0 for name in IDS])
    return scores, np.array([name in candidates for name in IDS])


def test_liked_titles_are_thumbs_up_first_and_never_thumbs_down() -> None:
    events = history(
        ("play", "a"),
        ("thumbs_up", "a"),
        ("play", "b"),
        ("play", "c"),
        ("thumbs_down", "c"),
        ("play", "d"),
        ("thumbs_up", "d"),
        ("play", "e"),
    )
    taste = taste_of(events, catalogue())
    assert [IDS[column] for column in taste.liked] == ["d", "a", "e", "b"]
    assert [IDS[column] for column in taste.watched] == ["e", "d", "c", "b", "a"]


def test_the_last_thumb_counts() -> None:
    up_then_down = history(("play", "a"), ("thumbs_up", "a"), ("thumbs_down", "a"))
    down_then_up = history(("play", "a"), ("thumbs_down", "a"), ("thumbs_up", "a"))
    assert taste_of(up_then_down, catalogue()).liked.size == 0
    assert taste_of(down_then_up, catalogue()).liked.tolist() == [0]


def test_genres_are_those_liked_most_often_ties_by_name() -> None:
    events = history(("play", "b"), ("play", "e"), ("play", "d"), ("play", "c"), ("thumbs_down", "c"))
    assert taste_of(events, catalogue()).genres == ("Drama", "Comedy", "War")


def test_no_history_is_no_taste() -> None:
    taste = taste_of(empty_frame("interactions"), catalogue())
    assert taste.liked.size == taste.watched.size == 0
    assert taste.genres == ()


def test_generated_rows_are_spelled_out_for_the_member() -> None:
    specs = [
        row("picks"),
        row("because", title={"en": "Like {title}"}, generator={"each": "watched_title", "limit": 1}),
        row("genres", title={"en": "{genre}"}, generator={"each": "genre", "limit": 2}),
    ]
    taste = Taste(liked=np.array([3, 0]), genres=("War", "Drama", "Comedy"))
    plans = plan_rows(specs, catalogue(), taste)
    assert [(plan.row_id, plan.title) for plan in plans] == [
        ("picks", "picks"),
        ("because:d", "Like D"),
        ("genres:War", "War"),
        ("genres:Drama", "Drama"),
    ]
    assert [plan.source for plan in plans] == [ABSENT, 3, ABSENT, ABSENT]
    assert [plan.row_id for plan in plan_rows(specs, catalogue(), Taste())] == ["picks"]


def test_rows_are_named_in_the_members_language() -> None:
    spec = row("picks", title={"en": "For you", "de": "Für dich"})
    assert row_title(spec, "de") == "Für dich"
    assert row_title(spec, "fr") == row_title(spec, None) == "For you"
    assert row_title(row("x", title={"fi": "Sinulle"}), "sv") == "Sinulle"


def test_a_title_is_shown_once_in_the_first_row_that_wants_it() -> None:
    plans = plan_rows([row("one"), row("two")], catalogue(), Taste())
    rows = filled(plans, [ranker("abcdef") for _ in plans], k=2)
    assert [[IDS[column] for column in found.titles.columns] for found in rows] == [["a", "b"], ["c", "d"]]


def test_a_short_row_is_not_shown_and_takes_nothing_from_the_rows_below() -> None:
    plans = plan_rows([row("short"), row("full")], catalogue(), Taste())
    candidates = {"short": "a", "full": "ab"}
    rows = filled(plans, [ranker("abcdef", candidates[plan.row_id]) for plan in plans], k=5)
    assert [found.candidate.plan.row_id for found in rows] == ["full"]
    assert [IDS[column] for column in rows[0].titles.columns] == ["a", "b"]


def test_minimum_length_is_about_what_there_is_not_about_what_is_shown() -> None:
    plans = plan_rows([row("one", minimum_length=5)], catalogue(), Taste())
    rows = filled(plans, [ranker("abcdef") for _ in plans], k=1)
    assert [IDS[column] for column in rows[0].titles.columns] == ["a"]


def test_a_genre_row_holds_only_its_genre() -> None:
    spec = row("genres", title={"en": "{genre}"}, generator={"each": "genre"})
    plans = plan_rows([spec], catalogue(), Taste(genres=("War",)))
    rows = filled(plans, [ranker("fedcba") for _ in plans], k=5)
    assert [IDS[column] for column in rows[0].titles.columns] == ["c", "b"]


def test_a_row_is_scored_as_the_canvas_it_names() -> None:
    assert RowPlan("r", row("r"), "r").scored_as == "home"
    assert RowPlan("r", row("r", scored_as="more_like_this"), "r").scored_as == "more_like_this"


@pytest.mark.parametrize("seed", range(5))
def test_no_page_repeats_a_title(seed: int) -> None:
    random = np.random.default_rng(seed)
    plans = plan_rows([row(f"r{number}", minimum_length=1) for number in range(4)], catalogue(), Taste())
    draws = {plan.row_id: (random.normal(size=6), random.random(6) < 0.7) for plan in plans}
    rows = filled(plans, [draws[plan.row_id] for plan in plans], k=3)
    shown = [column for found in rows for column in found.titles.columns.tolist()]
    assert len(shown) == len(set(shown))
