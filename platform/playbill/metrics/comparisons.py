"""Several training seeds of one model: a mean whose interval holds both the members' noise and the seeds'.

An interval over members of a single run says how sure we are about *that run*. Another seed gives another run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES, Interval, Matrix, MemberBootstrap
from playbill.metrics.topk import Indices


@dataclass(frozen=True)
class SeedInterval:
    """A metric over several training seeds.

    Args:
        value: Mean over seeds of the mean over requests.
        low: Lower end of the interval.
        high: Upper end of the interval.
        spread: Standard deviation of the seeds' means (ddof 1).
        members_error: Standard error that members alone bring.
        by_seed: [S] each seed's mean over requests.
    """

    value: float
    low: float
    high: float
    spread: float
    members_error: float
    by_seed: tuple[float, ...]

    @property
    def interval(self) -> Interval:
        """The mean with its ends, as other metrics have it."""
        return Interval(self.value, self.low, self.high)


def seed_interval(
    members: Indices,
    values: Matrix,
    *,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
    level: float = DEFAULT_LEVEL,
) -> SeedInterval:
    """Give the mean over training seeds and members with an interval for a fresh seed's *expected* value.

    Variance = V_members + s^2 / S: the member bootstrap's variance of the seed-averaged metric, plus the variance of
    the S seed means over S. The interval is value +- t sqrt(variance), with the degrees of freedom of Satterthwaite,
    (V_members + s^2/S)^2 / ((s^2/S)^2 / (S-1) + V_members^2 / (members-1)): with three seeds that disagree t is near
    4.3, so three seeds cannot look surer than they are. For a paired comparison of two models hand in differences.

    Sources: Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics 1946;
    why seeds belong in: Bouthillier et al., "Accounting for variance in machine learning benchmarks", MLSys 2021.

    Args:
        members: [N] member of each request, dense codes from 0.
        values: [S, N] one row per training seed over the same requests, at least two rows, no NaN.
        resamples: Bootstrap draws for the members' part.
        seed: Seed of those draws.
        level: Share of intervals that hold the truth.

    Raises:
        ValueError: Fewer than two seeds, or shapes that do not match.
    """
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] != members.size:
        raise ValueError(f"values must be [S >= 2, N = {members.size}], got {values.shape}")
    if np.isnan(values).any():
        raise ValueError("values hold NaN; leave those requests out of every seed")
    means = values.mean(axis=1)
    seeds = means.size
    from_members = MemberBootstrap(members, resamples, seed, level).variance(values.mean(axis=0))
    from_seeds = float(means.var(ddof=1)) / seeds
    total = from_members + from_seeds
    people = max(np.unique(members).size - 1, 1)
    parts = from_seeds**2 / (seeds - 1) + from_members**2 / people
    freedom = total**2 / parts if parts > 0.0 else float("inf")
    from scipy.special import stdtrit  # takes a third of a second, and serving needs other metrics of this room

    half = float(stdtrit(min(freedom, 1e9), 0.5 + level / 2.0)) * total**0.5
    value = float(means.mean())
    return SeedInterval(
        value, value - half, value + half, float(means.std(ddof=1)), from_members**0.5, tuple(means.tolist())
    )
