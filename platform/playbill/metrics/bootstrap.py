"""Bootstrap intervals by member.

Members are drawn with replacement, and all requests of a drawn member come along, so several requests of one
member are not taken for independent evidence. Every statistic of one evaluation uses the same draws: that
pairs models, baselines and slices.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval, chapter 13);
paired for ranking systems: Smucker, Allan and Carterette, CIKM 2007.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from playbill.arrays import Floats64, Indices

DEFAULT_RESAMPLES = 2_000
DEFAULT_LEVEL = 0.95
CELLS_AT_ONCE = 4_000_000  # draw counts held at a time: 32 MB
_COLUMNS_AT_ONCE = 64  # statistics drawn together, at least: each time the members are drawn anew
SUMS_AT_ONCE = 4_000_000  # sums by member held at a time: 64 MB with their weights


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
    """Draws of members, shared by every statistic of one evaluation."""

    members: Indices  # [N] member of each request, dense codes from 0
    resamples: int = DEFAULT_RESAMPLES  # number of draws R
    seed: int = 0  # same seed and members, same draws
    level: float = DEFAULT_LEVEL  # share of draws inside an interval

    def intervals(self, values: Floats64, weights: Floats64 | None = None) -> list[Interval]:
        """Return the mean over requests of each column, with its interval; memory is bounded: draws come in pieces.

        Values are [N, C], a column per statistic, NaN where a request does not belong to it (a slice); a difference of
        two models is a column like any other. With `weights` [N, C] >= 0 the mean is sum(w v) / sum(w), and is drawn as
        that ratio. A column without any request gives NaN throughout.
        """
        return [one for block in self._blocks(values, weights) for one in self._intervals(*block)]

    def judged(self, values: Floats64, weights: Floats64 | None = None) -> tuple[list[Interval], Floats64]:
        """Give `intervals` and `p_values` from one pass over the draws."""
        blocks = [(self._intervals(*block), self._p(block[1])) for block in self._blocks(values, weights)]
        p = [found for _, found in blocks]
        return [one for found, _ in blocks for one in found], np.concatenate(p) if p else np.empty(0)

    def p_values(self, values: Floats64, weights: Floats64 | None = None) -> Floats64:
        """Give the two-sided bootstrap p-value of each column's mean being zero.

        p = 2 min(P(mean* <= 0), P(mean* >= 0)), each share counted as (1 + draws) / (1 + R), at most 1; so p is at
        least 2 / (R + 1). It agrees with `intervals`: p < 1 - level where the interval leaves zero out, up to the
        added draw. Source: Efron and Tibshirani 1993, chapter 15.4; the added one: Davison and Hinkley 1997, 4.2.
        Of a single member every draw is the same, which says nothing of others: p = 1.

        Values are [N, C] paired differences; NaN for a column without any request. Adjust them with `adjust_p` when
        there are several.
        """
        found = [self._p(means) for _, means in self._blocks(values, weights)]
        return np.concatenate(found) if found else np.empty(0)

    def _p(self, means: Floats64) -> Floats64:
        p = two_sided_p(means)
        return np.where(np.isnan(p), p, 1.0) if self.members.max(initial=0) == 0 else p

    def variance(self, values: Floats64) -> float:
        """Return the bootstrap variance of the mean over requests of one statistic [N]."""
        (_, means), *_ = self._blocks(values[:, None], None)
        return float(np.var(means[:, 0], ddof=1))

    def totals(self, values: Floats64) -> Floats64:
        """Return [R, C] column sums over the requests of drawn members: what any ratio of sums is drawn from."""
        return self._draw(self._by_member(values))

    def _blocks(self, values: Floats64, weights: Floats64 | None) -> Iterator[tuple[Floats64, Floats64]]:
        """Go through a few columns at a time: [c] means and [R, c] means over draws. One seed, the same draws."""
        if weights is not None and weights.shape != values.shape:
            raise ValueError(f"weights must be {values.shape} like the values, got {weights.shape}")
        step = max(_COLUMNS_AT_ONCE, SUMS_AT_ONCE // (int(self.members.max(initial=-1)) + 1 + self.resamples))
        for start in range(0, values.shape[1], step):
            piece = slice(start, start + step)
            yield self._block(values[:, piece], None if weights is None else weights[:, piece])

    def _block(self, values: Floats64, weights: Floats64 | None) -> tuple[Floats64, Floats64]:
        present = ~np.isnan(values)
        weight = present.astype(np.float64) if weights is None else np.where(present, weights, 0.0)
        sums = self._by_member(np.where(present, values, 0.0) * weight)
        counts = self._by_member(weight)
        drawn = self._draw(np.concatenate([sums, counts], axis=1))
        width = values.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return sums.sum(axis=0) / counts.sum(axis=0), drawn[:, :width] / drawn[:, width:]

    def _intervals(self, centre: Floats64, means: Floats64) -> list[Interval]:
        tail = (1.0 - self.level) / 2.0
        return [_interval(centre[column], means[:, column], tail) for column in range(centre.size)]

    def _by_member(self, values: Floats64) -> Floats64:
        size = int(self.members.max(initial=-1)) + 1
        out = np.empty((size, values.shape[1]))
        for column in range(values.shape[1]):
            out[:, column] = np.bincount(self.members, weights=values[:, column], minlength=size)
        return out

    def _draw(self, totals: Floats64) -> Floats64:
        generator = np.random.default_rng(self.seed)
        size = totals.shape[0]
        out = np.empty((self.resamples, totals.shape[1]))
        if size == 0:
            return np.full_like(out, np.nan)
        step = max(1, CELLS_AT_ONCE // size)
        for start in range(0, self.resamples, step):
            rows = min(step, self.resamples - start)
            picks = generator.integers(0, size, size=(rows, size), dtype=np.int32)
            flat = picks + np.arange(rows, dtype=np.int32)[:, None] * np.int32(size)
            counts = np.bincount(flat.ravel(), minlength=rows * size).reshape(rows, size)
            out[start : start + rows] = counts.astype(np.float64) @ totals
        return out


def member_bootstrap(
    members: Indices, values: Floats64, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> Interval:
    """Return the mean and 95 % interval of one metric per request [N], or of the paired difference of two."""
    return MemberBootstrap(members, resamples, seed).intervals(values[:, None])[0]


def two_sided_p(means: Floats64) -> Floats64:
    """Return [C] the two-sided p-value of zero from [R, C] draws of a statistic, see `MemberBootstrap.p_values`."""
    known = (~np.isnan(means)).sum(axis=0)
    below, above = (means <= 0.0).sum(axis=0), (means >= 0.0).sum(axis=0)
    p = np.minimum(2.0 * (1.0 + np.minimum(below, above)) / (1.0 + known), 1.0)
    return np.where(known > 0, p, np.nan)


def _interval(centre: float, means: Floats64, tail: float) -> Interval:
    known = means[~np.isnan(means)]
    if known.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return Interval(float(centre), float(low), float(high))
