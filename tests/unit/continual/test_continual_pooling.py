"""What gains of small groups are worth: alone their own, together drawn to each other, and never taken on a whim."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from playbill.continual.pooling import choose, pooled

SIZES = np.array([56.0] * 9 + [1.0])  # as errors of .004 and .03 tell
GAINS = st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=12)


def test_a_group_alone_is_worth_what_was_measured() -> None:
    found, errors = pooled(np.array([0.03]), np.array([0.01]))
    assert (found.tolist(), errors.tolist()) == ([0.03], [0.01])


@given(GAINS, st.floats(0.001, 0.1))
def test_groups_are_drawn_towards_each_other_and_get_surer(gains: list[float], error: float) -> None:
    means, errors = np.array(gains), np.full(len(gains), error)
    found, sure = pooled(means, errors)
    assert found.min() >= means.min() - 1e-12
    assert found.max() <= means.max() + 1e-12
    assert (np.diff(found[np.argsort(means, kind="stable")]) >= -1e-12).all(), "their order stays"
    assert (sure <= errors + 1e-12).all()
    assert np.isclose(found.mean(), means.mean())


def test_groups_that_differ_by_no_more_than_chance_are_taken_for_one() -> None:
    rng = np.random.default_rng(1)
    errors = np.array([0.002, 0.01, 0.05, 0.05, 0.05])
    found, sure = pooled(0.02 + rng.normal(size=5) * errors * 0.5, errors)
    assert np.ptp(found) < 1e-9
    assert (sure < 0.0021).all()


def test_a_large_group_that_is_surely_different_stays_itself() -> None:
    found, _ = pooled(np.array([0.05, 0.0, 0.001, -0.001]), np.full(4, 0.002))
    assert abs(found[0] - 0.05) < 0.002


def test_what_is_best_for_all_together_is_taken_by_each_that_is_likely_to_gain() -> None:
    means = np.array([[0.001, 0.019, 0.020, 0.015], [0.0, 0.01, 0.02, 0.01], [0.0, -0.02, -0.05, -0.06]])
    errors = np.repeat([[0.005], [0.02], [0.008]], 4, axis=1)
    chosen, gains, _ = choose(means, errors, np.array([90, 5, 5]))
    assert chosen.tolist() == [1, 1, -1], "the second is not significant by itself, the third is behind"
    assert gains[2, 1] < 0


def test_a_group_that_is_ahead_by_itself_takes_the_first_within_one_standard_error_of_its_best() -> None:
    means = np.array([[0.001, 0.039, 0.040, 0.035], *np.full((4, 4), -0.01)])
    errors = np.full((5, 4), 0.005)
    chosen, _, _ = choose(means, errors, np.array([10, 90, 90, 90, 90]))
    assert chosen.tolist() == [1, -1, -1, -1, -1]


def test_nothing_is_chosen_that_is_not_ahead_beyond_doubt() -> None:
    chosen, _, _ = choose(np.array([[0.01, 0.02, 0.03]]), np.full((1, 3), 0.02), np.ones(1))
    assert chosen.tolist() == [-1]
    chosen, _, _ = choose(np.array([[-0.01, -0.02], [0.0, 0.0]]), np.full((2, 2), 0.001), np.ones(2))
    assert chosen.tolist() == [-1, -1]


def test_a_small_group_follows_many_that_gain_and_not_a_chance_of_its_own() -> None:
    many = np.full((9, 1), 0.02)
    errors = np.full((10, 1), 0.004)
    errors[9] = 0.03
    assert choose(np.vstack([many, [[0.01]]]), errors, SIZES)[0].tolist() == [0] * 10
    alone = np.vstack([np.zeros((9, 1)), [[0.05]]])
    assert choose(alone, errors, SIZES)[0].tolist() == [-1] * 10


def test_under_no_gain_hardly_anything_is_chosen() -> None:
    rng = np.random.default_rng(3)
    kept = 0
    for _ in range(200):
        errors = np.repeat(rng.uniform(0.005, 0.03, size=(10, 1)), 4, axis=1)
        noise = rng.normal(size=(10, 1)) + 0.3 * rng.normal(size=(10, 4))
        kept += int((choose(noise / 1.05 * errors, errors, 1.0 / errors[:, 0] ** 2)[0] >= 0).sum())
    assert kept < 0.06 * 2000
