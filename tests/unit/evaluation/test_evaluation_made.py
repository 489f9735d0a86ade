"""Search and more-like-this, measured without logs of their own."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.datasets import Request, make_split
from playbill.errors import StateError
from playbill.evaluation import Judging, evaluate_more_like_this, evaluate_search
from playbill.evaluation.made import (
    CoPlay,
    more_like_this_baselines,
    more_like_this_case,
    search_baselines,
    search_case,
)

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
def data(world):
    frames = world.tables(world.random_rows(), titles=TITLES, names=NAMES)
    return frames, make_split("leave_one_out", frames.interactions), world.resolved(**CANVASES)


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


def test_queries_are_seeded(data):
    first, again = search_case(*data, "search"), search_case(*data, "search")
    other = search_case(*data, "search", seed=1)
    assert first.digest == again.digest
    assert first.digest != other.digest


def test_prefix_match_finds_words_in_any_order_and_breaks_ties_by_plays(data, world):
    case = search_case(*data, "search")
    model = search_baselines(case)["prefix_match"]
    scores = model.score(
        [
            Request("search", world.day(0), query="star w"),
            Request("search", world.day(0), query="trek st"),
            Request("search", world.day(0), query="AMÉL"),
            Request("search", world.day(0), query="(("),
        ]
    )
    assert [int(np.argmax(row)) for row in scores[:3]] == [0, 1, 2]
    assert (scores[0] >= 1).sum() == 1
    assert np.all(scores[3] >= 1)  # nothing readable was typed: everything matches, most played first


def test_search_is_reported_by_query_length(data, world):
    frames, split, resolved = data
    case = search_case(frames, split, resolved, "search")
    report = evaluate_search(world.Oracle(case), split, frames, resolved, "search", judging=QUICK)
    assert report.protocol == "made_queries"
    assert report.result.metrics["hr@10"].value == 1.0
    assert [row.name for row in report.rows] == ["tiny", "popular", "prefix_match"]
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


def test_co_play_is_the_cosine_of_two_titles_members(world):
    from playbill.evaluation.order import TitleOrder

    counts = np.array([[4, 2, 0], [2, 1, 0], [0, 0, 9]], dtype=np.float32)

    class Backoff:
        shares = np.array([0.5, 0.25, 0.0])

    model = CoPlay(TitleOrder(("a", "b", "c")), counts, Backoff())
    scores = model.score(
        [Request("m", world.day(0), source_title_id="a"), Request("m", world.day(0), source_title_id=None)]
    )
    np.testing.assert_allclose(scores[0], [1.0, 2 / np.sqrt(4 * 1), 0.0])
    np.testing.assert_allclose(scores[1], [0.5, 0.25, 0.0])


def test_more_like_this_is_reported_with_its_baselines(data, world):
    frames, split, resolved = data
    case = more_like_this_case(frames, split, resolved, "more_like_this")
    report = evaluate_more_like_this(world.Oracle(case), split, frames, resolved, "more_like_this", judging=QUICK)
    assert report.protocol == "co_play_pairs"
    assert [row.name for row in report.rows] == ["tiny", "popular", "co_play"]
    assert report.result.metrics["hr@10"].value == 1.0
    assert set(more_like_this_baselines(case)) == {"popular", "co_play"}


def test_a_play_without_one_before_it_is_no_pair(world):
    rows = [("u", "1", 0.0), ("u", "1", 1.0), ("u", "1", 2.0)]  # the same title again and again
    frames = world.tables(rows, titles=["1", "2"])
    split = make_split("leave_one_out", frames.interactions)
    resolved = world.resolved(more_like_this={"context": ["member", "source_title"], "candidates": {}})
    with pytest.raises(StateError, match="follows a play of another title"):
        more_like_this_case(frames, split, resolved, "more_like_this")
