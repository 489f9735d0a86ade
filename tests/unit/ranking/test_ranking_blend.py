from __future__ import annotations

import numpy as np
import pytest

from playbill.errors import UnknownNameError
from playbill.ranking.blend import AS_IT_IS, blend, blend_rows, log_probabilities

LOSSES = {"play": "softmax", "thumb": "bce"}
ALL = np.ones(3, dtype=np.bool_)


def test_softmax_logits_become_log_probabilities_over_the_candidates_alone() -> None:
    candidates = np.array([True, True, False])
    values = log_probabilities(np.array([1.0, 1.0, 50.0], dtype=np.float32), "softmax", candidates)
    assert np.exp(values).tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_binary_logits_are_judged_one_title_at_a_time() -> None:
    values = log_probabilities(np.array([0.0, 100.0, -100.0]), "bce", ALL)
    assert values == pytest.approx([np.log(0.5), 0.0, -100.0])


def test_a_constant_on_a_softmax_head_changes_nothing() -> None:
    logits = {"play": np.array([0.3, -1.0, 2.0]), "thumb": np.array([1.0, 2.0, -3.0])}
    shifted = {**logits, "play": logits["play"] + 1000.0}
    weights = {"play": 1.0, "thumb": 0.3}
    assert blend(logits, LOSSES, weights, ALL) == pytest.approx(blend(shifted, LOSSES, weights, ALL))


def test_weights_multiply_log_probabilities_and_negative_ones_push_down() -> None:
    logits = {"play": np.zeros(3), "thumb": np.array([4.0, 0.0, -4.0])}
    assert np.argsort(-blend(logits, LOSSES, {"play": 1.0, "thumb": 0.5}, ALL)).tolist() == [0, 1, 2]
    assert np.argsort(-blend(logits, LOSSES, {"play": 1.0, "thumb": -0.5}, ALL)).tolist() == [2, 1, 0]


def test_what_is_no_candidate_scores_minus_infinity_even_with_a_negative_weight() -> None:
    candidates = np.array([False, True, True])
    scores = blend({"thumb": np.array([9.0, 1.0, 0.0])}, LOSSES, {"thumb": -1.0}, candidates)
    assert scores[0] == -np.inf
    assert np.isfinite(scores[1:]).all()


def test_no_candidates_at_all_is_no_error() -> None:
    assert (blend({"play": np.zeros(3)}, LOSSES, {"play": 1.0}, ~ALL) == -np.inf).all()


def test_an_unknown_head_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'thumb'"):
        blend({"play": np.zeros(3), "thumb": np.zeros(3)}, LOSSES, {"thumbs": 1.0}, ALL)


def test_similarity_enters_as_it_is() -> None:
    logits = {"play": np.array([0.0, 0.0]), "similarity": np.array([0.25, -0.5])}
    losses = {"play": "softmax", "similarity": AS_IT_IS}
    scores = blend(logits, losses, {"play": 1.0, "similarity": 4.0}, np.array([True, True]))
    np.testing.assert_allclose(scores, np.log(0.5) + np.array([1.0, -2.0]))


def test_many_requests_at_once_are_scored_as_one_by_one(monkeypatch):
    monkeypatch.setattr("playbill.ranking.blend.CELLS_AT_ONCE", 150)  # Three requests at a time.
    draw = np.random.default_rng(3)
    losses = {"play": "softmax", "sampled": "sampled_softmax", "thumb": "bce", "similarity": AS_IT_IS}
    logits = {head: draw.normal(0, 9, (20, 50)).astype(np.float32) for head in losses}
    weights = {"play": 1.0, "sampled": 0.3, "thumb": -0.5, "similarity": 4.0}
    everything = np.ones(50, bool)
    plain = [
        blend({head: values[row] for head, values in logits.items()}, losses, weights, everything) for row in range(20)
    ]
    np.testing.assert_allclose(blend_rows(logits, losses, weights), plain, rtol=1e-12)


def test_many_requests_name_the_nearest_head_too():
    with pytest.raises(UnknownNameError, match="Did you mean 'thumb'"):
        blend_rows({"thumb": np.zeros((2, 3))}, LOSSES, {"thumbs": 1.0})
    with pytest.raises(ValueError, match="nothing to blend"):
        blend_rows({}, {}, {})
