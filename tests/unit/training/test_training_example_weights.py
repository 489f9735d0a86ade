"""Loss weights: the sign is the label, the magnitude is the weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.errors import DataError
from playbill.training.example_weights import loss_weights

NAN = float("nan")


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_a_ranking_loss_weighs_positives_by_their_reward(loss: str) -> None:
    labels, weights = loss_weights(floats(3.0, 1.0, -2.0, 5.0, 0.0), floats(1.0, 1.0, 1.0, 0.0, NAN), loss)
    np.testing.assert_array_equal(labels, floats(1.0, 1.0, 1.0, 0.0, NAN))
    np.testing.assert_allclose(weights, [1.5, 0.5, 0.0, 0.0, 0.0])


def test_the_binary_loss_takes_sign_and_magnitude() -> None:
    values = floats(2.0, -1.0, -0.5, 0.5, 0.0, NAN)
    labels, weights = loss_weights(values, floats(1.0, 1.0, 0.0, 0.0, 1.0, NAN), "bce")
    np.testing.assert_array_equal(labels, floats(1.0, 0.0, 0.0, 0.0, 1.0, NAN))
    np.testing.assert_allclose(weights, [2.0, 1.0, 0.5, 0.5, 0.0, 0.0])


@given(
    rows=st.lists(st.tuples(st.floats(-3, 3, width=32), st.sampled_from([0.0, 1.0, NAN])), min_size=1, max_size=40),
    loss=st.sampled_from(["softmax", "bce"]),
)
def test_weights_of_what_teaches_have_mean_one(rows: list[tuple[float, float]], loss: str) -> None:
    values, given_labels = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    try:
        labels, weights = loss_weights(values, given_labels, loss)
    except DataError:
        positive = given_labels == 1 if loss == "softmax" else np.isfinite(given_labels)
        assert not (positive & (values > 0 if loss == "softmax" else values != 0)).any()
        return
    assert (weights >= 0).all()
    assert not weights[np.isnan(labels)].any()
    if weights.any():
        assert weights[weights > 0].mean() == pytest.approx(1.0, rel=1e-4)
    assert np.array_equal(np.isnan(labels), np.isnan(given_labels))
    if loss == "bce":
        texts = ~np.isnan(labels)
        assert (labels[texts] <= given_labels[texts]).all()


@pytest.mark.parametrize(
    ("values", "labels", "loss", "expected"),
    [
        (floats(NAN, 1.0), floats(1.0, 1.0), "softmax", "1 of 2 labelled examples have no reward"),
        (floats(-1.0), floats(1.0), "softmax", "gives a 'softmax' loss no weight"),
        (floats(1.0), floats(1.0), "hinge", "'hinge' has no rule for rewards. Known: .*softmax"),
        (floats(1.0), floats(1.0, 1.0), "bce", r"are \(1,\), labels \(2,\)"),
    ],
)
def test_rewards_that_cannot_be_weights_are_refused(
    values: np.ndarray, labels: np.ndarray, loss: str, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        loss_weights(values, labels, loss)
