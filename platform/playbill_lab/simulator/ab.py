"""Simulated experiments: the same members with the same luck under several policies.

Axis letters: M members, P policies, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.errors import ConfigError, UnknownNameError
from playbill_lab.simulator.engine.run import Outcome, simulate
from playbill_lab.simulator.policies.policies import Policy
from playbill_lab.simulator.world.random_streams import Streams
from playbill_lab.simulator.world.world import World

Metric = Literal["value", "days", "sessions", "plays", "hours", "satisfaction"]
METRICS: tuple[Metric, ...] = ("value", "days", "sessions", "plays", "hours", "satisfaction")
RESAMPLES = 1000


def ab_test(
    world: World,
    policies: Mapping[str, Policy],
    metric: Metric = "value",
    *,
    confidence: float = 0.95,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Run every policy over all members and compare them with the first, member by member.

    Args:
        world: Where.
        policies: Name of the arm -> policy.
        metric: Column of `Outcome.members`.
        confidence: Of the intervals.
        progress: Called with arms done and arms in all.

    Returns:
        One row per arm, as `compare` gives.

    Raises:
        ConfigError: No policies.
        UnknownNameError: There is no such metric.
        IntegrityError: A policy answered what cannot be shown.
    """
    if not policies:
        raise ConfigError("an experiment needs at least one policy")
    _check_metric(metric)
    outcomes: dict[str, Outcome] = {}
    for name, policy in policies.items():
        outcomes[name] = simulate(world, policy)
        if progress is not None:
            progress(len(outcomes), len(policies))
    return compare(outcomes, metric, confidence=confidence, seed=world.spec.seed)


def compare(
    outcomes: Mapping[str, Outcome], metric: Metric = "value", *, confidence: float = 0.95, seed: int = 0
) -> pl.DataFrame:
    """Compare runs of one world with the first of them.

    Intervals are percentiles of a bootstrap by member (Efron and Tibshirani, 1993). Differences are taken member by
    member, so the luck that arms share cancels.

    Returns:
        One row per run: policy, mean, low, high, difference, difference_low, difference_high (to the first, for which
        they are 0), relative (difference as a part of the first's mean), members.

    Raises:
        UnknownNameError: There is no such metric.
    """
    _check_metric(metric)
    values = np.stack([outcome.members[metric].cast(pl.Float64).to_numpy() for outcome in outcomes.values()])
    rng = Streams(seed).generator("bootstrap")
    means = _resampled(values, rng)
    tails = 50 * (1 - confidence), 50 * (1 + confidence)
    low, high = np.percentile(means, tails, axis=0)
    apart_low, apart_high = np.percentile(means - means[:, :1], tails, axis=0)
    mean = values.mean(axis=1)
    return pl.DataFrame(
        {
            "policy": list(outcomes),
            "mean": mean,
            "low": low,
            "high": high,
            "difference": mean - mean[0],
            "difference_low": apart_low,
            "difference_high": apart_high,
            "relative": (mean - mean[0]) / mean[0] if mean[0] else np.full(len(mean), np.nan),
            "members": np.full(len(mean), values.shape[1]),
        }
    )


def _resampled(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return [R, P] means over members drawn with replacement; all arms have the same members in a resample."""
    count = values.shape[1]
    means = np.empty((RESAMPLES, len(values)))
    for number in range(RESAMPLES):
        weight = np.bincount(rng.integers(count, size=count), minlength=count)
        means[number] = values @ weight / count
    return means


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
