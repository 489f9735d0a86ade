"""Fallbacks fit what was asked; charts, ties, rows that a version lacks, and countries that are not known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fixtures import serving_world as world
from playbill.config import Workspace
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.resolved import LeftOut
from playbill.errors import RequestError
from playbill.serving import RecommendRequest, RecommendResponse


def answer(stocked: Workspace, **requested: object) -> RecommendResponse:
    recommender = world.make_recommender(stocked, world.serve_with(stocked, None, version=None))
    response: RecommendResponse = recommender.recommend(RecommendRequest.model_validate(requested))
    return response


def names(response: RecommendResponse) -> list[str]:
    return [item.name for item in response.items]


def test_a_fallback_answers_a_query_by_the_titles_that_match_it(stocked: Workspace) -> None:
    assert names(answer(stocked, canvas="search", query="dun")) == ["Dune"]
    assert names(answer(stocked, canvas="search", query="fargo")) == ["Fargo"]
    nothing = answer(stocked, canvas="search", query="qqzzxx")
    assert nothing.items == ()
    assert "no title matches 'qqzzxx' by name, character, genre, year or synopsis: the list is empty" in nothing.notes
    assert len(answer(stocked, canvas="search", query="").items) > 3


def test_a_fallback_answers_a_source_title_by_titles_that_have_to_do_with_it(stocked: Workspace) -> None:
    comedies = names(answer(stocked, canvas="more_like_this", source_title_id="t0"))
    assert set(comedies) == {"Clue", "Emma", "Gandhi"}
    dramas = names(answer(stocked, canvas="more_like_this", source_title_id="t1"))
    assert dramas == ["Dune", "Fargo"], "of equal fit, what is played more comes first"


def test_because_you_watched_holds_only_what_has_to_do_with_the_title_named(stocked: Workspace) -> None:
    response = answer(stocked, canvas="home", member_id="42", rows=True, k=2)
    row = next(row for row in response.rows or () if row.row_id == "because:t0")
    assert {item.name for item in row.items} <= {"Clue", "Emma", "Gandhi"}
    assert row.reason.startswith("Alien is one of the titles the member watched and did not dislike")


def test_a_policys_ties_are_broken_by_the_members_own_scores(stocked: Workspace) -> None:
    recommender = world.make_recommender(stocked, world.serve_with(stocked, world.FakeScorer()))
    request = RecommendRequest(canvas="home", member_id="kid", k=10, rows=True)
    rows = {row.row_id: row.items for row in recommender.recommend(request).rows or ()}
    found = recommender.explain(request, "t6").places
    assert {place.name: place.ranked_by for place in found}["popular"] == "popular"
    assert rows
    served = world.serve_with(stocked, world.FakeScorer())
    alone = {"rows": {"popular": served.resolved.rows["popular"]}}
    only = world.make_recommender(stocked, replace(served, resolved=served.resolved.model_copy(update=alone)))
    (row,) = only.recommend(RecommendRequest(canvas="home", member_id="new", k=10, rows=True)).rows
    plays = {"Brazil": 2, "Dune": 2, "Alien": 1, "Fargo": 1}
    later_first = sorted(world.NAMES[:7], key=lambda name: (plays.get(name, 0), name), reverse=True)
    assert [item.name for item in row.items] == later_first, "the fake scorer likes later titles"


def test_rows_and_canvases_that_a_version_lacks_are_named_with_the_reason(stocked: Workspace) -> None:
    served = world.serve_with(stocked, world.FakeScorer())
    left_out = LeftOut(
        canvases={"coming_later": "it blends only 'remind_me'"},
        rows={"home": {"gems": "it is ranked above all by head 'gem', which is left out"}},
        blends={"home": ("gem", "like")},
    )
    resolved: ResolvedModel = served.resolved.model_copy(update={"left_out": left_out})
    recommender = world.make_recommender(stocked, replace(served, resolved=resolved))
    response = recommender.recommend(RecommendRequest(canvas="home", member_id="42", rows=True))
    assert response.absent["gems"] == "it is ranked above all by head 'gem', which is left out"
    assert [note for note in response.notes if note.startswith("ranked without")] == [
        "ranked without gem, like: the log had no examples for them"
    ]
    with pytest.raises(RequestError, match="'coming_later' is not served by this version of 'tiny': it blends"):
        recommender.recommend(RecommendRequest(canvas="coming_later"))


def test_someone_without_a_country_sees_the_titles_of_the_country_most_members_are_in(own: Workspace) -> None:
    from playbill.tables import Tables

    tables = Tables(own)
    with tables.replace() as writer:
        for table in ("titles", "members", "interactions"):
            writer.write(table, getattr(Tables(own), table)())
        rows = tables.availability()
        everywhere = rows.filter(pl.col("country") == "*").with_columns(country=pl.lit("DE"))
        writer.write("availability", pl.concat([rows.filter(pl.col("country") != "*"), everywhere]))
    recommender = world.make_recommender(own, world.serve_with(own, world.FakeScorer()))
    response = recommender.recommend(RecommendRequest(canvas="home"))
    assert response.items
    assert any("these are the titles of DE, where most members are" in note for note in response.notes)
    french = recommender.recommend(RecommendRequest(canvas="home", country="FR"))
    assert [item.title_id for item in french.items] == ["t7"]


def test_why_says_which_heads_move_a_title_up_and_down(stocked: Workspace) -> None:
    recommender = world.make_recommender(stocked, world.serve_with(stocked, world.FakeScorer()))
    request = RecommendRequest(canvas="home", member_id="42", k=3)
    answered = recommender.recommend(request)
    for item in answered.items:
        home = recommender.explain(request, item.title_id).places[0]
        assert home.ranked_by == "blend"
        assert {part.name: part.weight for part in home.parts} == {"play": 1.0, "like": 0.1}
        assert sum(part.score for part in home.parts) == pytest.approx(item.score)
    first, last = (
        recommender.explain(request, item.title_id).places[0] for item in (answered.items[0], answered.items[-1])
    )
    assert first.influence.startswith("up: play +")
    assert last.influence.startswith("down: play -")
    moved = [recommender.explain(request, item.title_id).places[0].parts[0].against_shown for item in answered.items]
    assert np.mean(moved) == pytest.approx(0.0, abs=1e-9)
    excluded = recommender.explain(request, "t8").places[0]
    assert excluded.parts == ()
    popular = {place.name: place for place in recommender.explain(request, "t5").places}["popular"]
    assert popular.influence == "policy popular"


def test_why_says_what_terms_of_the_history_add(stocked: Workspace) -> None:
    scorer = world.FakeScorer()
    scorer.terms = {"ease": (0.5, np.arange(len(scorer.title_ids), dtype=np.float32))}
    recommender = world.make_recommender(stocked, world.serve_with(stocked, scorer))
    request = RecommendRequest(canvas="home", member_id="42", k=3)
    item = recommender.recommend(request).items[0]
    parts = {part.name: part for part in recommender.explain(request, item.title_id).places[0].parts}
    assert set(parts) == {"play", "play.ease", "like"}
    assert parts["play.ease"].weight == 0.5
    assert parts["play.ease"].score == pytest.approx(0.5 * scorer.title_ids.index(item.title_id))
    assert sum(part.score for part in parts.values()) == pytest.approx(item.score)
