"""Models compared over members and training seeds: means, relative differences, and many comparisons at once.

An interval over members of a single run says how sure we are about *that run*. Another seed gives another run, so the
intervals here hold both kinds of noise. P-values are adjusted, so that twenty slices do not give one false discovery by
chance.
Axis letters: S training seeds, N requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from playbill.arrays import Floats64, Indices
from playbill.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES, Interval, MemberBootstrap


@dataclass(frozen=True)
class SeedInterval:
    """A metric over several training seeds."""

    value: float  # mean over seeds of the mean over requests
    low: float  # lower end of the interval
    high: float  # upper end of the interval
    spread: float  # standard deviation of the seeds' means (ddof 1)
    members_error: float  # standard error that members alone bring
    by_seed: tuple[float, ...]  # [S] each seed's mean over requests

    @property
    def interval(self) -> Interval:
        """The mean with its ends, as other metrics have it."""
        return Interval(self.value, self.low, self.high)


def seed_interval(
    members: Indices,
    values: Floats64,
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

    `members` [N] are dense codes from 0; `values` [S, N] have a row per training seed over the same requests, at least
    two, and no NaN.

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


def relative_interval(
    members: Indices,
    ours: Floats64,
    theirs: Floats64,
    *,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
    level: float = DEFAULT_LEVEL,
) -> Interval:
    """Give mean(ours) / mean(theirs) - 1, paired by request.

    With several seeds the ratio is linearised (the delta method): each request stands for
    (ours - ratio x theirs) / mean(theirs) + ratio - 1, whose mean is the ratio less one, and `seed_interval` gives that
    mean its interval. With one seed it is the percentile interval of the ratio over draws of members, and says nothing
    of another training run.

    Sources: delta method for ratios under clustered requests: Deng, Knoblich and Lu, KDD 2018; seeds as in
    `playbill.metrics.comparisons`.

    `ours` and `theirs` are [S, N], one row per training seed over the same requests; NaN throughout where the other
    system's mean is 0.

    Raises:
        ValueError: Shapes do not match.
    """
    if ours.shape != theirs.shape or ours.ndim != 2 or ours.shape[1] != members.size:
        raise ValueError(f"values must both be [S, N = {members.size}], got {ours.shape} and {theirs.shape}")
    base = float(theirs.mean()) if theirs.size else 0.0
    if base == 0.0:
        return Interval(float("nan"), float("nan"), float("nan"))
    ratio = float(ours.mean()) / base
    if len(ours) > 1:
        linear = (ours - ratio * theirs) / base + ratio - 1.0
        return seed_interval(members, linear, resamples=resamples, seed=seed, level=level).interval
    totals = MemberBootstrap(members, resamples, seed, level).totals(np.stack([ours[0], theirs[0]], axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = totals[:, 0] / totals[:, 1] - 1.0
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1.0 - tail])
    return Interval(ratio - 1.0, float(low), float(high))


Method = Literal["holm", "benjamini_hochberg"]


def adjust_p(p: npt.ArrayLike, method: Method = "holm") -> Floats64:
    """Adjust p-values for their number; reject where the adjusted value is at most the level wanted.

    With p sorted ascending, rank i of m: `holm` is max_{j<=i} min(1, (m - j + 1) p_j) and bounds the chance of *any*
    false discovery, whatever the dependence; `benjamini_hochberg` is min_{j>=i} min(1, m p_j / j) and bounds the
    expected *share* of false discoveries, under independence or positive dependence. Range [0, 1], never below p.
    Sources: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 1979; Benjamini and
    Hochberg, "Controlling the false discovery rate", JRSS B 1995.

    P-values are [C] in [0, 1]; NaN (a comparison without data) stays NaN and does not count. `holm` is for gates and
    claims, `benjamini_hochberg` for looking through many slices.

    Raises:
        ValueError: A p-value lies outside [0, 1], or the method is unknown.
    """
    values = np.asarray(p, dtype=np.float64)
    known = ~np.isnan(values)
    raw = values[known]
    if raw.size and (raw.min() < 0.0 or raw.max() > 1.0):
        raise ValueError(f"p-values must lie in [0, 1], got {raw.min():g} to {raw.max():g}")
    adjusted = np.full(values.shape, np.nan)
    order = np.argsort(raw, kind="stable")
    count = raw.size
    if method == "holm":
        steps = np.maximum.accumulate(raw[order] * np.arange(count, 0, -1))
    elif method == "benjamini_hochberg":
        steps = np.minimum.accumulate((raw[order] * count / np.arange(1, count + 1))[::-1])[::-1]
    else:
        raise ValueError(f"unknown method '{method}'; known: benjamini_hochberg, holm")
    back = np.empty(count)
    back[order] = np.minimum(steps, 1.0)
    adjusted[known] = back
    return adjusted
