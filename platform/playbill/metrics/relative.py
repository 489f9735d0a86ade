"""How much better one system is than another, relative to it, with an interval over members and training seeds.

Axis letters: S training seeds, N requests.
"""

from __future__ import annotations

import numpy as np

from playbill.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES, Interval, Matrix, MemberBootstrap
from playbill.metrics.comparisons import seed_interval
from playbill.metrics.topk import Indices


def relative_interval(
    members: Indices,
    ours: Matrix,
    theirs: Matrix,
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

    Args:
        members: [N] member of each request, dense codes from 0.
        ours: [S, N] values, one row per training seed over the same requests.
        theirs: [S, N] those of the other system.
        resamples: Draws of members.
        seed: Of those draws.
        level: Share of intervals that hold the truth.

    Returns:
        NaN throughout where the other system's mean is 0.

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
