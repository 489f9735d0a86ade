from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from playbill.config import shipped_folder
from playbill.definitions.specs import GateSpec
from playbill.definitions.zoo import load_zoo
from playbill.errors import IntegrityError
from playbill.versions.promotion.controller import bundle_gates
from playbill.versions.promotion.gates import judge
from playbill.versions.tracking import Evaluation


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


def test_a_protocol_that_the_log_has_changed_is_named_with_the_command_that_compares() -> None:
    ours, champion = measured({HOME: 0.9}, "t", "global_time_period"), measured({HOME: 0.1}, "s")
    off_policy = measured({"home/slate_snips/reward=played": 1.0}, "log", "off_policy")
    (result,) = judge([gate()], [ours], [off_policy, champion])
    assert not result.passed
    assert "measured under global_time_period on split t" in result.reason
    assert "train it with --protocol leave_one_out to compare them" in result.reason
    (result,) = judge([gate()], [ours], [measured({HOME: 0.1}, "s", "global_time")])
    assert "not comparable" in result.reason
    assert "--protocol" not in result.reason  # the same rows, asked otherwise: nothing has to be trained


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


@pytest.mark.parametrize(
    ("ours", "tolerance", "passed"),
    [(0.10, "0%", True), (0.11, "-5%", False), (0.104, "-5%", True), (0.09, "+5%", True)],
)
def test_a_distance_is_better_lower(ours: float, tolerance: str, passed: bool) -> None:
    rule = gate(metric="calibration@10", tolerance=tolerance)
    name = "home/calibration@10"
    (result,) = judge([rule], [measured({name: ours})], [measured({name: 0.10})])
    assert result.passed is passed
    assert ("above" in result.reason) is not passed


def test_a_gate_holds_one_head_or_all_of_them() -> None:
    ours = measured({"home/auc/head=up": 0.7, "home/auc/head=down": 0.6, "home/auc/head=new": 0.1})
    theirs = measured({"home/auc/head=up": 0.7, "home/auc/head=down": 0.8, "home/auc/head=gone": 0.9})
    one = judge([gate(metric="auc", head="up")], [ours], [theirs])
    assert [(result.metric, result.passed) for result in one] == [("home/auc/head=up", True)]
    every = judge([gate(metric="auc")], [ours], [theirs])
    assert {result.metric: result.passed for result in every} == {"home/auc/head=up": True, "home/auc/head=down": False}
    (gone, *_) = judge([gate(metric="auc", head="gone")], [ours], [theirs])
    assert not gone.passed
    (worse,) = judge(
        [gate(metric="ece", head="up")],
        [measured({"home/ece/head=up": 0.05})],
        [measured({"home/ece/head=up": 0.02})],
    )
    assert not worse.passed
    assert "ece on head up of home against champion" in worse.gate


def test_numbers_by_two_versions_of_a_reward_are_not_compared() -> None:
    name = "home/reward_ndcg@10"
    rule = gate(metric="reward_ndcg@10")
    first, second = ({name: 0.3, "home/reward_fingerprint": mark} for mark in (1.0, 2.0))
    (same,) = judge([rule], [measured(first)], [measured(first)])
    assert same.passed
    (other,) = judge([rule], [measured(second)], [measured(first)])
    assert not other.passed
    assert "measured by reward ...:000000000002, the champion by reward ...:000000000001" in other.reason
    assert "another version of the reward" in other.reason
    (without,) = judge([rule], [measured({name: 0.3})], [measured(first)])
    assert not without.passed
    assert "measured by no reward" in without.reason


@pytest.mark.parametrize("metric", ["map@10", "novelty@10", "debiased_ndcg@10", "reward_ndcg@10"])
@pytest.mark.parametrize("slice_", [None, "popularity", "device", "language", "canvas"])
def test_gates_can_name_every_metric_and_slice(metric: str, slice_: str | None) -> None:
    rule = gate(metric=metric, slice=slice_, **({"worst": "-1%", "tolerance": None} if slice_ else {}))
    name = f"home/{metric}" + (f"/{slice_}=x" if slice_ else "")
    (result,) = judge([rule], [measured({name: 0.1})], [measured({name: 0.2})])
    assert (result.metric, result.passed) == (name, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "sampled_ndcg@10"}, "sampled metric 'sampled_ndcg@10'"),
        ({"metric": "ndcg_100_negatives@10"}, "sampled metric"),
        ({"metric": "debised_ndcg@10"}, "unknown metric 'debised_ndcg@10'"),
        ({"metric": "auc@10"}, "unknown metric 'auc@10'"),
        ({"head": "up"}, "'head' is for the metrics auc and ece"),
        ({"metric": "auc", "against": "popular"}, "held against the champion"),
        ({"metric": "coverage@10", "slice": "country", "worst": "-1%", "tolerance": None}, "coverage has no slices"),
    ],
)
def test_wrong_gates_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gate(**options)


LOGGED = {"home/snips/reward=long_term": 0.30, "home/snips/reward=long_term/minus=logged": 0.01}


def off_policy(**options: Any) -> GateSpec:
    return gate(**{"metric": "snips", "reward": "long_term", "against": "logged", "tolerance": "0%"} | options)


@pytest.mark.parametrize(
    ("difference", "tolerance", "passed"), [(0.01, "0%", True), (-0.01, "0%", False), (-0.01, "-5%", True)]
)
def test_an_off_policy_estimate_is_held_against_the_policy_that_was_served(
    difference: float, tolerance: str, passed: bool
) -> None:
    numbers = LOGGED | {"home/snips/reward=long_term/minus=logged": difference}
    (result,) = judge([off_policy(tolerance=tolerance)], [measured(numbers, protocol="off_policy")], None)
    assert result.passed is passed
    assert result.reference == pytest.approx(0.30 - difference)
    assert result.gate.startswith("snips of long_term on home against logged")


@pytest.mark.parametrize("options", [{"reward": None}, {"metric": "slate_snips"}, {"canvas": "billboard"}])
def test_an_estimate_of_something_else_or_a_refused_one_does_not_pass(options: dict[str, Any]) -> None:
    refused = {"home/slate_snips/reward=long_term/effective_sample_size": 12.0}
    (result,) = judge([off_policy(**options)], [measured(LOGGED | refused, protocol="off_policy")], None)
    assert not result.passed
    assert "or the estimate was refused: playbill offpolicy MODEL:VERSION --estimator" in result.reason


def test_estimates_of_both_versions_do_not_hide_what_is_compared_with_the_champion() -> None:
    estimates, measures = measured(LOGGED, protocol="off_policy"), measured({HOME: 0.2})
    (result,) = judge([gate()], [estimates, measures], [estimates, measures])
    assert result.passed
    assert result.value == 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "snips"}, "'snips' is held against 'logged'"),
        ({"metric": "snips", "against": "logged", "slice": "country", "tolerance": None, "worst": "-1%"}, "without"),
        ({"against": "logged"}, "'against: logged' is for off-policy estimators such as slate_snips, not for ndcg@10"),
        ({"reward": "long_term"}, "'reward' is for off-policy estimators"),
        ({"metric": "snip", "against": "logged"}, "unknown metric 'snip'"),
    ],
)
def test_wrong_off_policy_gates_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gate(**options)


def test_figures_of_requests_that_knew_the_row_are_not_compared() -> None:
    old = replace(measured({HOME: 0.9}), requests_version="1")
    (result,) = judge([gate()], [measured({HOME: 0.5})], [old])
    assert not result.passed
    assert "the champion under leave_one_out on split s with requests of version 1" in result.reason
    assert "playbill evaluate MODEL@champion" in result.reason
    (again,) = judge([gate()], [measured({HOME: 0.5})], [measured({HOME: 0.5}), old])
    assert again.passed


def test_a_number_measured_on_other_feature_files_says_so() -> None:
    other = replace(measured({HOME: 0.4}), other_files="member_mood")
    (result,) = judge([gate()], [measured({HOME: 0.5})], [other])
    assert result.passed
    assert result.reason.endswith(
        "the champion was measured on other feature files than it was trained on: member_mood"
    )
    (result,) = judge([gate()], [other], [measured({HOME: 0.5})])
    assert not result.passed
    assert "measured on other feature files than it was trained on: member_mood" in result.reason
    (result,) = judge([gate()], [measured({HOME: 0.5})], [measured({HOME: 0.4})])
    assert "feature files" not in result.reason
