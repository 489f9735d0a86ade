"""Gates where both versions answered the same requests: what is shown, and what is inside the noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from playbill.definitions.specs import GateSpec
from playbill.versions.promotion.gates import GateResult, judge
from playbill.versions.tracking import Evaluation

HOME = "home/ndcg@10"


@dataclass(frozen=True)
class Kept:
    """Stands in for the files of a run."""

    frames: dict[str, pl.DataFrame]

    def requests(self, canvas: str) -> pl.DataFrame | None:
        return self.frames.get(canvas)


def frame(values: np.ndarray, **more: Any) -> pl.DataFrame:
    ids = [f"r{number}" for number in range(values.size)]
    columns = {"request_id": ids, "member": np.arange(values.size, dtype=np.uint32), "ndcg@10": values}
    return pl.DataFrame(columns | more).with_columns(pl.col("ndcg@10").cast(pl.Float32))


def measured(values: np.ndarray, **more: Any) -> Evaluation:
    own = frame(values, **more)
    metrics = {HOME: float(values.mean())}
    for name in ("popular",):
        if f"{name}/ndcg@10" in own.columns:
            metrics[f"{HOME}/minus={name}"] = float((own["ndcg@10"] - own[f"{name}/ndcg@10"]).mean())
    for group in set(more.get("country", ())):
        metrics[f"{HOME}/country={group}"] = float(own.filter(country=group)["ndcg@10"].mean())  # type: ignore[arg-type]
    return Evaluation("leave_one_out", "s", metrics, "run", Kept({"home": own}))  # type: ignore[arg-type]


def gate(**options: Any) -> GateSpec:
    return GateSpec(**{"metric": "ndcg@10", "canvas": "home", "tolerance": "-1%"} | options)


def decide(ours: Evaluation, theirs: Evaluation | None, **options: Any) -> GateResult:
    (result,) = judge([gate(**options)], [ours], None if theirs is None else [theirs])
    return result


def values(members: int, mean: float, spread: float, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(mean, spread, members)
    return drawn - drawn.mean() + mean


CHAMPION = values(166, 0.20, 0.1, 0)
NOISE = values(166, 0.0, 0.1, 1)
"""What two trainings differ by, member by member, with a mean of nothing."""
STEADY = NOISE / 100


def test_a_refusal_inside_the_noise_says_so_with_its_interval() -> None:
    result = decide(measured(CHAMPION + NOISE - 0.003), measured(CHAMPION))
    assert not result.passed
    assert result.noise
    assert result.reason.startswith("0.1970 is below 0.1980: -1.5 % [")
    assert result.reason.endswith("on 166 members, inside the noise")
    assert result.change is not None
    change, low, high = result.change
    assert low < change < high
    assert change == pytest.approx(-0.015, abs=1e-4)
    assert result.members == 166


def test_a_refusal_that_is_shown_has_the_interval_and_no_noise() -> None:
    result = decide(measured(CHAMPION + STEADY - 0.02), measured(CHAMPION))
    assert not result.passed
    assert not result.noise
    assert "inside the noise" not in result.reason
    assert "-10.0 % [-10." in result.reason


def test_a_pass_inside_the_noise_says_so() -> None:
    result = decide(measured(CHAMPION + NOISE), measured(CHAMPION))
    assert result.passed
    assert "inside the noise" in result.reason
    sure = decide(measured(CHAMPION + STEADY + 0.02), measured(CHAMPION))
    assert (sure.passed, sure.reason) == (True, "")


@pytest.mark.parametrize(
    ("change", "tolerance", "passed"),
    [
        (NOISE - 0.003, "-1%", True),  # beyond the limit, but it is not shown
        (STEADY - 0.003, "-1%", False),
        (STEADY - 0.001, "-1%", True),
        (NOISE - 0.001, "0%", True),
        (STEADY - 0.001, "0%", False),
        (NOISE + 0.011, "+5%", False),  # a gain has to be shown
        (STEADY + 0.011, "+5%", True),
    ],
)
def test_significant_lets_the_interval_decide(change: np.ndarray, tolerance: str, passed: bool) -> None:
    result = decide(measured(CHAMPION + change), measured(CHAMPION), tolerance=tolerance, significant=True)
    assert result.passed is passed, result.reason
    assert "significantly" in result.reason
    assert result.gate.endswith(", significant")


def test_a_distance_is_worse_higher() -> None:
    name = "calibration@10"
    rename = {"ndcg@10": name}

    def of(found: np.ndarray) -> Evaluation:
        kept = Kept({"home": frame(found).rename(rename)})
        return Evaluation("leave_one_out", "s", {f"home/{name}": float(found.mean())}, "run", kept)  # type: ignore[arg-type]

    better = decide(of(CHAMPION - 0.02 + STEADY), of(CHAMPION), metric=name, tolerance="+5%", significant=True)
    assert better.passed, better.reason
    worse = decide(of(CHAMPION + 0.02 + STEADY), of(CHAMPION), metric=name, significant=True)
    assert not worse.passed
    assert "is significantly above" in worse.reason


def test_a_baseline_is_paired_with_the_candidate_itself() -> None:
    ours = measured(CHAMPION + 0.02 + STEADY, **{"popular/ndcg@10": CHAMPION.astype(np.float32)})
    result = decide(ours, None, against="popular", tolerance="+5%", significant=True)
    assert result.passed, result.reason
    assert result.change is not None
    assert result.change[0] == pytest.approx(0.1, abs=1e-3)


def test_a_group_is_paired_on_its_own_requests() -> None:
    countries = ["NL", "BR"] * 83
    shift = np.where(np.array(countries) == "BR", -0.05, 0.0)
    ours, theirs = measured(CHAMPION + STEADY + shift, country=countries), measured(CHAMPION, country=countries)
    rule = gate(slice="country", worst="-2%", tolerance=None, significant=True)
    results = {result.metric: result for result in judge([rule], [ours], [theirs])}
    assert results[f"{HOME}/country=NL"].passed
    assert not results[f"{HOME}/country=BR"].passed
    assert results[f"{HOME}/country=BR"].members == 83


def test_significant_without_values_by_request_is_refused_with_the_command_that_makes_them() -> None:
    old = Evaluation("leave_one_out", "s", {HOME: 0.2}, "run")
    result = decide(measured(CHAMPION), old, significant=True)
    assert not result.passed
    assert "playbill evaluate" in result.reason
    assert decide(measured(CHAMPION), old).passed, "a plain gate goes by the number as ever"


def test_a_table_that_cannot_be_read_refuses_whatever_the_gate() -> None:
    broken = Evaluation("leave_one_out", "s", {}, "run", problem="gates/numbers.json of run r is missing")
    for ours, theirs in ((measured(CHAMPION), broken), (broken, measured(CHAMPION))):
        result = decide(ours, theirs, metric="ndcg@10", canvas="all")
        assert not result.passed
        assert "gates/numbers.json of run r is missing" in result.reason


@pytest.mark.parametrize("metric", ["auc", "coverage@10", "slate_snips"])
def test_significance_is_for_metrics_of_requests(metric: str) -> None:
    against = {"against": "logged"} if metric == "slate_snips" else {}
    with pytest.raises(ValidationError, match="needs a metric that every request has"):
        gate(metric=metric, significant=True, **against)
