"""Searches as logged, and lists judged by how near they come to what cannot be shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from benchmarks.search_measures import (
    Searches,
    accuracy,
    first_titles,
    listed,
    mean_likeness,
    nearness,
    query_lengths,
    shared_metadata,
    target_ranks,
)
from playbill.evaluation.cases.event_log import TitleOrder

START = datetime(2025, 1, 1, tzinfo=UTC)
CATALOGUE = TitleOrder.of(["a", "b", "c"])


def events() -> pl.DataFrame:
    rows = [
        ("m1", 0, "play", "c", "r0", None),
        ("m1", 1, "search", None, "r1", "st"),
        ("m1", 2, "play", "a", "r1", None),
        ("m2", 0, "search", None, "r2", "nothing there"),
        ("m1", 3, "search", None, "r3", ""),
    ]
    columns = ("member_id", "seq", "action", "title_id", "request_id", "query")
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String) | {"seq": pl.Int64}, orient="row")
    at = [START + timedelta(hours=int(seq)) for seq in frame["seq"]]
    fields = {name: pl.lit("x") for name in ("country", "device", "language")}
    return frame.with_columns(event_at=pl.Series(at, dtype=pl.Datetime("us", "UTC")), **fields)


def test_a_search_wants_what_was_played_in_its_request_and_sees_only_what_came_before():
    found = Searches.logged(events(), START)
    assert found.frame.select("query", "wanted").rows() == [("st", "a"), ("nothing there", None)]
    requests = found.requests()
    assert requests[0].history["title_id"].to_list() == ["c"]
    assert requests[1].history.is_empty()
    assert len(Searches.logged(events(), START + timedelta(minutes=30))) == 1


def test_candidates_are_what_can_be_watched_there_and_then():
    spans = pl.DataFrame(
        {
            "title_id": ["a", "b", "c", "c"],
            "country": ["x", "x", "y", "x"],
            "available_from": [START, START + timedelta(days=1), START, START],
            "available_until": [None, None, None, START + timedelta(minutes=10)],
        },
        schema_overrides={"available_until": pl.Datetime("us", "UTC"), "available_from": pl.Datetime("us", "UTC")},
    )
    found = Searches.logged(events(), START).candidates(spans, CATALOGUE)
    assert found.tolist() == [[True, False, False], [True, False, True]]


def test_lengths_count_letters_as_they_are_typed():
    assert query_lengths(pl.Series(["s", "st", "sta", "star", "star wars "])).to_list() == ["1", "2", "3", "4+", "4+"]


def test_ranks_are_over_candidates_and_ties_share_a_place():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
    candidates = np.array([[False, True, True], [True, True, True], [True, True, False]])
    found = target_ranks(scores, candidates, np.array([2, 0, 2]))
    assert found[:2].tolist() == [1.0, 1.0]
    assert np.isnan(found[2])
    assert accuracy(np.array([0.0, 10.0]))["hr@10"].tolist() == [1.0, 0.0]


def test_nearness_is_a_share_of_the_nearest_list():
    like = np.array([[1.0, 0.5, 0.0]])
    everything = np.ones((1, 3), np.bool_)
    best, worst = (nearness(first_titles(s, everything, 1), like, everything)[0] for s in (like, -like))
    assert (best, worst) == (1.0, 0.0)
    without = np.array([[False, True, True]])
    assert nearness(first_titles(like, without, 1), like, without)[0] == 1.0


def test_lists_beside_a_title_leave_it_out_and_are_judged_against_the_best_there_could_be():
    titles = pl.DataFrame(
        {
            "genres": [["crime", "drama"], ["crime"], ["comedy"], None],
            "original_language": ["en", "en", "fr", None],
            "kind": ["film", "film", "film", "game"],
        }
    )
    shared = shared_metadata(titles)
    assert shared[0, 1] == pytest.approx(0.6 * 0.5 + 0.4)
    assert shared[0, 3] == 0.0
    known, sources = np.ones(4, np.bool_), np.array([0])
    lists = listed(shared[:1], known, sources, 2)
    assert lists.tolist() == [[1, 2]]
    assert mean_likeness(lists, shared[:1], known, sources)[0] == 1.0
    assert mean_likeness(np.array([[2, 3]]), shared[:1], known, sources)[0] < 0.5
