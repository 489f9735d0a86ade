"""Search and more-like-this, measured without logs of their own."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.datasets import Request, make_split
from playbill.definitions.specs.measures import BESIDE
from playbill.errors import StateError
from playbill.evaluation import Judging, evaluate_more_like_this, evaluate_search
from playbill.evaluation.baselines.popularity import build_baseline
from playbill.evaluation.beside import Beside, NameMatch
from playbill.evaluation.canvases.synthetic_queries import more_like_this_case, search_case

TITLES = [str(i) for i in range(1, 13)]
NAMES = {"1": "Star Wars (1977)", "2": "Star Trek: The Motion Picture (1979)", "3": "Amélie (2001)", "4": "It"}
CANVASES = {
    "search": {"context": ["member", "query", "country"], "candidates": {"available": "now"}},
    "more_like_this": {
        "context": ["member", "source_title", "country"],
        "candidates": {"available": "now", "exclude_source": True},
    },
}
QUICK = Judging(slices=("query_length",), minimum_members=5, resamples=100)


@pytest.fixture
def data():
    frames = world.tables_of(world.random_rows(), titles=TITLES, names=NAMES)
    return frames, make_split("leave_one_out", frames.interactions), world.resolved_of(**CANVASES)


def test_queries_of_each_length_lead_to_the_held_out_title(data):
    case = search_case(*data, "search")
    for row, column in zip(case.frame.iter_rows(named=True), case.columns, strict=True):
        name = NAMES.get(case.catalogue.title_ids[column], "Title x").casefold().replace("é", "e")
        query, length = row["query"], row["query_length"]
        if length != "4+":
            assert len(query) == int(length)
            assert name.startswith(query)
        else:
            assert len(query) >= 4
    assert set(case.frame["query_length"]) == {"1", "2", "3", "4+"}
    assert case.protocol == "made_queries"


def test_a_name_too_short_for_a_length_is_not_asked(data):
    case = search_case(*data, "search")
    lengths = {
        row["query_length"]
        for row, column in zip(case.frame.iter_rows(named=True), case.columns, strict=True)
        if case.catalogue.title_ids[column] == "4"
    }
    assert lengths <= {"1", "2"}


def test_queries_for_many_titles_are_drawn_and_the_report_says_of_how_many(data, monkeypatch):
    whole = search_case(*data, "search")
    monkeypatch.setattr("playbill.evaluation.canvases.synthetic_queries.MOST_SEARCHED", 5)
    drawn, again = search_case(*data, "search"), search_case(*data, "search")
    assert drawn.frame.equals(again.frame)
    assert drawn.frame["event_id"].n_unique() == 5
    assert set(drawn.frame["request_id"]) < set(whole.frame["request_id"])
    assert drawn.left_out == whole.left_out
    frames, split, resolved = data
    report = evaluate_search(world.Oracle(drawn), split, frames, resolved, "search", judging=QUICK)
    assert f"queries were made for 5 of {drawn.drawn_from} held-out titles, drawn at random" in report.notes


def test_in_a_large_catalogue_fewer_titles_are_searched(data, monkeypatch):
    monkeypatch.setattr("playbill.evaluation.canvases.synthetic_queries.FEWEST_SEARCHED", 3)
    monkeypatch.setattr("playbill.evaluation.canvases.synthetic_queries.SEARCHED_CELLS", 4 * 12)
    assert search_case(*data, "search").frame["event_id"].n_unique() == 4
    monkeypatch.setattr("playbill.evaluation.canvases.synthetic_queries.SEARCHED_CELLS", 1)
    assert search_case(*data, "search").frame["event_id"].n_unique() == 3


def test_synthetic_queries_repeat_with_their_seed(data):
    first, again = search_case(*data, "search"), search_case(*data, "search")
    other = search_case(*data, "search", seed=1)
    assert first.digest == again.digest
    assert first.digest != other.digest


def test_a_search_lists_matching_titles_first_in_each_baselines_own_order(data):
    case = search_case(*data, "search")
    for name, model in Beside().of(BESIDE, case, data[2]).items():
        scores = model.score(
            [
                Request("search", world.day(0), query="star w"),
                Request("search", world.day(0), query="trek st"),
                Request("search", world.day(0), query="AMÉL"),
                Request("search", world.day(0), query="(("),
            ]
        )
        assert [int(np.argmax(row)) for row in scores[:3]] == [0, 1, 2], name
        assert (scores[0] >= 2).sum() == 1
        assert np.all(scores[3] >= 2)  # nothing readable was typed: everything matches, in the baseline's order


def test_search_is_reported_by_query_length(data):
    frames, split, resolved = data
    case = search_case(frames, split, resolved, "search")
    report = evaluate_search(world.Oracle(case), split, frames, resolved, "search", judging=QUICK)
    assert report.protocol == "made_queries"
    assert report.result.metrics["hr@10"].value == 1.0
    assert [row.name for row in report.rows] == ["tiny", *BESIDE]
    assert {row.group for row in report.slices} == {"1", "2", "3", "4+"}
    assert report.members == 60


def test_sources_are_the_plays_before_the_held_out_ones(data):
    frames, split, resolved = data
    case = more_like_this_case(frames, split, resolved, "more_like_this")
    chunk = next(case.chunks())
    for request, row, column in zip(chunk.requests, chunk.rows, chunk.columns, strict=True):
        assert request.source_title_id == request.history["title_id"][-1]
        source = case.catalogue.title_ids.index(request.source_title_id)
        assert not chunk.candidates[row, source]
        assert chunk.candidates[row, column]


def test_neighbours_of_the_source_title_stand_beside_more_like_this(data):
    frames, split, resolved = data
    case = more_like_this_case(frames, split, resolved, "more_like_this")
    plain = build_baseline("item_knn", case)
    fitted = Beside().of(("item_knn", "ease"), case, resolved)
    source = frames.interactions.filter(pl.col("member_id") == "m1")[:1]
    requested = Request("m", world.day(50), source_title_id=source["title_id"][0], history=frames.interactions[:5])
    about = Request("m", world.day(50), history=source)
    np.testing.assert_array_equal(fitted["item_knn"].score([requested]), plain.score([about]))
    # EASE reads what the member played as well.
    assert not np.array_equal(fitted["ease"].score([requested]), build_baseline("ease", case).score([about]))


def test_more_like_this_is_reported_with_its_baselines(data):
    frames, split, resolved = data
    case = more_like_this_case(frames, split, resolved, "more_like_this")
    report = evaluate_more_like_this(world.Oracle(case), split, frames, resolved, "more_like_this", judging=QUICK)
    assert report.protocol == "co_play_pairs"
    assert [row.name for row in report.rows] == ["tiny", *BESIDE]
    assert report.result.metrics["hr@10"].value == 1.0


def test_a_play_without_one_before_it_is_no_pair():
    rows = [("u", "1", 0.0), ("u", "1", 1.0), ("u", "1", 2.0)]  # the same title again and again
    frames = world.tables_of(rows, titles=["1", "2"])
    split = make_split("leave_one_out", frames.interactions)
    resolved = world.resolved_of(more_like_this={"context": ["member", "source_title"], "candidates": {}})
    with pytest.raises(StateError, match="follows a play of another title"):
        more_like_this_case(frames, split, resolved, "more_like_this")


def test_a_name_matches_where_words_begin_like_those_typed():
    match = NameMatch(["the god father", "god told me to", "dear god", "", "été à paris"])
    assert match.matches("god").tolist() == [True, True, True, False, False]
    assert match.matches("god to").tolist() == [False, True, False, False, False]
    assert match.matches("ather").tolist() == [False] * 5
    assert match.matches("ét").tolist() == [False] * 4 + [True]
    assert match.matches("").all()
