"""AUC, log loss and calibration error against scikit-learn, plain loops and hand-worked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from playbill import metrics
from playbill.errors import DataError


def plain_ece(p: np.ndarray, y: np.ndarray, w: np.ndarray, bin_of: list[int]) -> float:
    total = 0.0
    for one in set(bin_of):
        rows = [i for i, b in enumerate(bin_of) if b == one]
        mass = sum(w[i] for i in rows)
        gap = abs(sum(w[i] * p[i] for i in rows) / mass - sum(w[i] * y[i] for i in rows) / mass)
        total += mass * gap
    return total / w.sum()


@st.composite
def predictions(draw):
    n = draw(st.integers(2, 30))
    p = draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=n, max_size=n))  # ties are the rule
    y = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    w = draw(st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=n, max_size=n))
    return np.array(p), np.array(y), np.array(w)


@given(predictions())
@settings(max_examples=150, deadline=None)
def test_equal_to_scikit_learn_with_ties_and_weights(case):
    p, y, w = case
    if 0 < y.sum() < y.size:
        assert metrics.auc(p, y) == pytest.approx(roc_auc_score(y, p))
        assert metrics.auc(p, y, w) == pytest.approx(roc_auc_score(y, p, sample_weight=w))
    else:
        assert np.isnan(metrics.auc(p, y))
    kept = p.clip(1e-15, 1 - 1e-15)
    assert metrics.log_loss(p, y, w) == pytest.approx(log_loss(y, kept, sample_weight=w, labels=[0, 1]))


@given(predictions(), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_calibration_error_equals_plain_loops(case, bins):
    p, y, w = case
    wide = [min(int(v * bins), bins - 1) for v in p]
    assert metrics.ece(p, y, bins=bins, binning="equal_width", weights=w) == pytest.approx(plain_ece(p, y, w, wide))
    ordered = sorted(p)
    cuts = sorted({ordered[max(0, -(-i * len(p) // bins) - 1)] for i in range(1, bins)})
    mass = [sum(v > c for c in cuts) for v in p]
    table = metrics.reliability(p, y, bins=bins, weights=w)
    assert table.ece == pytest.approx(plain_ece(p, y, w, mass))
    assert table.weight.sum() == pytest.approx(w.sum())
    assert (table.low[1:] > table.high[:-1]).all()  # equal predictions share a bin


def test_equal_mass_fills_bins_where_equal_width_sees_one():
    generator = np.random.default_rng(3)
    p = generator.beta(1, 100, size=20_000)
    y = generator.random(20_000) < p.mean()  # right on average, blind otherwise; all but a few below 0.1
    assert metrics.ece(p, y, bins=10, binning="equal_width") < 0.1 * p.mean()
    assert metrics.ece(p, y, bins=10) > 0.5 * p.mean()
    assert metrics.reliability(p, y, bins=10).rows.tolist() == [2000] * 10


def test_calibrated_predictions_have_little_error_and_rows_for_json():
    generator = np.random.default_rng(0)
    p = generator.random(50_000)
    table = metrics.reliability(p, generator.random(50_000) < p, bins=10)
    assert table.ece < 0.01
    first = table.to_rows()[0]
    assert first["rows"] == 5000
    assert first["predicted"] == pytest.approx(0.05, abs=0.005)


def test_every_unusable_column_is_reported_with_count_and_first_row():
    with pytest.raises(DataError) as error:
        metrics.log_loss(np.array([0.1, 1.5, np.nan]), np.array([0, 2, 1]), np.array([1.0, -1.0, 1.0]))
    text = str(error.value)
    assert "scores: 1 of 3 no number, the first in row 2" in text
    assert "labels: 1 of 3 neither 0 nor 1, the first in row 1" in text
    assert "weights: 1 of 3" in text
    assert "probabilities: 1 of 3 outside [0, 1], the first in row 1" in text
    with pytest.raises(DataError, match="nothing to measure"):
        metrics.ece(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="alike"):
        metrics.auc(np.zeros(2), np.zeros(3))
