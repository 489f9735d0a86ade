"""The benchmark of heads on a tiny service: every arm trains, is asked about the same rows, and is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from playbill.training.build import network_config

# The scripts are found beside one another; afterwards they must not stand before feature_repo/'s own names.
with pytest.MonkeyPatch.context() as path:
    path.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from heads import BASE, SINGLE, arms_of, changed, study
    from heads_tasks import Task, simulated


@pytest.fixture(scope="module")
def tiny() -> Task:
    return simulated(members=200, titles=90, days=14, steps=4)


def test_arms_differ_in_what_they_say_and_share_rows(tiny: Task) -> None:
    heads = list(tiny.resolved.model.heads)
    arms = {name: changed(tiny.resolved, 3, heads, **own) for name, own in arms_of(len(heads), 64).items()}
    assert len({arm.spec_hash for name, arm in arms.items() if name != SINGLE}) == len(arms) - 1
    assert arms["plain"].model.heads["play"].level is False
    assert arms["base"].model.heads["next_play"].weight == pytest.approx(0.3)
    for arm in arms.values():
        assert network_config(arm, tiny.data.encoder).heads[0].name == heads[0]


def test_a_study_compares_each_arm_with_the_base_on_the_same_rows(tiny: Task) -> None:
    found = study(tiny, [SINGLE, "gradnorm", "ple"], [17], resamples=20)
    assert set(found["arms"]) == {SINGLE, "gradnorm", "ple"}
    assert found["arms"][SINGLE]["parameters"] > 3 * found["base"]["parameters"]
    assert set(found["arms"]["gradnorm"]["weights"]) == set(tiny.resolved.model.heads)
    for arm in found["arms"].values():
        for head, own in arm["heads"].items():
            low, high = own["interval"]
            assert low <= own["difference"] <= high
            assert own["difference"] == pytest.approx(own["auc"] - found["base"]["auc"][head])
    assert BASE not in found["arms"]
