"""What an A/B report says of numbers that were made by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from playbill.errors import ComparisonError, ProblemsError
from playbill_lab.ab.report import MEASURES, AbReport, check_arms, compare, contrasts, plot

MEMBERS = 200


def arm(lift: float, noise: float = 0.0, seed: int = 0, runs: int = 1) -> pl.DataFrame:
    """Rows of members whose every measure is their own number plus a lift."""
    own = np.tile(np.random.default_rng(5).normal(size=MEMBERS), runs)
    values = own + lift + noise * np.random.default_rng(seed).normal(size=own.size)
    run = np.repeat(np.arange(runs), MEMBERS)
    member = np.tile(np.arange(MEMBERS), runs)
    return pl.DataFrame({"member": member, "run": run, **dict.fromkeys(MEASURES, values)})


def report(**arms: pl.DataFrame) -> AbReport:
    return compare(arms, days=7, seeds=(0,), about={"titles": 3})


def shown_at(found: AbReport, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(found.table())
    return console.export_text()


def test_the_difference_is_paired_by_member() -> None:
    found = report(base=arm(0.0), better=arm(0.25), same=arm(0.0))
    gap = found.of("better").difference
    assert gap is not None
    # Members differ by far more than the lift, and the interval does not widen by that.
    assert gap.low == pytest.approx(0.25)
    assert gap.high == pytest.approx(0.25)
    assert found.of("better").significant
    same = found.of("same")
    assert same.difference is not None
    assert same.difference.value == 0.0
    assert not same.significant
    assert found.of("base").difference is None


def test_chance_is_no_finding_after_holm() -> None:
    noisy = {f"arm{seed}": arm(0.0, noise=1.0, seed=seed) for seed in range(101, 113)}
    found = report(base=arm(0.0), **noisy)
    rows = [found.of(name) for name in noisy]
    assert all(row.p is not None and row.p_adjusted is not None and row.p_adjusted >= row.p for row in rows)
    assert not any(row.significant for row in rows)
    smallest = min(rows, key=lambda row: row.p or 1.0)
    assert smallest.p_adjusted == pytest.approx(min(1.0, 12 * (smallest.p or 1.0)))


def test_several_runs_of_a_member_are_no_independent_members() -> None:
    once, often = report(base=arm(0.0), other=arm(0.0)), report(base=arm(0.0, runs=9), other=arm(0.0, runs=9))
    narrow, wide = often.of("base").mean, once.of("base").mean
    assert often.members == once.members == MEMBERS
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low, rel=1e-6)


def test_arms_must_have_been_seen_by_the_same_members() -> None:
    with pytest.raises(ComparisonError, match="'other' and 'base'"):
        report(base=arm(0.0), other=arm(0.0).reverse())


def test_mistakes_in_arms_are_reported_together() -> None:
    with pytest.raises(ProblemsError, match=r"two policies at least, got 1"):
        check_arms(["a"])
    with pytest.raises(ProblemsError, match=r"'a' is there twice"):
        check_arms(["a", "b", "a"])


def test_json_table_and_plot_hold_every_arm_and_measure(tmp_path: Path) -> None:
    found = report(base=arm(0.0), better=arm(1.0))
    found.save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["titles"] == 3
    assert read["arms"]["better"]["value"]["difference"] == pytest.approx(1.0)
    assert set(read["arms"]["base"]) == set(MEASURES)
    assert found.frame().height == 2 * len(MEASURES)
    shown = shown_at(found, 80)
    assert shown.count("better") == shown.count("to +1.0") == len(MEASURES)
    assert "…" not in shown
    plot(found, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().count("difference to base") >= 1


def test_contrasts_are_differences_of_differences() -> None:
    lifts = {"click_small": 0.0, "click_large": -1.0, "long_small": 2.0, "long_large": 5.0}
    values = {name: arm(lift) for name, lift in lifts.items()}
    found = {
        row.name: row for row in contrasts(values, ("click", "long"), ("small", "large")) if row.measure == "value"
    }
    assert {name: round(row.value.value, 6) for name, row in found.items()} == {
        "click: large - small": -1.0,
        "long: large - small": 3.0,
        "small: long - click": 2.0,
        "large: long - click": 6.0,
        "long small - click large": 3.0,
        "(long - click) at large - at small": 4.0,
    }
    assert all(row.significant for row in found.values())


def test_one_model_has_no_contrasts() -> None:
    assert contrasts({"click_small": arm(0.0)}, ("click",), ("small",)) == ()
