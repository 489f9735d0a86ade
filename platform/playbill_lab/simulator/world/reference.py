"""What a real log looks like: popularity and activity of MovieLens-1M, to fit a simulated service to.

Source: F. Maxwell Harper and Joseph A. Konstan (2015), "The MovieLens Datasets: History and Context", ACM TiiS 5(4),
https://doi.org/10.1145/2827872; 1,000,209 ratings of 3,706 titles by 6,040 members with 20 ratings or more each.
The constants are computed by `tests/benchmarks/movielens_reference.py FILE` from its log.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

ACTIVITY_PROBABILITIES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Where the distribution of activity is known."""
POPULARITY_GINI = 0.6336
"""Gini coefficient of ratings per title, over titles with one at least."""
ACTIVITY_MEAN = 165.5975
"""Ratings per member."""
ACTIVITY_MEDIAN = 96.0
ACTIVITY_RELATIVE = (
    *(0.2083, 0.2083, 0.2396, 0.2812, 0.3958, 0.5312, 0.7292, 1.0),
    *(1.3125, 1.8021, 2.6354, 4.1667, 5.7917, 9.4444, 24.1042),
)
"""Ratings of a member at each of `ACTIVITY_PROBABILITIES`, as a multiple of the median."""
POPULARITY_SHARES = (0.4442, 0.2075, 0.1294, 0.0854, 0.0572, 0.0362, 0.0215, 0.0123, 0.0053, 0.0011)
"""Share of all ratings that go to each tenth of the titles, the most popular tenth first."""

Counts = npt.NDArray[Any]


def popularity_gini(counts: Counts) -> float:
    """Return the Gini coefficient of counts above 0: 0 when all are alike, towards 1 when one has everything.

    `sum((2 i - n - 1) x_i) / (n sum(x))` over counts in ascending order, i from 1 to n.

    Args:
        counts: Plays, or ratings, of each title. Zeros are left out: a log does not know titles without a row.

    Raises:
        ValueError: No count is above 0.
    """
    ordered = np.sort(np.asarray(counts, np.float64))
    ordered = ordered[ordered > 0]
    if not ordered.size:
        raise ValueError("no title has a play, so there is no popularity to measure.")
    size = ordered.size
    weights = 2 * np.arange(1, size + 1) - size - 1
    return float(weights @ ordered / (size * ordered.sum()))


def activity_relative(
    counts: Counts, probabilities: tuple[float, ...] = ACTIVITY_PROBABILITIES
) -> npt.NDArray[np.float64]:
    """Return quantiles of counts above 0, as multiples of their median.

    Args:
        counts: Titles played, or rated, by each member.
        probabilities: Between 0 and 1.

    Raises:
        ValueError: No count is above 0.
    """
    kept = np.asarray(counts, np.float64)
    kept = kept[kept > 0]
    if not kept.size:
        raise ValueError("no member has a play, so there is no activity to measure.")
    quantiles: npt.NDArray[np.float64] = np.quantile(kept, probabilities) / np.median(kept)
    return quantiles


def activity_at(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Return MovieLens-1M's activity at these probabilities, as multiples of the median: its inverse distribution.

    Between the known quantiles the logarithm is straight, so uniform draws give members like MovieLens' own.
    """
    logs = np.interp(probabilities, ACTIVITY_PROBABILITIES, np.log(ACTIVITY_RELATIVE))
    relative: npt.NDArray[np.float64] = np.exp(logs)
    return relative


def popularity_shares(counts: Counts, parts: int = 10) -> npt.NDArray[np.float64]:
    """Return the share of all plays that goes to each part of the titles, the most popular part first."""
    ordered = np.sort(np.asarray(counts, np.float64))[::-1]
    ordered = ordered[ordered > 0]
    cumulative = np.concatenate([[0.0], np.cumsum(ordered)])
    edges = np.interp(np.linspace(0, ordered.size, parts + 1), np.arange(ordered.size + 1), cumulative)
    shares: npt.NDArray[np.float64] = np.diff(edges) / ordered.sum()
    return shares
