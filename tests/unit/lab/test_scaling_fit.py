"""The law of scaling that the benchmark fits: known laws come back, and what the data does not fix is said."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scaling_fit import Law, fitted, law

SIZES = np.array([3_600, 9_000, 24_000, 70_000, 120_000, 420_000])


@pytest.mark.parametrize(("p0", "a", "b"), [(0.31, 4.0, 0.4), (0.2, 50.0, 0.75), (1.0, 1.4, 0.05)])
def test_a_known_law_comes_back(p0, a, b):
    found = Law.fit(SIZES, law(SIZES.astype(float), p0, a, b))
    assert found.at(SIZES) == pytest.approx(law(SIZES.astype(float), p0, a, b), abs=1e-4)
    assert (found.p0, found.b) == pytest.approx((p0, b), rel=0.05, abs=0.01)


def drawn(p0, a, b, noise, draws=60):
    truth = law(SIZES.astype(float), p0, a, b)
    return truth, truth + np.random.default_rng(0).normal(0, noise, (draws, len(SIZES)))


def test_a_ceiling_that_the_sizes_come_near_to_is_identified_and_the_largest_is_predicted():
    truth, rows = drawn(0.31, 40.0, 0.7, 5e-4)
    found = fitted(SIZES, truth, rows)
    assert found["p0_identified"]
    assert found["p0_interval"][0] < 0.31 < found["p0_interval"][1]
    assert found["predicted_largest"] == pytest.approx(truth[-1], rel=1e-3)
    assert found["prediction_error_interval"][0] < 0 < found["prediction_error_interval"][1]
    assert np.abs(found["residuals"]).max() < 1e-4


def test_a_ceiling_far_above_what_was_measured_is_not_identified():
    truth, rows = drawn(1.0, 1.05, 0.02, 3e-3)
    assert not fitted(SIZES, truth, rows)["p0_identified"]


def test_three_numbers_need_three_sizes():
    with pytest.raises(ValueError, match="needs three sizes, got 2"):
        Law.fit(SIZES[:2], [0.1, 0.2])
