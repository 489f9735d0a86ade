"""A canvas that the log has is asked at its own held-out events, with what their requests said; any other at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.datasets import make_split
from playbill.evaluation.canvases.model import evaluate_canvas
from playbill.evaluation.cases.build import build_case, has_log
from playbill.evaluation.evaluate import Judging, evaluate
from playbill.evaluation.report import EvaluationReport

SEARCH = {"context": ["member", "query"], "candidates": {"available": "now"}}
BESIDE = {"context": ["member", "source_title"], "candidates": {"available": "now"}}
TITLES = [str(number) for number in range(1, 13)]
QUICK = Judging(minimum_members=5, resamples=50)


def searched(tables):
    """The same log, where every second member's plays were searches: something is typed twice before each."""
    half = pl.col("member_id").str.slice(1).cast(pl.Int64) % 2 == 0
    plays = tables.interactions.with_columns(
        canvas=pl.when(half).then(pl.lit("search")).otherwise(pl.lit("home")),
        request_id=pl.format("r-{}", "event_id"),
        seq=10 * pl.col("seq"),
    )
    requested = plays.filter(pl.col("canvas") == "search")
    typed = [
        requested.with_columns(
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
def logged():
    return searched(world.tables_of(world.random_rows(), titles=TITLES))


def test_a_search_is_asked_with_what_was_typed_last_before_it(logged) -> None:
    split = make_split("leave_one_out", logged.interactions)
    resolved = world.resolved_of(search=SEARCH)
    case = build_case(logged, split, resolved, "search")
    assert case.logged
    assert set(case.frame["canvas"]) == {"search"}
    titles = [case.catalogue.title_ids[column] for column in case.columns]
    assert case.frame["query"].to_list() == [f"title {title}" for title in titles]
    requested = next(iter(case.chunks())).requests
    assert [request.query for request in requested] == case.frame["query"].to_list()
    assert 0 < len(case) < len(build_case(logged, split, resolved, "search", as_logged=False))


def test_a_canvas_without_a_log_is_asked_at_all_and_the_report_says_so(logged) -> None:
    split = make_split("leave_one_out", logged.interactions)
    resolved = world.resolved_of(billboard={"candidates": {"available": "now"}}, search=SEARCH)
    case = build_case(logged, split, resolved, "billboard")
    assert not case.logged
    assert set(case.frame["canvas"]) == {"home", "search"}
    assert case.frame["query"].null_count() == len(case)
    popular = world.ByTable(TITLES, [1.0 / (place + 1) for place in range(len(TITLES))])
    found = evaluate(popular, split, logged, resolved, "billboard", baselines=())
    assert any(
        "no held-out target on 'billboard' in the log; measured at the requests of home, search" in note
        for note in found.notes
    )
    own = evaluate(popular, split, logged, resolved, "home", baselines=())
    assert not any("no held-out target" in note for note in own.notes)
    assert own.n < found.n


def test_what_was_typed_is_part_of_a_case_and_its_digest(logged) -> None:
    split = make_split("leave_one_out", logged.interactions)
    resolved = world.resolved_of(search=SEARCH)
    first = build_case(logged, split, resolved, "search")
    other = replace(first, frame=first.frame.with_columns(row=pl.lit("top_picks")))
    assert first.digest != other.digest
    assert first.digest != replace(first, logged=False).digest


def test_a_logged_search_is_measured_under_its_own_protocol_and_no_log_under_made_queries(logged) -> None:
    resolved = world.resolved_of(search=SEARCH, more_like_this=BESIDE)
    split = make_split("leave_one_out", logged.interactions)
    popular = world.ByTable(TITLES, [1.0 / (place + 1) for place in range(len(TITLES))])

    def measured(canvas: str) -> EvaluationReport:
        return evaluate_canvas(popular, split, logged, resolved, canvas)

    assert has_log(logged, split, resolved, "search")
    assert not has_log(logged, split, resolved, "more_like_this")
    assert measured("search").protocol == "leave_one_out"
    assert measured("more_like_this").protocol == "co_play_pairs"


class OfTheRow:
    """Gives away the answer to whoever knows the row and place it was shown in."""

    title_ids = TITLES

    def score(self, requests):
        named = [0 if one.row is None else int(one.row.removeprefix("row_of_")) for one in requests]
        placed = [0 if one.row_position is None else one.row_position for one in requests]
        sourced = [0 if one.source_title_id is None else int(one.source_title_id) for one in requests]
        return np.array(
            [[float(int(title) in given) for title in TITLES] for given in zip(named, placed, sourced, strict=True)]
        )


def on_pages(tables, rows: pl.Expr, places: pl.Expr):
    """The same log, where every play is in a row of a page that the log names, beside a title that names the row."""
    plays = tables.interactions.with_columns(
        request_id=pl.format("r-{}", "event_id"),
        row_id=pl.format("row_of_{}", rows),
        source_title_id=rows.cast(pl.String),
        seq=10 * pl.col("seq"),
    )
    shown = plays.with_columns(
        event_id=pl.format("s-{}", "event_id"),
        action=pl.lit("impression"),
        canvas=pl.lit("row_ranking"),
        seq=pl.col("seq") - 1,
        position=places.cast(pl.Int32),
        progress=pl.lit(None, dtype=pl.Float32),
        title_id=pl.lit(None, dtype=pl.String),
    )
    whole = pl.concat([plays, shown.select(plays.columns)]).sort("member_id", "seq")
    return replace(tables, interactions=whole)


@pytest.mark.parametrize("protocol", ["leave_one_out", "global_time", "global_time_period", "replay"])
def test_figures_do_not_know_the_row_in_which_the_answer_was_shown(protocol) -> None:
    plain = world.tables_of(world.random_rows(), titles=TITLES)
    answer = pl.col("title_id").cast(pl.Int32)
    progress = on_pages(plain, answer, answer)
    shuffled = on_pages(plain, 1 + answer % 7, 13 - answer)
    carried = {"home": {"context": ["member", "row", "row_position"], "candidates": {"available": "now"}}}
    resolved = world.resolved_of(**carried)

    def measured(tables) -> EvaluationReport:
        split = make_split(protocol, tables.interactions)
        return evaluate(OfTheRow(), split, tables, resolved, "home", baselines=("popular", "ease"), judging=QUICK)

    first, other = measured(progress), measured(shuffled)
    assert first.result.metrics["ndcg@10"].value < 0.9
    for row, same in zip(first.rows, other.rows, strict=True):
        assert row.metrics == same.metrics, row.name


def test_a_source_title_is_the_requests_own_only_where_the_canvas_reads_one() -> None:
    tables = on_pages(world.tables_of(world.random_rows(), titles=TITLES), pl.lit(3), pl.lit(1))
    split = make_split("leave_one_out", tables.interactions)
    read = {"home": {"context": ["member", "source_title"], "candidates": {"available": "now"}}}
    assert build_case(tables, split, world.resolved_of(), "home").frame["source_title_id"].null_count() == 60
    assert build_case(tables, split, world.resolved_of(**read), "home").frame["source_title_id"].to_list() == ["3"] * 60


@pytest.mark.parametrize("protocol", ["global_time", "global_time_successive", "global_time_period"])
def test_a_request_is_asked_as_its_page_was_opened(protocol) -> None:
    plain = world.tables_of(world.random_rows(), titles=TITLES)
    plays = plain.interactions.with_columns(
        request_id=pl.format("r-{}", "event_id"), seq=10 * pl.col("seq"), device=pl.lit("mobile")
    )
    earlier = plays.with_columns(
        event_at=pl.col("event_at") - pl.duration(minutes=5),
        device=pl.lit("tv"),
        progress=pl.lit(None, dtype=pl.Float32),
    )
    shown = earlier.with_columns(
        event_id=pl.format("s-{}", "event_id"), action=pl.lit("impression"), seq=pl.col("seq") - 2
    )
    seen = earlier.with_columns(
        event_id=pl.format("d-{}", "event_id"), action=pl.lit("details_view"), seq=pl.col("seq") - 1
    )
    log = pl.concat([plays, shown, seen]).sort("member_id", "seq")
    tables = replace(plain, interactions=log)
    split = make_split(protocol, log)
    case = build_case(tables, split, world.resolved_of(), "home")
    whole = {row["event_id"]: row for row in log.iter_rows(named=True)}
    chunk = next(case.chunks())
    checked = 0
    for request, held in zip(chunk.requests, case.frame["event_id"].to_list(), strict=True):
        event = whole[held]
        opened = event["event_at"] - timedelta(minutes=5)
        if opened >= split.cutoff:  # else the fold begins in the middle of the request
            assert (request.at, request.device) == (opened, "tv")
            assert event["request_id"] not in set(request.history["request_id"])
            checked += 1
    assert checked >= 5
