"""Evaluations end to end on a small world: numbers by hand, intervals, slices, JSON, comparison, refusal."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from fixtures import evaluation_service as world
from playbill.datasets import make_split
from playbill.definitions.specs.measures import BESIDE
from playbill.errors import ComparisonError, ConfigError, IntegrityError, UnknownNameError
from playbill.evaluation import (
    EvaluationReport,
    Judging,
    assert_not_trained_on,
    assert_one_split,
    compare,
    evaluate,
    html_report,
    ladder,
    plots,
    tables,
)
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.rendering.grids import grids, summary_grid
from playbill.metrics import Interval

TITLES = [str(i) for i in range(1, 13)]
QUICK = Judging(minimum_members=5, resamples=200)


@pytest.fixture
def data():
    countries = {f"m{i}": "US-MN" if i < 40 else ("US-CA" if i < 58 else "US-VT") for i in range(60)}
    found = world.tables_of(world.random_rows(), titles=TITLES, countries=countries)
    return found, make_split("leave_one_out", found.interactions)


@pytest.fixture
def report(data):
    frames, split = data
    case = build_case(frames, split, world.resolved_of(), "home")
    return evaluate(world.Oracle(case), split, frames, world.resolved_of(), "home", k=(3, 10), judging=QUICK)


@pytest.mark.parametrize("protocol", ["leave_one_out", "global_time", "global_time_period"])
def test_held_out_plays_in_a_tie_are_warned_of(data, protocol):
    frames, _ = data
    whole_days = frames.interactions.with_columns(pl.col("event_at").dt.truncate("30d"))
    coarse = replace(frames, interactions=whole_days)
    for data_set, tied in ((frames, False), (coarse, True)):
        split = make_split(protocol, data_set.interactions)
        same = world.ByTable(TITLES, [1.0] * len(TITLES))
        report = evaluate(same, split, data_set, world.resolved_of(), "home", judging=QUICK)
        warned = [note for note in report.notes if "share their moment with another play" in note]
        assert bool(warned) == (tied and protocol != "global_time_period"), report.notes
        assert all("the protocol global_time_period does not depend on it" in note for note in warned)


def test_no_share_of_a_baseline_that_may_be_chance(report):
    chance = sum(1 / math.log2(1 + place) for place in (1, 2, 3)) / len(TITLES)
    means = {"popular": Interval(0.3, 1.01 * chance, 0.5), "popular_7d": Interval(0.2, 0.1, 0.3)}
    better = {"ease": Interval(0.3, 1.01 * chance, 0.5)}

    def with_means(found):
        rows = [
            replace(row, metrics=row.metrics | {"ndcg@3": found[row.name]}) if row.name in found else row
            for row in report.rows
        ]
        return replace(report, rows=tuple(rows))

    shown = with_means(means | better)
    assert set(ladder(shown)) == {"popular", "ease"}
    low = with_means(means | better | {"popular": Interval(0.3, 0.99 * chance, 0.5)})
    assert set(ladder(low)) == {"ease"}
    text = html_report("one", [low])
    assert "% to popular (popularity)" not in text
    assert f"no gap to popular (popularity), which may be no better than chance (ndcg@3 {chance:.4f})" in text


def test_a_perfect_model_scores_one_and_beats_every_baseline(report):
    assert report.n == report.members == 60
    accuracy = {name: found for name, found in report.result.metrics.items() if not name.startswith("novelty")}
    assert {"hr@3", "ndcg@10", "mrr@3", "map@10", "debiased_ndcg@3"} <= set(accuracy)
    assert all(interval == (1.0, 1.0, 1.0) for interval in accuracy.values())
    assert [row.name for row in report.rows] == ["tiny", "popular", "popular_7d", "item_knn", "ease"]
    assert report.main_metric == "ndcg@3"
    for difference in report.differences:
        assert difference.metrics["ndcg@3"].low > 0
        baseline = next(row for row in report.baselines if row.name == difference.baseline)
        assert difference.metrics["ndcg@3"].value == pytest.approx(1 - baseline.metrics["ndcg@3"].value)


def test_metrics_are_those_worked_out_by_hand():
    rows = [("u", "1", 0.0), ("u", "2", 1.0), ("u", "3", 2.0), ("v", "4", 0.0), ("v", "2", 1.0), ("v", "5", 2.0)]
    frames = world.tables_of(rows, titles=["1", "2", "3", "4", "5"])
    split = make_split("leave_one_out", frames.interactions)
    model = world.ByTable(["5", "4", "3", "2", "1"], [0.9, 0.8, 0.8, 0.7, 0.6])
    found = evaluate(model, split, frames, world.resolved_of(), "home", baselines=(), k=(1, 2), judging=QUICK)
    # u may see 3, 4, 5: order 5, 3, 4 (3 and 4 tie, 3 is first), target 3 at rank 2.
    # v may see 1, 3, 5: target 5 first.
    metrics = {name: interval.value for name, interval in found.result.metrics.items()}
    assert metrics["hr@1"] == 0.5
    assert metrics["hr@2"] == 1.0
    assert metrics["mrr@2"] == pytest.approx((1 / 2 + 1) / 2)
    assert metrics["ndcg@2"] == pytest.approx((1 / math.log2(3) + 1) / 2)
    assert found.result.coverage == {"coverage@1": pytest.approx(1 / 5), "coverage@2": pytest.approx(2 / 5)}


def test_titles_a_model_does_not_know_are_misses_not_errors():
    rows = [("u", "1", 0.0), ("u", "2", 1.0), ("u", "3", 2.0)]
    frames = world.tables_of(rows, titles=["1", "2", "3", "4"])
    split = make_split("leave_one_out", frames.interactions)
    model = world.ByTable(["4", "1", "gone"], [0.1, 0.2, 5.0])
    found = evaluate(model, split, frames, world.resolved_of(), "home", baselines=(), judging=QUICK)
    assert found.result.metrics["hr@10"].value == 0.0
    assert found.result.coverage["coverage@10"] == pytest.approx(1 / 4)


def test_the_worst_large_slice_comes_first_and_small_ones_last(report):
    sizes = {(row.slice, row.group): (row.members, row.small) for row in report.slices}
    assert sizes["country", "US-MN"] == (40, False)
    assert sizes["country", "US-VT"] == (2, True)
    assert [row.small for row in report.slices] == sorted(row.small for row in report.slices)
    large = [row.metrics["ndcg@3"].value for row in report.slices if not row.small]
    assert large == sorted(large)
    assert report.worst_slice is report.slices[0]
    assert set(report.slices[0].differences) == {"popular", "popular_7d", "item_knn", "ease"}
    small = [row for row in report.slices if row.small]
    assert [row.members for row in small] == sorted((row.members for row in small), reverse=True)
    assert all(not row.metrics and not row.differences for row in small), "too few is no number"


def test_slices_add_up_to_the_whole(data):
    frames, split = data
    model = world.ByTable(TITLES, list(np.linspace(1, 0, 12)))
    judging = QUICK._replace(minimum_members=1)
    found = evaluate(model, split, frames, world.resolved_of(), "home", baselines=("popular",), judging=judging)
    rows = [row for row in found.slices if row.slice == "country"]
    total = sum(row.metrics["hr@10"].value * row.requests for row in rows) / found.n
    assert total == pytest.approx(found.result.metrics["hr@10"].value)


def test_json_comes_back_whole(report):
    again = EvaluationReport.from_json(report.to_json())
    assert again == report
    assert again.requests.equals(report.requests)
    assert compare(again, report).differences["ndcg@10"] == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', '{"format": 99}'])
def test_a_file_that_is_no_report_is_refused(text):
    with pytest.raises(IntegrityError, match="report"):
        EvaluationReport.from_json(text)


def test_the_frame_by_member_has_a_row_for_each_request(report):
    frame = report.per_member
    assert frame.height == 60
    assert frame["tiny/ndcg@10"].to_list() == [1.0] * 60
    assert frame["popular/hr@3"].mean() == pytest.approx(report.baselines[0].metrics["hr@3"].value)


def test_gate_metrics_are_flat_and_leave_small_slices_out(report):
    found = report.gate_metrics()
    assert found["home/ndcg@10"] == 1.0
    assert found["home/ndcg@10/country=US-MN"] == 1.0
    assert "home/ndcg@10/country=US-VT" not in found
    assert found["home/ndcg@10/minus=popular/low"] > 0
    assert 0 < found["home/coverage@10"] <= 1
    assert all(isinstance(value, float) and not math.isnan(value) for value in found.values())


def test_comparison_pairs_by_request(data, report):
    frames, split = data
    weaker = evaluate(
        world.ByTable(TITLES, list(np.linspace(1, 0, 12))),
        split,
        frames,
        world.resolved_of(),
        "home",
        baselines=(),
        k=(3, 10),
        judging=QUICK,
        name="weaker",
    )
    found = compare(report, weaker)
    assert found.differences["ndcg@3"].high < 0
    assert found.relative["ndcg@3"] == pytest.approx(weaker.result.metrics["ndcg@3"].value - 1)


def test_two_reports_of_one_name_can_be_compared(report):
    assert report.model == "tiny"
    assert compare(report, report).differences["hr@3"].includes_zero


def test_reports_of_different_protocols_are_not_compared(data, report):
    frames, _ = data
    by_time = make_split("global_time", frames.interactions)
    other = evaluate(
        world.ByTable(TITLES, [0.0] * 12), by_time, frames, world.resolved_of(), "home", baselines=(), judging=QUICK
    )
    with pytest.raises(ComparisonError, match=r"protocols differ \(leave_one_out and global_time\)"):
        compare(report, other)


def test_reports_of_different_splits_canvases_or_folds_are_not_compared(data, report):
    frames, split = data
    resolved = world.resolved_of(billboard={})
    model = world.ByTable(TITLES, [0.0] * 12)
    quick = {"baselines": (), "judging": QUICK}
    with pytest.raises(ComparisonError, match="canvases differ"):
        compare(report, evaluate(model, split, frames, resolved, "billboard", **quick))
    with pytest.raises(ComparisonError, match="folds differ"):
        compare(report, evaluate(model, split, frames, resolved, "home", fold="validation", **quick))
    fewer = frames.interactions.filter(frames.interactions["member_id"] != "m0")
    smaller = make_split("leave_one_out", fewer)
    with pytest.raises(ComparisonError, match=r"splits differ.*requests, titles or candidate rules differ"):
        compare(report, evaluate(model, smaller, frames, resolved, "home", **quick))


def test_models_that_would_not_be_asked_the_same_are_refused_before_any_is_measured(data):
    frames, split = data
    assert_one_split({"a:1": split, "a:2": split})
    other = make_split("global_time", frames.interactions)
    with pytest.raises(ComparisonError, match=r"'a:1' under leave_one_out on split \w+, 'a:2' under global_time"):
        assert_one_split({"a:1": split, "a:2": other})
    fewer = make_split("leave_one_out", frames.interactions.filter(pl.col("member_id") != "m0"))
    with pytest.raises(ComparisonError, match="would not be asked the same"):
        assert_one_split({"a:1": split, "a:2": fewer})


def test_a_model_is_not_measured_on_what_it_was_trained_on(data):
    frames, split = data
    by_time = make_split("global_time", frames.interactions)
    with pytest.raises(ComparisonError, match=r"playbill train everycanvas --protocol global_time"):
        assert_not_trained_on(by_time, split, model="everycanvas")
    assert_not_trained_on(split, split)


def test_another_split_is_fine_when_its_test_rows_were_not_trained_on(data):
    _, split = data
    held = split.frame.with_columns(
        fold=pl.when(pl.col("fold").cast(pl.String) == "validation").then(pl.lit("test")).otherwise(pl.lit("train"))
    )
    assert_not_trained_on(replace(split, frame=held), split)


def test_scores_that_are_no_numbers_are_refused(data):
    frames, split = data
    broken = world.ByTable(TITLES, [float("nan")] * 12)
    with pytest.raises(IntegrityError, match="'tiny' gave 420 scores that are no number, the first to member m30"):
        evaluate(broken, split, frames, world.resolved_of(), "home", baselines=(), judging=QUICK)
    short = world.ByTable(TITLES[:5], [0.0] * 4)
    with pytest.raises(IntegrityError, match=r"shape \(60, 4\), expected \(60, 5\)"):
        evaluate(short, split, frames, world.resolved_of(), "home", baselines=(), judging=QUICK)


def test_wrong_options_are_refused(data):
    frames, split = data
    model = world.ByTable(TITLES, [0.0] * 12)
    with pytest.raises(ConfigError, match="cut-offs of at least 1"):
        evaluate(model, split, frames, world.resolved_of(), "home", k=(0,), baselines=())
    with pytest.raises(UnknownNameError, match="Did you mean 'country'"):
        evaluate(model, split, frames, world.resolved_of(), "home", baselines=(), judging=Judging(slices=("contry",)))


def test_progress_reaches_the_end(data):
    frames, split = data
    seen = []
    evaluate(
        world.ByTable(TITLES, [0.0] * 12),
        split,
        frames,
        world.resolved_of(),
        "home",
        baselines=(),
        judging=QUICK,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (60, 60)


def test_tables_say_protocol_baselines_and_which_intervals_hold_zero(data):
    frames, split = data
    model = world.ByTable(TITLES, list(np.linspace(1, 0, 12)))
    found = evaluate(model, split, frames, world.resolved_of(), "home", baselines=("popular",), judging=QUICK)
    console = Console(width=240, record=True, file=io.StringIO())
    for table in tables(found):
        console.print(table)
    text = " ".join(console.export_text().split())
    assert "leave_one_out" in text
    assert "popular" in text
    assert "not significant" in text
    assert "to popular (popularity)" in text
    assert re.search(r"worst first, the worst is \w+ \S+; \d+ groups have too few members \(under 5\)", text)
    assert re.search(r"p of ndcg@10.* p: two-sided, of one comparison", text)


def test_plots_are_written_as_files(report, tmp_path):
    files = plots(report, tmp_path / "plots")
    assert {file.name for file in files} >= {"home_baselines.png", "home_country.png"}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_json_has_no_numbers_that_json_lacks(report):
    json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(name))


class Told:
    """A truth that knows every request: titles with a smaller number are likelier."""

    note = ""

    def __init__(self, titles):
        self.title_ids, self.gathered = titles, []

    def gather(self, request_ids):
        self.gathered += request_ids

    def of(self, request_ids):
        return np.tile(-np.arange(float(len(self.title_ids))), (len(request_ids), 1))


def test_the_ceiling_stands_beside_the_model_and_is_compared_with_nothing():
    titles = [str(number) for number in range(1, 13)]
    frames = world.tables_of(world.random_rows(), titles=titles)
    requested = frames.interactions.with_columns(request_id=pl.format("r-{}", "event_id"))
    frames = replace(frames, interactions=requested)
    split, resolved = make_split("leave_one_out", requested), world.resolved_of()
    reverse = world.ByTable(titles, [float(number) for number in range(12)])

    def measured(truth):
        return evaluate(reverse, split, frames, resolved, "home", k=(3,), judging=QUICK, truth=truth)

    report = measured(Told(titles))
    assert report.ceiling is not None
    assert [row.name for row in report.rows] == ["tiny", *BESIDE]
    assert {row.baseline for row in report.differences} == set(BESIDE)
    value = {row.name: row.metrics["ndcg@3"].value for row in (*report.rows, report.ceiling)}
    assert value["ceiling"] > value["tiny"]
    popular = max(value["popular"], value["popular_7d"])
    assert report.share_of_ceiling == pytest.approx((value["tiny"] - popular) / (value["ceiling"] - popular))
    assert EvaluationReport.from_json(report.to_json()) == report
    assert set(report.not_ahead_of) == set(BESIDE)
    grid = grids(report)[0]
    assert [row[0] for row in grid.rows] == ["tiny", *BESIDE, "ceiling"]
    assert "! not ahead of popular, popular_7d, item_knn, ease on ndcg@3" in grid.caption
    line = summary_grid([report])
    assert line.columns == ("canvas", "tiny", *BESIDE, "ceiling", "way", "not ahead of")
    assert line.rows[0][-1] == "! popular, popular_7d, item_knn, ease"
    silent = Told(titles)
    silent.of, silent.note = (lambda _ids: None), "no ceiling: too large"
    none = measured(silent)
    assert none.ceiling is None
    assert "no ceiling: too large" in none.notes
    assert summary_grid([none]).columns == ("canvas", "tiny", *BESIDE, "not ahead of")


def test_a_model_that_is_ahead_everywhere_is_not_marked(report):
    assert report.not_ahead_of == ()
    assert summary_grid([report]).caption == "ahead of every baseline on every canvas, by paired 95 % intervals"
