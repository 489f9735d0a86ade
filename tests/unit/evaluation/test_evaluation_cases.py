"""Which requests a protocol asks, what they may know, and what may be listed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.datasets import make_split
from playbill.errors import DataError, StateError, UnknownNameError
from playbill.evaluation.cases import case as cases
from playbill.evaluation.cases.build import build_case

ROWS = [
    ("ann", "1", 0.0),
    ("ann", "2", 1.0),
    ("ann", "3", 2.0),
    ("ann", "4", 2.0),  # the same moment: seq decides
    ("bob", "2", 5.0),
    ("bob", "1", 6.0),
    ("bob", "10", 7.0),
    ("bob", "3", 8.0),
]
TITLES = ["1", "2", "3", "4", "10"]


def one_chunk(case):
    (chunk,) = list(case.chunks())
    return chunk


def candidate_ids(case, chunk):
    return [[case.catalogue.title_ids[i] for i in np.nonzero(row)[0]] for row in chunk.candidates]


@pytest.fixture
def small():
    tables = world.tables_of(ROWS, titles=TITLES, countries={"ann": "US-MN", "bob": "US-CA"})
    return tables, make_split("leave_one_out", tables.interactions)


def test_columns_are_in_numeric_id_order_so_that_ties_are(small):
    case = build_case(*small, world.resolved_of(), "home")
    assert case.catalogue.title_ids == ("1", "2", "3", "4", "10")


def test_test_requests_see_the_validation_event_and_nothing_later(small):
    case = build_case(*small, world.resolved_of(), "home")
    chunk = one_chunk(case)
    assert [request.member_id for request in chunk.requests] == ["ann", "bob"]
    assert [request.history["title_id"].to_list() for request in chunk.requests] == [
        ["1", "2", "3"],
        ["2", "1", "10"],
    ]
    assert [case.catalogue.title_ids[i] for i in chunk.columns] == ["4", "3"]
    assert [request.country for request in chunk.requests] == ["US-MN", "US-CA"]
    assert "fold" not in chunk.requests[0].history.columns


def test_validation_requests_do_not_see_the_test_event(small):
    chunk = one_chunk(build_case(*small, world.resolved_of(), "home", fold="validation"))
    assert [request.history["title_id"].to_list() for request in chunk.requests] == [["1", "2"], ["2", "1"]]


def test_watched_titles_are_no_candidates_where_the_canvas_says_so(small):
    resolved = world.resolved_of(any_time={"candidates": {"available": "now"}}, again={"candidates": {"watched": True}})
    home = build_case(*small, resolved, "home")
    assert candidate_ids(home, one_chunk(home)) == [["4", "10"], ["3", "4"]]
    every = build_case(*small, resolved, "any_time")
    assert candidate_ids(every, one_chunk(every)) == [TITLES, TITLES]
    with pytest.raises(StateError, match="none of 2 was a candidate when it was played"):
        build_case(*small, resolved, "again")


def test_availability_is_by_country_and_moment():
    launches = [
        ("1", "*", -10, None),
        ("2", "*", -10, None),
        ("3", "*", -10, None),
        ("4", "US-MN", 2.0, None),  # from exactly ann's moment on
        ("4", "US-CA", 100, None),
        ("10", "*", -10, 7.5),  # gone before bob's last event
        ("11", "US-CA", -10, 8.0),  # until is the first moment without it
        ("12", "US-CA", -10, 1.0),
        ("12", "US-CA", 7.9, 9.0),  # back again: several rows of one title
    ]
    tables = world.tables_of(
        ROWS,
        titles=[*TITLES, "11", "12", "13"],
        countries={"ann": "US-MN", "bob": "US-CA"},
        launches=launches,
    )
    split = make_split("leave_one_out", tables.interactions)
    resolved = world.resolved_of(open_catalogue={"candidates": {}}, soon={"candidates": {"available": "upcoming"}})
    case = build_case(tables, split, resolved, "open_catalogue")
    assert candidate_ids(case, one_chunk(case)) == [["1", "2", "3", "4", "10"], ["1", "2", "3", "12"]]
    with pytest.raises(StateError, match=r"'soon' has no held-out title among its candidates \(available: upcoming"):
        build_case(tables, split, resolved, "soon")


def test_kids_and_recent_launch_limit_candidates():
    launches = [(title, "*", -1000.0 if title in "12" else -1.0, None) for title in TITLES]
    tables = world.tables_of(ROWS, titles=TITLES, kids=("3", "4"), launches=launches)
    split = make_split("leave_one_out", tables.interactions)
    resolved = world.resolved_of(
        kids={"candidates": {"kids": True}}, recent={"candidates": {"launched_within": "30d", "watched": False}}
    )
    kids = build_case(tables, split, resolved, "kids")
    assert candidate_ids(kids, one_chunk(kids)) == [["3", "4"], ["3", "4"]]
    recent = build_case(tables, split, resolved, "recent")
    assert candidate_ids(recent, one_chunk(recent)) == [["4", "10"], ["3", "4"]]


def test_a_kids_profile_sees_only_titles_for_kids():
    tables = world.tables_of(ROWS, titles=TITLES, kids=("3", "4"), kids_profiles=("bob",))
    case = build_case(tables, make_split("leave_one_out", tables.interactions), world.resolved_of(), "home")
    assert candidate_ids(case, one_chunk(case)) == [["4", "10"], ["3", "4"]]
    assert case.rule.profiles.kids(case.frame).tolist() == [False, True]


def test_popularity_rules_count_plays_the_protocol_allows_before_the_moment():
    tables = world.tables_of(ROWS, titles=TITLES)
    split = make_split("leave_one_out", tables.interactions)
    resolved = world.resolved_of(gems={"candidates": {"popularity_percentile": {"below": 60}}})
    case = build_case(tables, split, resolved, "gems")
    # Train plays before day 2: 1 and 2 by ann. Before day 8 also 2 and 1 by bob. 3, 4 and 10 have none.
    assert candidate_ids(case, one_chunk(case)) == [["3", "4", "10"], ["3", "4", "10"]]


def test_targets_a_canvas_could_not_show_are_left_out_and_counted():
    rows = [*ROWS[:3], ("ann", "2", 3.0), *ROWS[4:]]  # ann's last event is a second play of title 2
    tables = world.tables_of(rows, titles=TITLES)
    case = build_case(tables, make_split("leave_one_out", tables.interactions), world.resolved_of(), "home")
    assert case.frame["member_id"].to_list() == ["bob"]
    assert case.left_out == 1
    assert case.rows.tolist() == [0]


def test_a_protocol_says_which_held_out_plays_are_asked_about():
    rows = [("ann", str(i), float(i)) for i in range(1, 21)] + [("bob", str(i), 40.0 + i) for i in range(1, 4)]
    tables = world.tables_of(rows, titles=[str(i) for i in range(1, 21)])
    split = make_split("global_time", tables.interactions)
    resolved = world.resolved_of()
    last = build_case(tables, split, resolved, "home")
    each = build_case(tables, split.under("global_time_successive"), resolved, "home")
    whole = build_case(tables, split.under("global_time_period"), resolved, "home")
    assert (len(last), len(each), len(whole)) == (1, 3, 1)
    assert whole.target_counts.tolist() == [3]
    assert one_chunk(whole).requests[0].history.height == 0
    assert [request.history.height for request in one_chunk(each).requests] == [0, 1, 2]
    assert last.digest != each.digest
    with pytest.raises(UnknownNameError, match="Did you mean 'replay'"):
        split.under("replays")
    with pytest.raises(DataError, match="holds out other rows than 'global_time'"):
        split.under("leave_one_out")


def test_chunks_together_are_the_whole(monkeypatch):
    tables = world.tables_of(world.random_rows(), titles=[str(i) for i in range(1, 13)])
    case = build_case(tables, make_split("leave_one_out", tables.interactions), world.resolved_of(), "home")
    whole = one_chunk(case)
    monkeypatch.setattr(cases, "CELLS_AT_ONCE", 12 * 7)
    pieces = list(case.chunks())
    assert len(pieces) == -(-len(case) // 7)
    np.testing.assert_array_equal(np.concatenate([piece.candidates for piece in pieces]), whole.candidates)
    np.testing.assert_array_equal(np.concatenate([piece.rows + piece.start for piece in pieces]), whole.rows)
    assert [r.member_id for piece in pieces for r in piece.requests] == [r.member_id for r in whole.requests]


def test_requests_know_tenure_and_title_age_for_slices(small):
    case = build_case(*small, world.resolved_of(), "home")
    assert case.frame["tenure"].to_list() == ["1-7d", "1-7d"]
    assert case.frame["title_age"].to_list() == ["1-5y", "1-5y"]


def test_nothing_held_out_names_the_label(small):
    tables, split = small
    quiet = world.resolved_of()
    never = quiet.labels["discovery_play"].model_validate(
        {"name": "discovery_play", "version": 1, "from": {"action": "trailer_view"}}
    )
    with pytest.raises(StateError, match="no positive event of its label 'discovery_play' in the test fold"):
        build_case(tables, split, quiet.model_copy(update={"labels": {"discovery_play": never}}), "home")


def test_an_unknown_canvas_suggests_the_near_one(small):
    with pytest.raises(UnknownNameError, match="Did you mean 'home'"):
        build_case(*small, world.resolved_of(), "hom")


def test_a_case_does_not_depend_on_the_order_of_rows(small):
    tables, split = small
    from dataclasses import replace

    mixed = replace(tables, interactions=tables.interactions.sample(fraction=1.0, shuffle=True, seed=3))
    assert (
        build_case(mixed, split, world.resolved_of(), "home").digest
        == build_case(*small, world.resolved_of(), "home").digest
    )
    assert isinstance(mixed.interactions, pl.DataFrame)
