"""What a group's lengths of history let one expect, and what takes its gap apart."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.continual.diagnosis.size_matched import HISTORY_BANDS, group_gaps

N = 6_000


def made(seed: int = 0):
    """Requests of three groups: the second has short histories, the third more new titles."""
    generator = np.random.default_rng(seed)
    groups = generator.choice(3, N, p=[0.6, 0.2, 0.2])
    history = np.where(groups == 1, generator.integers(0, 5, N), generator.integers(0, 100, N))
    new = (generator.random(N) < np.where(groups == 2, 0.5, 0.1)).astype(float)
    return generator, groups.astype(np.int64), np.arange(N) // 2, history.astype(np.int64), new


def test_a_group_of_short_histories_has_no_gap_where_history_alone_decides():
    generator, groups, members, history, new = made()
    metric = 0.1 + 0.004 * np.minimum(history, 60) + generator.normal(0, 0.01, N)
    own = group_gaps(metric, groups, members, history, {"new": new}, draws=100)[1]
    assert metric[groups == 1].mean() < metric[groups != 1].mean() - 0.1
    assert own.gap.includes_zero or abs(own.gap.value) < 0.003
    assert own.size_effect < -0.1


def test_a_gap_is_taken_apart_into_what_requests_are_like_and_the_rest():
    generator, groups, members, history, new = made()
    metric = 0.5 - 0.2 * new - 0.1 * (groups == 2) + generator.normal(0, 0.05, N)
    first, _, own = group_gaps(metric, groups, members, history, {"new": new}, draws=100)
    assert own.gap.value == pytest.approx(-0.18, abs=0.02)
    assert own.parts["new"].value == pytest.approx(-0.08, abs=0.01)
    assert own.unexplained.low <= -0.1 <= own.unexplained.high
    assert own.parts["new"].value + own.unexplained.value == pytest.approx(own.gap.value)
    assert own.p < 0.05
    assert first.gap.value > 0.0


def test_parts_are_those_of_a_regression_with_a_level_for_every_band():
    generator, groups, members, history, new = made(1)
    other = generator.normal(0, 1, N) + 0.5 * new + 0.01 * history
    metric = generator.random(N) + 0.3 * new - 0.2 * other + 0.001 * history
    own = group_gaps(metric, groups, members, history, {"new": new, "other": other}, draws=2)[2]
    bands = np.searchsorted(HISTORY_BANDS, history, side="right")
    levels = (bands[:, None] == np.unique(bands)).astype(float)
    rest = groups != 2
    fit = np.linalg.lstsq(np.column_stack([new, other, levels])[rest], metric[rest], rcond=None)[0]
    for place, (name, values) in enumerate({"new": new, "other": other}.items()):
        expected = np.average([values[rest & (bands == band)].mean() for band in bands[groups == 2]])
        wanted = fit[place] * (values[groups == 2].mean() - expected)
        assert own.parts[name].value == pytest.approx(wanted, abs=2e-3)


def test_a_band_that_only_one_group_has_and_a_fact_that_never_varies_are_no_mistake():
    metric, groups = np.arange(8.0), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    history = np.array([5, 5, 5, 5, 0, 0, 0, 0])
    own = group_gaps(metric, groups, np.arange(8), history, {"none": np.zeros(8)}, draws=5)[1]
    assert own.expected == pytest.approx(1.5)
    assert own.parts["none"].value == 0.0


def test_a_few_members_who_all_missed_are_no_gap_where_few_hit():
    """The bootstrap alone is sure of ten zeros; among members of whom one in eight hits they are no surprise."""
    generator = np.random.default_rng(3)
    groups = (np.arange(1_010) >= 1_000).astype(np.int64)
    metric = np.where(groups == 1, 0.0, generator.random(1_010) < 0.12)
    few = group_gaps(metric, groups, np.arange(1_010), np.full(1_010, 9), {}, draws=400)[1]
    assert few.gap.high < 0.0
    assert few.p > 0.2
    groups = (np.arange(1_100) >= 1_000).astype(np.int64)
    metric = np.where(groups == 1, 0.0, generator.random(1_100) < 0.12)
    assert group_gaps(metric, groups, np.arange(1_100), np.full(1_100, 9), {}, draws=400)[1].p < 0.05


def test_one_group_is_compared_with_nothing():
    with pytest.raises(ValueError, match="at least two"):
        group_gaps(np.ones(3), np.zeros(3, np.int64), np.arange(3), np.arange(3), {})
