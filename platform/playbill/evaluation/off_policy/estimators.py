"""Off-policy estimators: what a policy would earn, per logged row or per logged slate.

Rows: axis letter n logged rows. w = target probability / propensity, r = reward, q = direct model of the shown title,
and qbar = sum_a pi(a) q(a) its mean under the target policy. Slates: S slates, K places; rho_k = target / logged at
place k, both given the places before, so the product of rho_1 .. rho_k is the exact weight of the first k places. A
slate's value is the sum of its places' rewards.
Each is called through the registry `ESTIMATORS` by `estimate`, which checks the rows, holds the floor of the effective
sample size and adds the interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from playbill.arrays import Floats64, Indices, Mask
from playbill.definitions.specs.measures import ThresholdOptions
from playbill.errors import DataError, Problem
from playbill.evaluation.off_policy.terms import Chain, OffPolicyData, Terms, one_column

_TRIED = 25  # thresholds that are tried, at quantiles of the weights


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
    values: Floats64
    bias: float


def _threshold(weights: Floats64, options: ThresholdOptions | None, at: Callable[[float], _Cut]) -> float:
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


def _share(part: Floats64, whole: Floats64) -> float:
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0.0 else 0.0


def _model(data: OffPolicyData) -> tuple[Floats64, Floats64]:
    data.check(direct=True)
    assert data.predicted is not None
    assert data.expected is not None
    return data.predicted, data.expected


def independent(data: OffPolicyData, options: None = None) -> Terms:
    """Position-wise IPS: mean over slates of sum_k rho_k r_k.

    Right only if a place's reward depends on its own title alone *and* rho_k is the ratio of the places' marginal
    probabilities; with conditional ones it is exact at the first place and an approximation below. Low variance.
    Source: Li et al., "Offline evaluation of ranking policies with click models", KDD 2018 (item-position model).
    """
    grid = _grid(data)
    return _terms(grid, grid.ratio * grid.reward, None, grid.ratio)


def reward_interaction(data: OffPolicyData, options: None = None) -> Terms:
    """Reward-interaction IPS (RIPS, the cascade): mean over slates of sum_k (prod_{j<=k} rho_j) r_k.

    Unbiased when a place's reward depends on its own title and the ones above, as for a reader from top to bottom;
    what stands below is not weighed, so it is far steadier than `slate_whole`. Source: McInerney, Brost, Chandar,
    Mehrotra and Carterette, "Counterfactual evaluation of slate recommendations with sequential reward interactions",
    KDD 2020.
    """
    grid = _grid(data)
    return _terms(grid, grid.above * grid.reward, None, grid.above)


def self_normalised(data: OffPolicyData, options: None = None) -> Terms:
    """RIPS with each place's weights normalised: sum_k reach_k (sum_s w_sk r_sk) / (sum_s w_sk), w the product to k.

    The normalised form of the same paper (nRIPS): a bias of O(1/S), a lower variance. Where members stop looking, a
    log ends at different places; then reach_k, the target policy's share of slates that get to place k, is the product
    of the normalised shares that go on from one place to the next, weighed by the places above.
    """
    grid = _grid(data)
    terms = _terms(grid, grid.above * grid.reward, grid.above, grid.above)
    if grid.filled.all():
        return terms
    one = np.ones((grid.filled.shape[0], 1))
    starts = np.concatenate([one, _before(grid)[:, 1:] * grid.filled[:, :-1]], axis=1)
    return terms._replace(chain=Chain(starts * grid.filled, starts))


def whole(data: OffPolicyData, options: None = None) -> Terms:
    """Whole-slate IPS: mean over slates of (prod_k rho_k) sum_k r_k.

    Needs no assumption about how places affect each other; its weights grow with every place, so it is for short
    slates. Source: Precup, Sutton and Singh, "Eligibility traces for off-policy policy evaluation", ICML 2000.
    """
    grid = _grid(data)
    product = np.where(grid.filled, grid.product[:, None], 0.0)
    return _terms(grid, product * grid.reward, None, product)


def cascade_dr(data: OffPolicyData, options: None = None) -> Terms:
    """Cascade doubly robust: mean over slates of sum_k w_k (r_k - q_k) + w_{k-1} qbar_k, w_0 = 1.

    q_k is the direct model at place k and qbar_k its mean under the target policy, both given the places above. The
    model only lowers the variance: the correction averages zero for any q_k. Source: Kiyohara, Saito, Matsuhiro,
    Narita, Shimizu and Yamamoto, "Doubly robust off-policy evaluation for ranking policies under the cascade behavior
    model", WSDM 2022, with the reward of the place itself as the model's target.
    """
    data.check(direct=True)
    grid = _grid(data)
    before = np.where(grid.filled, _before(grid), 0.0)
    values = grid.above * (grid.reward - grid.predicted) + before * grid.expected
    return _terms(grid, values, None, grid.above)


class _Grid(NamedTuple):
    """Rows as [S, K], empty places 0; `above`: product of the ratios down to a place, `product`: of all, [S]."""

    filled: Mask
    ratio: Floats64
    above: Floats64
    product: Floats64
    reward: Floats64
    predicted: Floats64
    expected: Floats64
    members: Indices


def _grid(data: OffPolicyData) -> _Grid:
    _, slate = np.unique(data.slates, return_inverse=True)
    size, places = int(slate.max(initial=-1)) + 1, int(data.positions.max(initial=-1)) + 1
    _check_places(data, slate, size)
    filled = np.zeros((size, places), dtype=np.bool_)
    filled[slate, data.positions] = True

    def laid_out(values: Floats64 | None, empty: float = 0.0) -> Floats64:
        out = np.full((size, places), empty)
        if values is not None:
            out[slate, data.positions] = values
        return out

    members = np.zeros(size, dtype=np.int64)
    members[slate] = data.members
    product: Floats64 = np.cumprod(laid_out(data.weights, 1.0), axis=1).astype(np.float64)
    return _Grid(
        filled,
        laid_out(data.weights),
        np.where(filled, product, 0.0),
        product[:, -1],
        laid_out(data.reward),
        laid_out(data.predicted),
        laid_out(data.expected),
        members,
    )


def _check_places(data: OffPolicyData, slate: Indices, size: int) -> None:
    """Refuse slates with gaps: the weight of a place is a product over every place above it."""
    problems = []
    if data.positions.min(initial=0) < 0:
        row = int((data.positions < 0).argmax())
        problems.append(Problem("position", f"row {row} holds a negative place; places count from 0"))
    else:
        last = np.zeros(size, dtype=np.int64)
        np.maximum.at(last, slate, data.positions)
        gaps = last + 1 != np.bincount(slate, minlength=size)
        if gaps.any():
            row = int(gaps[slate].argmax())
            problems.append(
                Problem(
                    "position",
                    f"{int(gaps.sum())} of {size} slates lack a place above their last one, the first with row {row}.",
                    "Log every place that was shown, or use an estimator over rows.",
                )
            )
    if problems:
        raise DataError("logged slates", problems)


def _terms(grid: _Grid, values: Floats64, normaliser: Floats64 | None, weights: Floats64) -> Terms:
    size, places = values.shape
    filled = grid.filled.astype(np.float64)
    carried = np.abs(grid.reward).sum(axis=0)
    importance = carried / carried.sum() if carried.sum() > 0.0 else filled.sum(axis=0) / filled.sum()
    # Without a normaliser it is one plain mean over slates: a place that is not there adds nothing.
    below = np.ones((size, places)) if normaliser is None else normaliser
    return Terms(values, below, np.ones(places), grid.members, weights, importance, by_slate=True)


def _before(grid: _Grid) -> Floats64:
    """[S, K] product of the ratios above each place; 1 at the first."""
    before: Floats64 = np.concatenate([np.ones((grid.above.shape[0], 1)), grid.above[:, :-1]], axis=1)
    return before
