"""Off-policy estimators for slates: what a whole list is worth under another policy, per slate.

Axis letters: S slates, K places. rho_k = target / logged at place k, both given the places before, so the product of
rho_1 .. rho_k is the exact weight of the first k places. A slate's value is the sum of its places' rewards.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from playbill.errors import DataError, Problem
from playbill.evaluation.off_policy.terms import Chain, OffPolicyData, Terms
from playbill.metrics.ranking import Values
from playbill.metrics.topk import Indices, Mask


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
    ratio: Values
    above: Values
    product: Values
    reward: Values
    predicted: Values
    expected: Values
    members: Indices


def _grid(data: OffPolicyData) -> _Grid:
    _, slate = np.unique(data.slates, return_inverse=True)
    size, places = int(slate.max(initial=-1)) + 1, int(data.positions.max(initial=-1)) + 1
    _check_places(data, slate, size)
    filled = np.zeros((size, places), dtype=np.bool_)
    filled[slate, data.positions] = True

    def laid_out(values: Values | None, empty: float = 0.0) -> Values:
        out = np.full((size, places), empty)
        if values is not None:
            out[slate, data.positions] = values
        return out

    members = np.zeros(size, dtype=np.int64)
    members[slate] = data.members
    product: Values = np.cumprod(laid_out(data.weights, 1.0), axis=1).astype(np.float64)
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


def _terms(grid: _Grid, values: Values, normaliser: Values | None, weights: Values) -> Terms:
    size, places = values.shape
    filled = grid.filled.astype(np.float64)
    carried = np.abs(grid.reward).sum(axis=0)
    importance = carried / carried.sum() if carried.sum() > 0.0 else filled.sum(axis=0) / filled.sum()
    # Without a normaliser it is one plain mean over slates: a place that is not there adds nothing.
    below = np.ones((size, places)) if normaliser is None else normaliser
    return Terms(values, below, np.ones(places), grid.members, weights, importance, by_slate=True)


def _before(grid: _Grid) -> Values:
    """[S, K] product of the ratios above each place; 1 at the first."""
    before: Values = np.concatenate([np.ones((grid.above.shape[0], 1)), grid.above[:, :-1]], axis=1)
    return before
