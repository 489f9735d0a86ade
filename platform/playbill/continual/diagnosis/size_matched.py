"""What the length of members' histories lets one expect of a group of requests, and what explains the rest.

A group whose members have little history does worse with any model, so its mean says nothing yet. The **expectation at
its size** is the metric that the requests of all other groups have at the same mix of history lengths: their mean in
each band of history lengths, weighed as the group's requests fall into bands (direct standardisation, as death rates
are compared between populations of different ages: Breslow and Day, "Statistical Methods in Cancer Research" 2, 1987,
chapter 2). The **gap** is the group's mean minus that.

The gap is then taken apart over facts of single requests, such as a target that launched this month: a regression of
the metric on the facts is fitted on the *other* groups, within bands of history length, and each fact's coefficient
times how much more of it the group has is its part. What is left is unexplained: there the model does worse on requests
that look alike (Oaxaca, International Economic Review 1973; Blinder, Journal of Human Resources 1973). The fit rests on
requests, not on groups, so it is as honest of three groups as of sixty; what only differs between groups as a whole
cannot enter it. Parts are associations: facts that go together share their part.

Axis letters: N requests, G groups, H bands, P facts, R draws of members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from playbill.arrays import Floats64, Indices
from playbill.evaluation.canvases.head_probabilities import drawn_weights, interval_of
from playbill.metrics import Interval
from playbill.metrics.bootstrap import two_sided_p

HISTORY_BANDS = (1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 200, 500)
"""Where bands of history lengths begin; under the first there is no history."""
MOST_DRAWN = 2_000  # members of a group, up to which as many are drawn from others
RIDGE = 20.0  # requests: what a slope of nothing weighs, so that few requests do not explain what is chance


@dataclass(frozen=True)
class GroupGap:
    """One group beside what is expected at its size. Intervals are by member."""

    metric: Interval  # mean over its requests
    expected: float  # what the other groups have at the same history lengths
    size_effect: float  # `expected` minus the other groups' plain mean: what history lengths alone do
    gap: Interval  # `metric` minus `expected`
    p: float  # two-sided, of no gap: the larger of the bootstrap's and that of as many members of other groups
    parts: dict[str, Interval]  # fact -> its part of the gap
    unexplained: Interval  # the gap without these parts


def group_gaps(
    metric: Floats64,
    groups: Indices,
    members: Indices,
    history: Indices,
    facts: Mapping[str, Floats64],
    *,
    draws: int = 1_000,
    seed: int = 0,
) -> list[GroupGap]:
    """Compare each group with all requests outside it.

    Args:
        metric: [N] value of each request.
        groups: [N] codes from 0, at least two of them.
        members: [N] codes from 0.
        history: [N] plays before each request.
        facts: Name -> [N] finite values.
        draws: Of members, for the intervals.
        seed: Of the draws.

    Raises:
        ValueError: There is one group only.
    """
    if groups.max(initial=0) < 1:
        raise ValueError("a group is compared with others: at least two are needed")
    problem = _Problem.of(metric, groups, history, facts)
    centre = problem.solved(np.ones(metric.size))
    drawn = [problem.solved(weights) for weights in drawn_weights(members, seed, draws)]
    chance = _chance(problem, groups, members, centre.gap, draws, seed)
    return [_group(row, list(facts), centre, drawn, chance[row]) for row in range(problem.groups)]


class _Solved(NamedTuple):
    metric: Floats64  # [G]
    expected: Floats64  # [G]
    size_effect: Floats64  # [G]
    parts: Floats64  # [G, P]

    @property
    def gap(self) -> Floats64:
        return self.metric - self.expected

    @property
    def unexplained(self) -> Floats64:
        left: Floats64 = self.gap - self.parts.sum(axis=1)
        return left


@dataclass(frozen=True)
class _Problem:
    """Requests sorted by group, so that sums by group are sums of runs. Z = 1 + P columns: the metric, then facts."""

    groups: int
    bands: int
    order: Indices  # [N]
    cell: Indices  # [N] group x band, in the original order
    starts: Indices  # [G] first sorted request of each group
    columns: Floats64  # [N, 1 + P] in the original order
    products: Floats64  # [N, (1 + P)^2] of the sorted requests

    @classmethod
    def of(cls, metric: Floats64, groups: Indices, history: Indices, facts: Mapping[str, Floats64]) -> _Problem:
        band = np.searchsorted(np.array(HISTORY_BANDS), history, side="right")
        _, band = np.unique(band, return_inverse=True)
        columns = np.stack([metric, *(_standardised(values) for values in facts.values())], axis=1)
        order = np.argsort(groups, kind="stable").astype(np.int64)
        sizes = np.bincount(groups)
        width = columns.shape[1]
        products = (columns[order, :, None] * columns[order, None, :]).reshape(-1, width * width)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        bands = int(band.max(initial=0)) + 1
        return cls(sizes.size, bands, order, groups * bands + band, starts, columns, products)

    def solved(self, weights: Floats64) -> _Solved:
        """Solve for every group at once, with [N] weights of requests."""
        count, sums = self.cells(weights)
        width = self.columns.shape[1]
        cross = np.add.reduceat(self.products * weights[self.order, None], self.starts, axis=0)
        cross = cross.reshape(self.groups, width, width)
        others, others_sums = count.sum(axis=0) - count, sums.sum(axis=0) - sums
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = others_sums.sum(axis=1) / others.sum(axis=1)[:, None]  # [G, Z]
            means = others_sums / others[:, :, None]  # [G, H, Z]
            # A band that only this group has: what the others have on the whole is the best that can be said.
            means = np.where(others[:, :, None] > 0, means, plain[:, None, :])
            share = count / count.sum(axis=1, keepdims=True)
            expected = np.einsum("gh,ghz->gz", share, means)
            own = sums.sum(axis=1) / count.sum(axis=1)[:, None]
        within = cross.sum(axis=0) - cross - np.einsum("gh,ghy,ghz->gyz", others, means, means)
        slopes = _slopes(within)
        return _Solved(own[:, 0], expected[:, 0], (expected - plain)[:, 0], slopes * (own - expected)[:, 1:])

    def cells(self, weights: Floats64) -> tuple[Floats64, Floats64]:
        """Return [G, H] weights and [G, H, Z] weighted sums of the columns."""
        shape = (self.groups, self.bands)
        size = self.groups * self.bands
        count: Floats64 = np.bincount(self.cell, weights, minlength=size).reshape(shape).astype(np.float64)
        sums = [
            np.bincount(self.cell, weights * self.columns[:, place], minlength=size).reshape(shape)
            for place in range(self.columns.shape[1])
        ]
        return count, np.stack(sums, axis=2)


def _chance(problem: _Problem, groups: Indices, members: Indices, gaps: Floats64, draws: int, seed: int) -> Floats64:
    """Return [G] how often as many members of other groups, drawn at random, are as far from what is expected.

    A bootstrap knows no values but those that it saw: of ten members who all missed it draws ten who all miss, and is
    sure. Here the spread is that of the others. Groups of more members than are drawn here need no such help.
    """
    count, sums = problem.cells(np.ones(groups.size))
    band, metric = problem.cell - groups * problem.bands, problem.columns[:, 0]
    generator = np.random.default_rng(seed)
    found = np.zeros(problem.groups)
    for row in range(problem.groups):
        outside = groups != row
        size = np.unique(members[~outside]).size
        if size > MOST_DRAWN:
            continue
        others, total = count.sum(axis=0) - count[row], (sums.sum(axis=0) - sums[row])[:, 0]
        means = total / np.maximum(others, 1.0)
        _, member = np.unique(members[outside], return_inverse=True)
        left = np.bincount(member, metric[outside] - means[band[outside]])
        requests = np.bincount(member)
        picks = generator.integers(0, requests.size, (draws, size))
        apart = np.abs(left[picks].sum(axis=1) / requests[picks].sum(axis=1))
        found[row] = (1.0 + (apart >= abs(gaps[row])).sum()) / (1.0 + draws)
    return found


def _standardised(values: Floats64) -> Floats64:
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def _slopes(within: Floats64) -> Floats64:
    """Return [G, P] ridge slopes of the metric on facts of unit variance, from [G, Z, Z] sums of products within bands.

    A fact that does not vary among the others has none.
    """
    facts, metric = within[:, 1:, 1:], within[:, 1:, 0]
    size = facts.shape[1]
    if not size:
        return metric
    return np.linalg.solve(facts + RIDGE * np.eye(size), metric[:, :, None])[:, :, 0].astype(np.float64)


def _group(row: int, facts: list[str], centre: _Solved, drawn: list[_Solved], chance: float) -> GroupGap:
    gaps = np.array([one.gap[row] for one in drawn])
    parts = np.array([one.parts[row] for one in drawn]).reshape(len(drawn), len(facts))
    return GroupGap(
        metric=interval_of(float(centre.metric[row]), [one.metric[row] for one in drawn]),
        expected=float(centre.expected[row]),
        size_effect=float(centre.size_effect[row]),
        gap=interval_of(float(centre.gap[row]), gaps.tolist()),
        p=max(float(two_sided_p(gaps[:, None])[0]), chance),
        parts={
            name: interval_of(float(centre.parts[row, place]), parts[:, place].tolist())
            for place, name in enumerate(facts)
        },
        unexplained=interval_of(float(centre.unexplained[row]), [one.unexplained[row] for one in drawn]),
    )
