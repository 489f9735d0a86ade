"""Bootstrap intervals: they cover, they pair, they keep a member's requests together."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.metrics import Interval, MemberBootstrap, member_bootstrap


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(7)
    trials, covered = 300, 0
    for trial in range(trials):
        values = (generator.random(200) < 0.3).astype(float)
        interval = member_bootstrap(np.arange(200), values, resamples=400, seed=trial)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.90 <= covered / trials <= 0.985  # nominal 0.95, three standard errors and the percentile's bias


def test_pairing_makes_a_small_steady_difference_visible():
    generator = np.random.default_rng(1)
    base = generator.random(300)
    better = base + 0.01 + 0.001 * generator.standard_normal(300)
    bootstrap = MemberBootstrap(np.arange(300), resamples=500)
    alone_a, alone_b, paired = bootstrap.intervals(np.stack([base, better, better - base], axis=1))
    assert alone_a.high > alone_b.low  # unpaired, they overlap
    assert not paired.includes_zero
    assert paired.value == pytest.approx(alone_b.value - alone_a.value)


def test_requests_of_one_member_are_not_independent_evidence():
    values = np.repeat((np.arange(50) % 2).astype(float), 20)
    clustered = member_bootstrap(np.repeat(np.arange(50), 20), values, seed=3)
    apart = member_bootstrap(np.arange(1000), values, seed=3)
    assert clustered.value == apart.value == 0.5
    assert clustered.high - clustered.low > 3 * (apart.high - apart.low)


def test_missing_values_are_outside_a_statistic_not_zero():
    values = np.array([[1.0, np.nan], [0.0, np.nan], [np.nan, np.nan]])
    first, empty = MemberBootstrap(np.arange(3), resamples=50).intervals(values)
    assert first.value == 0.5
    assert np.isnan(empty).all()


def test_same_seed_same_interval_and_pieces_do_not_matter(monkeypatch):
    values = np.random.default_rng(0).random(40)
    whole = member_bootstrap(np.arange(40), values, resamples=100, seed=5)
    assert whole == member_bootstrap(np.arange(40), values, resamples=100, seed=5)
    assert whole != member_bootstrap(np.arange(40), values, resamples=100, seed=6)
    monkeypatch.setattr("playbill.metrics.bootstrap.CELLS_AT_ONCE", 120)
    assert whole == member_bootstrap(np.arange(40), values, resamples=100, seed=5)


def test_a_plain_loop_over_the_same_draws_gives_the_same_numbers():
    values = np.array([0.0, 1.0, 0.5, 0.25])
    picks = np.random.default_rng(9).integers(0, 4, size=(200, 4), dtype=np.int32)
    means = sorted(float(np.mean([values[i] for i in draw])) for draw in picks)
    interval = member_bootstrap(np.arange(4), values, resamples=200, seed=9)
    assert interval.low == pytest.approx(np.quantile(means, 0.025))
    assert interval.high == pytest.approx(np.quantile(means, 0.975))


def test_an_interval_knows_whether_it_includes_zero():
    assert Interval(0.1, 0.0, 0.2).includes_zero
    assert not Interval(0.1, 0.05, 0.2).includes_zero


def test_one_member_is_no_evidence():
    values = np.full((3, 1), 0.5)
    (interval,), p = MemberBootstrap(np.zeros(3, dtype=np.int64)).judged(values)
    assert interval == Interval(0.5, 0.5, 0.5)
    assert p == [1.0]
    assert np.isnan(MemberBootstrap(np.zeros(3, dtype=np.int64)).p_values(np.full((3, 1), np.nan)))
    assert MemberBootstrap(np.arange(3)).p_values(values) < 0.01
