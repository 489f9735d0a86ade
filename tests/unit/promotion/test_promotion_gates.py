from pathlib import Path
from typing import Any

import pytest

from playbill.config import shipped_folder
from playbill.errors import IntegrityError
from playbill.promotion.controller import bundle_gates
from playbill.promotion.gates import judge
from playbill.specs import GateSpec
from playbill.tracking import Evaluation
from playbill.zoo import load_zoo


def gate(**options: Any) -> GateSpec:
    return GateSpec(**{"metric": "ndcg@10", "canvas": "home", "tolerance": "-1%"} | options)


def measured(metrics: dict[str, float], split: str = "s", protocol: str = "leave_one_out") -> Evaluation:
    return Evaluation(protocol, split, metrics, "run")


HOME = "home/ndcg@10"


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance", "passed"),
    [
        (0.20, 0.20, "0%", True),
        (0.198, 0.20, "-1%", True),
        (0.1979, 0.20, "-1%", False),
        (0.205, 0.20, "+5%", False),
        (0.21, 0.20, "+5%", True),
        (0.0, 0.0, "-1%", True),
        (float("nan"), 0.2, "-1%", False),
    ],
)
def test_the_limit_is_relative_to_the_champion(ours: float, theirs: float, tolerance: str, passed: bool) -> None:
    (result,) = judge([gate(tolerance=tolerance)], [measured({HOME: ours})], [measured({HOME: theirs})])
    assert result.passed is passed
    assert (result.reason == "") is passed


def test_without_a_champion_there_is_nothing_to_compare_with() -> None:
    (result,) = judge([gate()], [measured({HOME: 0.1})], None)
    assert result.passed
    assert "first promotion" in result.reason


def test_all_canvases_are_held_one_by_one() -> None:
    ours = measured({"home/ndcg@10": 0.2, "search/ndcg@10": 0.1, "home/hr@10": 0.0})
    theirs = measured({"home/ndcg@10": 0.2, "search/ndcg@10": 0.2, "home/hr@10": 0.9})
    results = judge([gate(canvas="all")], [ours], [theirs])
    assert {result.metric: result.passed for result in results} == {"home/ndcg@10": True, "search/ndcg@10": False}


def test_a_canvas_the_candidate_no_longer_serves_fails() -> None:
    ours, theirs = measured({HOME: 0.2}), measured({HOME: 0.2, "search/ndcg@10": 0.2})
    results = judge([gate(canvas="all")], [ours], [theirs])
    assert [result.passed for result in results] == [True, False]


def test_a_canvas_that_is_new_has_nothing_to_compare_with() -> None:
    (result,) = judge([gate(canvas="search")], [measured({"search/ndcg@10": 0.2})], [measured({HOME: 0.2})])
    assert result.passed
    assert "no such number to compare" in result.reason


def test_a_candidate_without_the_number_fails() -> None:
    (result,) = judge([gate()], [measured({"home/hr@10": 0.2})], [measured({"search/ndcg@10": 0.2})])
    assert not result.passed
    assert "candidate has no such number" in result.reason


@pytest.mark.parametrize("candidate", [[], [measured({HOME: 0.9}, "t")], [measured({HOME: 0.9}, "s", "global_time")]])
def test_what_is_not_comparable_fails(candidate: list[Evaluation]) -> None:
    (result,) = judge([gate()], candidate, [measured({HOME: 0.1})])
    assert not result.passed
    assert "not comparable" in result.reason


def test_runs_without_any_protocol_are_not_comparable() -> None:
    unknown = Evaluation("", "", {HOME: 0.9}, "run")
    (result,) = judge([gate()], [unknown], [unknown])
    assert not result.passed


def test_of_two_measurements_the_newest_counts() -> None:
    newest_first = [measured({HOME: 0.1}), measured({HOME: 0.9})]
    (result,) = judge([gate()], newest_first, [measured({HOME: 0.2})])
    assert result.value == 0.1


def test_a_slice_gate_holds_every_group_on_both_sides() -> None:
    ours = measured({f"{HOME}/country=NL": 0.2, f"{HOME}/country=BR": 0.1, f"{HOME}/tenure=new": 0.0})
    theirs = measured({f"{HOME}/country=NL": 0.2, f"{HOME}/country=BR": 0.2, f"{HOME}/country=JP": 0.3})
    rule = gate(slice="country", worst="-2%", tolerance=None)
    results = judge([rule], [ours], [theirs])
    assert {result.metric: result.passed for result in results} == {
        f"{HOME}/country=BR": False,
        f"{HOME}/country=NL": True,
    }


def test_a_gate_against_a_baseline_reads_the_paired_difference() -> None:
    metrics = {HOME: 0.2, f"{HOME}/minus=popular": 0.05, f"{HOME}/minus=popular/low": 0.01}
    (result,) = judge([gate(against="popular", tolerance="+10%")], [measured(metrics)], None)
    assert result.passed
    assert result.reference == pytest.approx(0.15)
    (result,) = judge([gate(against="popular", tolerance="+50%")], [measured(metrics)], None)
    assert not result.passed


def test_a_baseline_that_was_not_measured_fails() -> None:
    (result,) = judge([gate(against="ease", tolerance="0%")], [measured({HOME: 0.2})], None)
    assert not result.passed
    assert "not measured against 'ease'" in result.reason


def test_the_gates_come_from_the_definition_inside_the_bundle(tmp_path: Path) -> None:
    zoo = load_zoo(shipped_folder("model_zoo"), None)
    resolved = zoo.model("everycanvas")
    (tmp_path / "spec.json").write_text(resolved.to_json())
    assert bundle_gates(tmp_path) == resolved.model.gates
    assert resolved.model.gates


@pytest.mark.parametrize("text", [None, "{}", "not json"])
def test_a_bundle_without_a_readable_definition_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "spec.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"spec\.json"):
        bundle_gates(tmp_path)
