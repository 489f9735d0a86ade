"""Off-policy estimators over single rows: what one shown title is worth under another policy, per row.

Axis letter: n logged rows. w = target probability / propensity, r = reward, q = direct model of the shown title, and
qbar = sum_a pi(a) q(a) its mean under the target policy. Each is called through the registry `ESTIMATORS` by
`estimate`, which checks the rows, holds the floor of the effective sample size and adds the interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from playbill.definitions.specs.plugins import ThresholdOptions
from playbill.evaluation.off_policy.terms import OffPolicyData, Terms, one_column
from playbill.metrics.ranking import Values

_TRIED = 25
"""Thresholds that are tried, at quantiles of the weights."""


def direct(data: OffPolicyData, options: None = None) -> Terms:
    """Direct method: mean of qbar. It reads no weight, and is as wrong as the model; a yardstick, not an estimate.

    Source: Dudík, Langford and Li, "Doubly robust policy evaluation and learning", ICML 2011.
    """
    _, expected = _model(data)
    return one_column(data, expected, None, np.ones(len(data)))


def ips(data: OffPolicyData, options: None = None) -> Terms:
    """Inverse propensity score: mean of w r.

    Unbiased where the log supports the target policy; the variance grows with the second moment of w. Source: Horvitz
    and Thompson, JASA 1952; for policies: Li, Chu, Langford and Wang, WSDM 2011.
    """
    weights = data.weights
    return one_column(data, weights * data.reward, None, weights)


def clipped_ips(data: OffPolicyData, options: ThresholdOptions | None = None) -> Terms:
    """Clipped IPS: mean of min(w, c) r.

    Low for positive rewards by E[(w - c)+ r]; steadier. Without a given threshold c is the one with the least
    estimated squared error: variance / n + bias^2, the bias taken as the clipped share of all weight times the reward
    of the clipped rows, or of all rows if that is higher. Source: Ionides, "Truncated importance
    sampling", JCGS 2008; Bottou et al., "Counterfactual reasoning and learning systems", JMLR 2013.
    """
    weights, rate = data.weights, float(np.mean(np.abs(data.reward)))

    def at(cut: float) -> _Cut:
        kept = np.minimum(weights, cut)
        over = weights - kept
        share = max(rate * _share(over, weights), _share(over * np.abs(data.reward), weights))
        return _Cut(kept * data.reward, share)

    cut = _threshold(weights, options, at)
    kept = np.minimum(weights, cut)
    terms = one_column(data, kept * data.reward, None, kept)
    return terms._replace(left_out=_share(weights - kept, weights), threshold=cut)


def snips(data: OffPolicyData, options: None = None) -> Terms:
    """Self-normalised IPS: sum of w r / sum of w.

    Biased by O(1/n), in exchange invariant to adding a constant to every reward, inside the range of the rewards, and
    of a lower variance when rewards do not average zero. Source: Swaminathan and Joachims, "The self-normalized
    estimator for counterfactual learning", NeurIPS 2015.
    """
    weights = data.weights
    return one_column(data, weights * data.reward, weights, weights)


def doubly_robust(data: OffPolicyData, options: None = None) -> Terms:
    """Doubly robust: mean of qbar + w (r - q).

    Unbiased when the propensities are right, whatever the model, if the model is fitted on other rows; the better the
    model, the lower the variance. Source: Dudík, Langford and Li, ICML 2011.
    """
    predicted, expected = _model(data)
    weights = data.weights
    return one_column(data, expected + weights * (data.reward - predicted), None, weights)


def self_normalised_dr(data: OffPolicyData, options: None = None) -> Terms:
    """Doubly robust with self-normalised residuals: mean of qbar + sum of w (r - q) / sum of w.

    Source: Thomas and Brunskill, "Data-efficient off-policy policy evaluation", ICML 2016 (weighted doubly robust).
    """
    predicted, expected = _model(data)
    weights, one = data.weights, np.ones(len(data))
    return Terms(
        np.stack([expected, weights * (data.reward - predicted)], axis=1),
        np.stack([one, weights], axis=1),
        np.ones(2),
        data.members,
        np.stack([one, weights], axis=1),
        np.array([0.0, 1.0]),
    )


def switch_dr(data: OffPolicyData, options: ThresholdOptions | None = None) -> Terms:
    """Switch-DR: doubly robust where w <= t, the direct model alone where w > t: mean of qbar + w 1[w <= t] (r - q).

    Without a given threshold t is the one with the least estimated squared error, as in section 4 of the paper, with
    the mean absolute residual as the model's error. Source: Wang, Agarwal and Dudík, "Optimal and adaptive off-policy
    evaluation in contextual bandits", ICML 2017.
    """
    predicted, expected = _model(data)
    weights, residual = data.weights, data.reward - predicted
    error = float(np.mean(np.abs(residual)))

    def at(cut: float) -> _Cut:
        kept = np.where(weights <= cut, weights, 0.0)
        return _Cut(expected + kept * residual, error * _share(weights - kept, weights))

    cut = _threshold(weights, options, at)
    kept = np.where(weights <= cut, weights, 0.0)
    terms = one_column(data, expected + kept * residual, None, kept)
    return terms._replace(left_out=_share(weights - kept, weights), threshold=cut)


class _Cut(NamedTuple):
    values: Values
    bias: float


def _threshold(weights: Values, options: ThresholdOptions | None, at: Callable[[float], _Cut]) -> float:
    """Return the given threshold, or the tried one with the least variance / n + bias^2."""
    if options is not None and options.threshold is not None:
        return options.threshold
    positive = weights[weights > 0.0]
    if positive.size == 0:
        return 1.0
    tried = np.unique(np.quantile(positive, 1.0 - np.geomspace(1.0 / positive.size, 0.5, _TRIED - 1)))
    tried = np.append(tried, positive.max())
    cuts = [at(float(cut)) for cut in tried]
    errors = [cut.values.var() / weights.size + cut.bias**2 for cut in cuts]
    return float(tried[int(np.argmin(errors))])


def _share(part: Values, whole: Values) -> float:
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0.0 else 0.0


def _model(data: OffPolicyData) -> tuple[Values, Values]:
    data.check(direct=True)
    assert data.predicted is not None
    assert data.expected is not None
    return data.predicted, data.expected
