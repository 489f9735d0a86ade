"""Many comparisons and many seeds: adjusted p-values, bootstrap p-values, intervals that hold seeds too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, ttest_rel

from playbill import metrics
from playbill.metrics import MemberBootstrap


def plain_holm(p: list[float]) -> list[float]:
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, running = [0.0] * len(p), 0.0
    for step, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - step) * p[i]))
        out[i] = running
    return out


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_adjusted_p_values_equal_references(p):
    np.testing.assert_allclose(metrics.adjust_p(p, "holm"), plain_holm(p))
    np.testing.assert_allclose(metrics.adjust_p(p, "benjamini_hochberg"), false_discovery_control(p, method="bh"))


def test_a_comparison_without_data_does_not_count():
    found = metrics.adjust_p([0.02, np.nan, 0.04])
    assert found[[0, 2]].tolist() == pytest.approx([0.04, 0.04])
    assert np.isnan(found[1])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        metrics.adjust_p([1.2])
    with pytest.raises(ValueError, match="unknown method"):
        metrics.adjust_p([0.1], "bonferoni")


def test_holm_keeps_twenty_null_slices_from_a_false_discovery():
    generator = np.random.default_rng(8)
    raw, held = 0, 0
    for trial in range(60):
        values = generator.standard_normal((120, 20))
        p = MemberBootstrap(np.arange(120), 600, seed=trial).p_values(values)
        raw += bool((p <= 0.05).any())
        held += bool((metrics.adjust_p(p) <= 0.05).any())
    assert raw > 25  # 1 - 0.95^20 = 64 % of families have one by chance
    assert held <= 9  # nominal 3 of 60


def test_bootstrap_p_values_agree_with_a_paired_t_test_and_with_the_interval():
    generator = np.random.default_rng(2)
    values = generator.standard_normal((400, 3)) + np.array([0.0, 0.1, 0.3])
    bootstrap = MemberBootstrap(np.arange(400), 4000)
    p = bootstrap.p_values(values)
    expected = [ttest_rel(values[:, i], np.zeros(400)).pvalue for i in range(3)]
    np.testing.assert_allclose(p, expected, atol=0.02)
    for value, interval in zip(p, bootstrap.intervals(values), strict=True):
        assert (value < 0.05) == (not interval.includes_zero)
    assert np.isnan(bootstrap.p_values(np.full((400, 1), np.nan))).all()


def test_p_values_take_a_members_requests_together():
    generator = np.random.default_rng(5)
    by_member = generator.standard_normal(40) + 0.15
    values = np.repeat(by_member, 50)[:, None]
    apart = MemberBootstrap(np.arange(2000), 1000).p_values(values)[0]
    together = MemberBootstrap(np.repeat(np.arange(40), 50), 1000).p_values(values)[0]
    assert apart < 0.01 < together


def test_weighted_intervals_draw_the_ratio():
    generator = np.random.default_rng(6)
    weights = generator.exponential(size=300)
    values = 0.5 + 0.1 * generator.standard_normal(300)
    bootstrap = MemberBootstrap(np.arange(300), 500, seed=1)
    found = bootstrap.intervals(values[:, None], weights[:, None])[0]
    sums = bootstrap.totals(np.stack([weights * values, weights], axis=1))
    plain = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    assert found.value == pytest.approx(np.average(values, weights=weights))
    assert [found.low, found.high] == pytest.approx(plain.tolist())
    with pytest.raises(ValueError, match="like the values"):
        bootstrap.intervals(values[:, None], weights[:, None].repeat(2, axis=1))


def test_seed_intervals_hold_members_and_seeds_and_cover_the_expected_value():
    generator = np.random.default_rng(11)
    covered, by_members_only = 0, 0
    for trial in range(200):
        seeds = 0.02 * generator.standard_normal((3, 1))
        member = 0.2 * generator.standard_normal(300)
        values = 0.3 + seeds + member + 0.1 * generator.standard_normal((3, 300))
        found = metrics.seed_interval(np.arange(300), values, resamples=200, seed=trial)
        covered += found.low <= 0.3 <= found.high
        alone = metrics.member_bootstrap(np.arange(300), values[0], resamples=200, seed=trial)
        by_members_only += alone.low <= 0.3 <= alone.high
    assert by_members_only / 200 < 0.85
    assert 0.92 <= covered / 200 <= 1.0


def test_seed_summary_by_hand_and_what_is_refused():
    found = metrics.seed_interval(np.arange(4), np.array([[0.2] * 4, [0.4] * 4]))
    assert found.value == pytest.approx(0.3)
    assert found.by_seed == pytest.approx((0.2, 0.4))
    assert found.spread == pytest.approx(0.1 * 2**0.5)
    assert found.members_error == pytest.approx(0.0, abs=1e-12)
    assert found.high - found.value == pytest.approx(12.706 * 0.1, rel=1e-3)  # t with one degree of freedom
    assert found.interval.value == found.value
    with pytest.raises(ValueError, match="S >= 2"):
        metrics.seed_interval(np.arange(4), np.ones((1, 4)))
    with pytest.raises(ValueError, match="NaN"):
        metrics.seed_interval(np.arange(2), np.array([[np.nan, 1.0], [1.0, 1.0]]))


def test_intervals_and_p_values_of_one_pass_are_those_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    values, members = rng.normal(0.1, 1.0, (60, 150)), np.repeat(np.arange(20), 3)
    values[rng.random(values.shape) < 0.2] = np.nan
    weights = rng.random(values.shape)
    bootstrap = MemberBootstrap(members, resamples=50)
    intervals, p = bootstrap.judged(values, weights)
    assert intervals == bootstrap.intervals(values, weights)
    np.testing.assert_array_equal(p, bootstrap.p_values(values, weights))
    monkeypatch.setattr("playbill.metrics.bootstrap.SUMS_AT_ONCE", 1)
    in_pieces, p_in_pieces = bootstrap.judged(values, weights)
    np.testing.assert_allclose(in_pieces, intervals, rtol=1e-12)
    np.testing.assert_array_equal(p_in_pieces, p)
    assert bootstrap.judged(values[:, :0])[0] == []
