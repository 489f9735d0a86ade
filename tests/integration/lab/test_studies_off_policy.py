"""The study behind docs/results/off_policy.md, small: its truth is the simulator's, and its sums are right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from fixtures.off_policy_agreement import agreement, estimated, ranking_protocols, spearman
from fixtures.off_policy_study import study
from fixtures.off_policy_world import ProgressListener, conditional, target_policies, watched_run
from playbill_lab.simulator import World, WorldSpec

KINDS = {"billboard": (("ips", "snips", "direct"), 1), "top_picks": (("slate", "slate_snips"), 3)}
POLICIES = tuple(target_policies())


@pytest.fixture(scope="module")
def watched() -> ProgressListener:
    return watched_run(World.make(WorldSpec(members=250, days=6, titles=80, seed=5)), target_policies())


@pytest.mark.parametrize("place", KINDS)
def test_truth_and_propensities_are_those_of_the_simulator(watched: ProgressListener, place: str) -> None:
    questions = watched.questions(place)
    assert questions.check < 1e-6  # our click model against the simulator's own exact expectation
    full = np.flatnonzero((questions.shown >= 0).all(axis=1))
    chances, _ = conditional(questions.logging[full], questions.shown[full])
    np.testing.assert_allclose(chances, questions.propensity[full], rtol=1e-3)


@pytest.mark.parametrize("place", KINDS)
def test_a_study_finds_estimates_around_the_truth(watched: ProgressListener, place: str) -> None:
    names, places = KINDS[place]
    questions = watched.questions(place)
    found = study(questions, POLICIES, names, places=places, repeats=12, draws=20, resamples=50, seed=1)
    plain = found.found[:, :, 0, 0]
    error = plain.std(axis=0, ddof=1) / 12**0.5
    assert (np.abs(plain.mean(axis=0) - found.truth) < 5.0 * error).all()
    held = found.coverage()[names[0]]
    assert 0.6 < held["mean"] <= 1.0
    assert 0.0 <= held["lowest"] <= held["mean"]
    ratio = found.variance_ratio()
    assert ratio["passed_by"]["mean"] < 0.8  # rewards near 1 are what normalising is for
    assert found.bias()[names[0]]["noise"] > 0.0
    assert set(found.by_policy()) == set(POLICIES)


def test_every_protocol_has_a_number_for_every_policy(watched: ProgressListener) -> None:
    questions = {place: watched.questions(place) for place in KINDS}
    texts = {**ranking_protocols(watched.ranks(), 80), **estimated(questions, KINDS)}
    assert {len(values) for values in texts.values()} == {len(POLICIES)}
    assert {"leave_one_out_ndcg@10", "global_time_reward_ndcg@10", "snips_satisfaction"} <= texts.keys()
    assert all(0.0 <= value <= 1.0 for name, values in texts.items() if "@10" in name for value in values)


def test_agreement_is_spearmans_with_ties_and_its_interval_holds_it() -> None:
    generator = np.random.default_rng(0)
    value = generator.standard_normal(10).round(1)
    noisy = (value + generator.standard_normal(10)).round(1)
    assert spearman(noisy, value) == pytest.approx(spearmanr(noisy, value).statistic)
    online = [{"value": value.tolist(), "plays": (-value).tolist()}] * 2
    offline = [{"same": value.tolist(), "noisy": noisy.tolist()}] * 2
    table = agreement(offline, online)
    assert (table["same"]["spearman"], table["same"]["low"], table["same"]["spearman_plays"]) == (1.0, 1.0, -1.0)
    assert table["noisy"]["low"] < table["noisy"]["spearman"] < table["noisy"]["high"]
    assert len(table["noisy"]["by_world"]) == 2
