"""Bootstrap intervals by member.

Members are drawn with replacement, and all requests of a drawn member come along, so several requests of one
member are not taken for independent evidence. Every statistic of one evaluation uses the same draws: that
pairs models, baselines and slices.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval, chapter 13);
paired for ranking systems: Smucker, Allan and Carterette, CIKM 2007.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from playbill.metrics.topk import Indices

Matrix = npt.NDArray[np.float64]

DEFAULT_RESAMPLES = 2_000
DEFAULT_LEVEL = 0.95
_CELLS_AT_ONCE = 4_000_000
"""Draw counts held at a time: 32 MB."""
_COLUMNS_AT_ONCE = 64


class Interval(NamedTuple):
    """A mean with its bootstrap percentile interval."""

    value: float
    low: float
    high: float

    @property
    def includes_zero(self) -> bool:
        """Whether zero lies in the interval, ends included."""
        return self.low <= 0.0 <= self.high


@dataclass(frozen=True)
class MemberBootstrap:
    """Draws of members, shared by every statistic of one evaluation.

    Args:
        members: [N] member of each request, dense codes from 0.
        resamples: Number of draws R.
        seed: Same seed and members, same draws.
        level: Share of draws inside an interval.
    """

    members: Indices
    resamples: int = DEFAULT_RESAMPLES
    seed: int = 0
    level: float = DEFAULT_LEVEL

    def intervals(self, values: Matrix) -> list[Interval]:
        """Give the mean over requests of each column, with its interval.

        Memory is bounded: the [R, members] draw counts are made in pieces.

        Args:
            values: [N, C] one column per statistic; NaN = this request does not belong to that statistic
                (a slice). A difference of two models is a column like any other.

        Returns:
            C intervals. A column without any request gives NaN throughout.
        """
        blocks = range(0, values.shape[1], _COLUMNS_AT_ONCE)
        return [one for start in blocks for one in self._block(values[:, start : start + _COLUMNS_AT_ONCE])]

    def _block(self, values: Matrix) -> list[Interval]:
        """Do a few columns. The seed makes every block use the same draws."""
        present = ~np.isnan(values)
        sums = self._by_member(np.where(present, values, 0.0))
        counts = self._by_member(present.astype(np.float64))
        drawn = self._draw(np.concatenate([sums, counts], axis=1))
        width = values.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            means = drawn[:, :width] / drawn[:, width:]
            centre = sums.sum(axis=0) / counts.sum(axis=0)
        tail = (1.0 - self.level) / 2.0
        return [_interval(centre[column], means[:, column], tail) for column in range(width)]

    def _by_member(self, values: Matrix) -> Matrix:
        size = int(self.members.max(initial=-1)) + 1
        out = np.empty((size, values.shape[1]))
        for column in range(values.shape[1]):
            out[:, column] = np.bincount(self.members, weights=values[:, column], minlength=size)
        return out

    def _draw(self, totals: Matrix) -> Matrix:
        """Return [R, C] totals over drawn members."""
        generator = np.random.default_rng(self.seed)
        size = totals.shape[0]
        out = np.empty((self.resamples, totals.shape[1]))
        if size == 0:
            return np.full_like(out, np.nan)
        step = max(1, _CELLS_AT_ONCE // size)
        for start in range(0, self.resamples, step):
            rows = min(step, self.resamples - start)
            picks = generator.integers(0, size, size=(rows, size), dtype=np.int32)
            flat = picks + np.arange(rows, dtype=np.int32)[:, None] * np.int32(size)
            counts = np.bincount(flat.ravel(), minlength=rows * size).reshape(rows, size)
            out[start : start + rows] = counts.astype(np.float64) @ totals
        return out


def member_bootstrap(
    members: Indices, values: Matrix, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> Interval:
    """Give one statistic's mean and 95 % interval.

    Args:
        members: [N] member of each request, dense codes from 0.
        values: [N] a metric per request, or the paired difference of two.
        resamples: Number of draws.
        seed: Same seed, same draws.
    """
    return MemberBootstrap(members, resamples, seed).intervals(values[:, None])[0]


def _interval(centre: float, means: Matrix, tail: float) -> Interval:
    known = means[~np.isnan(means)]
    if known.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return Interval(float(centre), float(low), float(high))
