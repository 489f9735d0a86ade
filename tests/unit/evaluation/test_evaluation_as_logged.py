"""A canvas that the log has is asked at its own held-out events, with what their requests said; any other at all."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from playbill.datasets import make_split
from playbill.evaluation.build import build_case, has_log
from playbill.evaluation.evaluate import evaluate
from playbill.evaluation.model import evaluate_canvas
from playbill.evaluation.report import EvaluationReport

SEARCH = {"context": ["member", "query"], "candidates": {"available": "now"}}
BESIDE = {"context": ["member", "source_title"], "candidates": {"available": "now"}}
TITLES = [str(number) for number in range(1, 13)]


def searched(tables):
    """The same log, where every second member's plays were searches: something is typed twice before each."""
    half = pl.col("member_id").str.slice(1).cast(pl.Int64) % 2 == 0
    plays = tables.interactions.with_columns(
        canvas=pl.when(half).then(pl.lit("search")).otherwise(pl.lit("home")),
        request_id=pl.format("r-{}", "event_id"),
        seq=10 * pl.col("seq"),
    )
    asked = plays.filter(pl.col("canvas") == "search")
    typed = [
        asked.with_columns(
            event_id=pl.format("q{}-{}", pl.lit(number), "event_id"),
            action=pl.lit("search"),
            query=pl.format(text, "title_id"),
            title_id=pl.lit(None, dtype=pl.String),
            seq=pl.col("seq") + offset,
            progress=pl.lit(None, dtype=pl.Float32),
        )
        for number, (text, offset) in enumerate((("ti {}", -2), ("title {}", -1), ("later {}", 1)))
    ]
    whole = pl.concat([plays, *(frame.select(plays.columns) for frame in typed)]).sort("member_id", "seq")
    return replace(tables, interactions=whole)


@pytest.fixture
def logged(world):
    return searched(world.tables(world.random_rows(), titles=TITLES))


def test_a_search_is_asked_with_what_was_typed_last_before_it(logged, world) -> None:
    split = make_split("leave_one_out", logged.interactions)
    resolved = world.resolved(search=SEARCH)
    case = build_case(logged, split, resolved, "search")
    assert case.logged
    assert set(case.frame["canvas"]) == {"search"}
    titles = [case.catalogue.title_ids[column] for column in case.columns]
    assert case.frame["query"].to_list() == [f"title {title}" for title in titles]
    asked = next(iter(case.chunks())).requests
    assert [request.query for request in asked] == case.frame["query"].to_list()
    assert 0 < len(case) < len(build_case(logged, split, resolved, "search", as_logged=False))


def test_a_canvas_without_a_log_is_asked_at_all_and_the_report_says_so(logged, world) -> None:
    split = make_split("leave_one_out", logged.interactions)
    resolved = world.resolved(billboard={"candidates": {"available": "now"}}, search=SEARCH)
    case = build_case(logged, split, resolved, "billboard")
    assert not case.logged
    assert set(case.frame["canvas"]) == {"home", "search"}
    assert case.frame["query"].null_count() == len(case)
    popular = world.ByTable(TITLES, [1.0 / (place + 1) for place in range(len(TITLES))])
    found = evaluate(popular, split, logged, resolved, "billboard", baselines=())
    assert any("no held-out target on 'billboard'; asked at those on home, search" in note for note in found.notes)
    own = evaluate(popular, split, logged, resolved, "home", baselines=())
    assert not any("no held-out target" in note for note in own.notes)
    assert own.n < found.n


def test_what_was_typed_is_part_of_a_case_and_its_digest(logged, world) -> None:
    split = make_split("leave_one_out", logged.interactions)
    resolved = world.resolved(search=SEARCH)
    first = build_case(logged, split, resolved, "search")
    other = replace(first, frame=first.frame.with_columns(row=pl.lit("top_picks")))
    assert first.digest != other.digest
    assert first.digest != replace(first, logged=False).digest


def test_a_logged_search_is_measured_under_its_own_protocol_and_no_log_under_made_queries(logged, world) -> None:
    resolved = world.resolved(search=SEARCH, more_like_this=BESIDE)
    split = make_split("leave_one_out", logged.interactions)
    popular = world.ByTable(TITLES, [1.0 / (place + 1) for place in range(len(TITLES))])

    def measured(canvas: str) -> EvaluationReport:
        return evaluate_canvas(popular, split, logged, resolved, canvas)

    assert has_log(logged, split, resolved, "search")
    assert not has_log(logged, split, resolved, "more_like_this")
    assert measured("search").protocol == "leave_one_out"
    assert measured("more_like_this").protocol == "co_play_pairs"
