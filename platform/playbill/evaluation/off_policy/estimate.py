"""An off-policy estimate one can rely on: checked rows, enough of them, overlap of the policies, and an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from playbill.arrays import Floats64, Indices
from playbill.definitions.specs.measures import ESTIMATORS
from playbill.errors import DataError, EffectiveSampleError, OverlapError, Problem
from playbill.evaluation.off_policy.terms import ROUNDING, Chain, OffPolicyData, Terms
from playbill.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES, Interval, MemberBootstrap

DEFAULT_FLOOR = 100.0  # effective rows (or slates) under which no estimate is given

DEFAULT_COVERAGE = 0.8  # share of the target policy that a log must have tried

_SURE = 4.0  # standard errors by which a mean weight must lie outside before it is held against a log
_HIGHEST = 1.01  # mean weight that rounded propensities may have

IntervalKind = Literal["bootstrap", "normal"]


@dataclass(frozen=True)
class Rules:
    """How estimates are judged."""

    floor: float = DEFAULT_FLOOR  # smallest effective sample size; 0 = never refuse (for studies only)
    # smallest share of the target policy's probability on what the log could show; 0 = never refuse, and never doubt
    # the propensities (for studies only)
    coverage: float = DEFAULT_COVERAGE
    # `bootstrap` draws members (percentile interval); `normal` is the delta method with members as clusters and
    # Student's t, which costs nothing and is what repeated studies use
    interval: IntervalKind = "bootstrap"
    level: float = DEFAULT_LEVEL  # share of intervals that hold the truth
    resamples: int = DEFAULT_RESAMPLES  # draws of the bootstrap
    seed: int = 0  # seed of the draws


@dataclass(frozen=True)
class Estimate:
    """The value of a target policy as estimated from another policy's log."""

    estimator: str
    value: float  # mean reward per row, or per slate for the slate estimators
    low: float
    high: float
    level: float
    effective_sample_size: float  # units the weighted log is worth (Kish)
    weight_max: float  # largest importance weight in use
    weight_mean: float  # mean importance weight; near 1 when the log supports the policy and the propensities are right
    # Share of the target policy's probability on titles the logging policy could show. Exact where
    # `OffPolicyData.supported` is given, else the mean weight, at most 1.
    coverage: float
    n: int  # rows or slates
    members: int  # members behind them
    immature: int = field(default=0)  # rows dropped because their reward was not mature
    left_out: float = 0.0  # share of the target policy's weight that a threshold took out of the log's hands
    threshold: float | None = None  # largest weight taken as it is, where the estimator has one

    @property
    def interval(self) -> Interval:
        """The value with its ends."""
        return Interval(self.value, self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def estimate(
    estimator: str,
    data: OffPolicyData,
    *,
    options: Mapping[str, Any] | None = None,
    rules: Rules | None = None,
    against_logged: bool = False,
) -> Estimate:
    """Estimate a target policy's value from a log.

    `options` are the estimator's own, such as `{"threshold": 10}`. With `against_logged` it is the *difference* to what
    the logging policy earned on the same units; both are drawn together, so the interval is of the paired difference.

    Raises:
        UnknownNameError: No such estimator.
        DataError: Rows that cannot be used, every kind of mistake with its count and first row; or propensities that
            cannot be those of this log, since the weights' mean is above 1.
        EffectiveSampleError: The weighted log is worth less than the floor; says how much data is missing.
        OverlapError: The log tried too little of what the target policy shows.
    """
    judged = rules or Rules()
    terms = _terms(estimator, data, options or {})
    if against_logged:
        terms = _minus_logged(terms, data)
    effective = terms.effective_sample_size
    largest = float(terms.weights[:, terms.importance > 0.0].max(initial=0.0))
    coverage = _covered(estimator, data, judged, effective)
    if effective < judged.floor:
        unit = "slate" if terms.by_slate else "row"
        raise EffectiveSampleError(estimator, effective, judged.floor, terms.members.size, largest, unit)
    low, high = _ends(terms, judged)
    return Estimate(
        estimator=estimator,
        value=_value(terms),
        low=low,
        high=high,
        level=judged.level,
        effective_sample_size=effective,
        weight_max=largest,
        weight_mean=float(data.weights.mean()),
        coverage=coverage,
        n=int(terms.members.size),
        members=int(np.unique(terms.members).size),
        immature=data.immature,
        left_out=terms.left_out,
        threshold=terms.threshold,
    )


def _terms(estimator: str, data: OffPolicyData, options: Mapping[str, Any]) -> Terms:
    plugin = ESTIMATORS[estimator]
    spec = plugin.load_options()
    if spec is None and options:
        raise TypeError(f"estimator '{estimator}' takes no options, got {sorted(options)}")
    data.check()
    found: Terms = plugin.load()(data, None if spec is None else spec.model_validate(options))
    return found


def _covered(estimator: str, data: OffPolicyData, rules: Rules, effective: float) -> float:
    """Return the share of the target policy that the log tried.

    Given the places above, weights average that share: 1 under full overlap, and never more. A mean surely under the
    least share, or surely above 1, is no accident; a mean of too few effective rows is never sure. Source: the
    diagnostics of Swaminathan and Joachims, NeurIPS 2015.
    """
    mean = float(data.weights.mean())
    error = _error(data.members, data.weights - mean)
    if rules.coverage > 0.0 and mean - _SURE * error > _HIGHEST:
        what = f"the weights average {mean:.3f}, and cannot average more than 1 (standard error {error:.2g})."
        hint = "These are not the chances of this log: too small, or not given the places above."
        raise DataError("logged rows", [Problem("propensity", what, hint)])
    exact = None if data.supported is None else float(data.supported.mean())
    share, highest = (mean, mean + _SURE * error) if exact is None else (exact, exact)
    sure = exact is not None or _effective_rows(data.weights) >= rules.floor
    if sure and highest < rules.coverage - ROUNDING:
        raise OverlapError(estimator, share, min(1.0, highest), rules.coverage, effective)
    return min(1.0, share)


def _effective_rows(weights: Floats64) -> float:
    squares = float(np.sum(weights**2))
    return float(weights.sum()) ** 2 / squares if squares > 0.0 else 0.0


def _minus_logged(terms: Terms, data: OffPolicyData) -> Terms:
    """Put a column in front that takes away the mean logged reward of the same units; everyone reaches it."""
    units = terms.members.size
    earned = data.reward
    if terms.by_slate:
        slate = np.unique(data.slates, return_inverse=True)[1]
        earned = np.bincount(slate, weights=data.reward, minlength=units).astype(np.float64)
    one = np.ones((units, 1))
    chain = terms.chain
    return terms._replace(
        numerators=np.concatenate([earned[:, None], terms.numerators], axis=1),
        denominators=np.concatenate([one, terms.denominators], axis=1),
        scale=np.append(-1.0, terms.scale),
        weights=np.concatenate([one, terms.weights], axis=1),
        importance=np.append(0.0, terms.importance),
        chain=None if chain is None else Chain(*(np.concatenate([one, values], axis=1) for values in chain)),
    )


def _value(terms: Terms) -> float:
    return float(terms.of_sums(terms.sums().sum(axis=0)[None])[0])


def _ends(terms: Terms, rules: Rules) -> tuple[float, float]:
    if rules.interval == "normal":
        return _normal(terms, rules.level)
    members = np.unique(terms.members, return_inverse=True)[1].astype(np.int64)
    bootstrap = MemberBootstrap(members, rules.resamples, rules.seed, rules.level)
    drawn = terms.of_sums(bootstrap.totals(terms.sums()))
    tail = (1.0 - rules.level) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return float(low), float(high)


def _normal(terms: Terms, level: float) -> tuple[float, float]:
    """Delta method: the influence of each unit, added up by member."""
    error = _error(terms.members, terms.influence())
    if not np.isfinite(error):
        return float("-inf"), float("inf")
    from scipy.special import stdtrit  # takes a third of a second, and serving needs other metrics of this room

    half = float(stdtrit(np.unique(terms.members).size - 1, 0.5 + level / 2.0)) * error
    value = _value(terms)
    return value - half, value + half


def _error(members: Indices, centred: Floats64) -> float:
    """Standard error of a mean of values that average 0, with members as clusters; infinite for a single member."""
    by_member = np.bincount(np.unique(members, return_inverse=True)[1], weights=centred)
    count = by_member.size
    if count < 2:
        return float("inf")
    return float(np.sqrt(count / (count - 1) * np.sum(by_member**2))) / centred.size
