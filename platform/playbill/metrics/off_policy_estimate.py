"""An off-policy estimate one can rely on: checked rows, a floor under the effective sample size, and an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from playbill.errors import EffectiveSampleError
from playbill.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES, MemberBootstrap
from playbill.metrics.off_policy import Chain, OffPolicyData, Terms
from playbill.specs.plugins import ESTIMATORS

DEFAULT_FLOOR = 100.0
"""Effective rows (or slates) under which no estimate is given."""

IntervalKind = Literal["bootstrap", "normal"]


@dataclass(frozen=True)
class Rules:
    """How estimates are judged.

    Args:
        floor: Smallest effective sample size; 0 = never refuse (for studies only).
        interval: `bootstrap` draws members (percentile interval); `normal` is the delta method with members as
            clusters and Student's t, which costs nothing and is what repeated studies use.
        level: Share of intervals that hold the truth.
        resamples: Draws of the bootstrap.
        seed: Seed of the draws.
    """

    floor: float = DEFAULT_FLOOR
    interval: IntervalKind = "bootstrap"
    level: float = DEFAULT_LEVEL
    resamples: int = DEFAULT_RESAMPLES
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """The value of a target policy as estimated from another policy's log.

    Args:
        estimator: Its registered name.
        value: Mean reward per row, or per slate for the slate estimators.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Share of intervals that hold the truth.
        effective_sample_size: Units the weighted log is worth (Kish).
        weight_max: Largest importance weight in use.
        weight_mean: Mean importance weight; near 1 when the log supports the policy and the propensities are right.
        coverage: Share of the target policy's probability on titles the logging policy could show. Exact where
            `OffPolicyData.supported` is given, else the mean weight, at most 1.
        n: Rows or slates.
        members: Members behind them.
        immature: Rows dropped because their reward was not mature.
        left_out: Share of the target policy's weight that a threshold took out of the log's hands.
        threshold: Largest weight taken as it is, where the estimator has one.
    """

    estimator: str
    value: float
    low: float
    high: float
    level: float
    effective_sample_size: float
    weight_max: float
    weight_mean: float
    coverage: float
    n: int
    members: int
    immature: int = field(default=0)
    left_out: float = 0.0
    threshold: float | None = None

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

    Args:
        estimator: A name of `ESTIMATORS`, such as `snips` or `slate`.
        data: Logged rows with both policies' probabilities and rewards.
        options: The estimator's own options, such as `{"threshold": 10}`.
        rules: Floor and interval.
        against_logged: Estimate the *difference* to what the logging policy earned on the same units instead; the two
            are drawn together, so the interval is that of the paired difference.

    Raises:
        UnknownNameError: No such estimator.
        DataError: Rows that cannot be used, every kind of mistake with its count and first row.
        EffectiveSampleError: The weighted log is worth less than the floor; says how much data is missing.
    """
    plugin = ESTIMATORS[estimator]
    spec = plugin.load_options()
    if spec is None and options:
        raise TypeError(f"estimator '{estimator}' takes no options, got {sorted(options)}")
    judged = rules or Rules()
    data.check()
    terms: Terms = plugin.load()(data, None if spec is None else spec.model_validate(options or {}))
    if against_logged:
        terms = _minus_logged(terms, data)
    effective = terms.effective_sample_size
    largest = float(terms.weights[:, terms.importance > 0.0].max(initial=0.0))
    if effective < judged.floor:
        unit = "slate" if terms.by_slate else "row"
        raise EffectiveSampleError(estimator, effective, judged.floor, terms.members.size, largest, unit)
    low, high = _ends(terms, judged)
    mean = float(data.weights.mean())
    return Estimate(
        estimator=estimator,
        value=_value(terms),
        low=low,
        high=high,
        level=judged.level,
        effective_sample_size=effective,
        weight_max=largest,
        weight_mean=mean,
        coverage=min(1.0, mean) if data.supported is None else float(data.supported.mean()),
        n=int(terms.members.size),
        members=int(np.unique(terms.members).size),
        immature=data.immature,
        left_out=terms.left_out,
        threshold=terms.threshold,
    )


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
    influence = terms.influence()
    by_member = np.bincount(np.unique(terms.members, return_inverse=True)[1], weights=influence)
    count = by_member.size
    if count < 2:
        return float("-inf"), float("inf")
    error = float(np.sqrt(count / (count - 1) * np.sum(by_member**2))) / influence.size
    half = float(stdtrit(count - 1, 0.5 + level / 2.0)) * error
    value = _value(terms)
    return value - half, value + half
