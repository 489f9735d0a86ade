"""What a log says about a policy that did not write it: the logged rows, and the terms every estimator is made of.

Axis letters: n logged rows (one shown title each), U units (a row, or a slate), C columns (places of a slate).

A row has the logging policy's propensity of what was shown and the target policy's probability of showing the same;
their ratio is its importance weight. For slates both are conditional on the places before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from playbill.arrays import Floats64, Indices, Mask
from playbill.errors import DataError, Problem

ROUNDING = 1e-6  # how far above 1 a probability may lie: float32 sums


@dataclass(frozen=True)
class OffPolicyData:
    """Logged rows, as a struct of arrays."""

    members: Indices  # [n] member of each row, dense codes from 0. Intervals draw members.
    slates: Indices  # [n] slate (one request's list) of each row, any integer codes
    positions: Indices  # [n] place in the slate, counted from 0
    logged: Floats64  # [n] propensity of the shown title under the logging policy, given the places before; in (0, 1]
    # [n] probability of the same title under the target policy, given the same places before; in [0, 1]
    target: Floats64
    reward: Floats64  # [n] reward of the shown title; NaN only where it is not mature yet (see `without_immature`)
    # [n] direct model's reward of the shown title; only the doubly robust estimators read it
    predicted: Floats64 | None = None
    expected: Floats64 | None = None  # [n] direct model's mean reward under the target policy there, sum_a pi(a) q(a)
    # [n] share of the target policy's probability that lies on titles the logging policy could show; None = not known,
    # and then estimated by the mean weight.
    supported: Floats64 | None = None
    immature: int = 0  # rows that were dropped because their reward was not mature

    def __len__(self) -> int:
        return int(self.reward.size)

    @property
    def weights(self) -> Floats64:
        """[n] importance weight of each row: target over logged."""
        ratio: Floats64 = self.target / self.logged
        return ratio

    def keep(self, rows: Mask) -> OffPolicyData:
        """Return only some rows ([n], whole slates together), members coded densely again."""
        arrays: dict[str, Any] = {
            name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        arrays["members"] = np.unique(arrays["members"], return_inverse=True)[1].astype(np.int64)
        return replace(self, **arrays)

    def without_immature(self, matured: Mask) -> OffPolicyData:
        """Drop every slate with a row whose reward is not mature; `immature` counts the dropped rows.

        An immature reward is unknown, never zero: counting it as zero would punish new titles and late requests. What
        is mature must depend on a row's age alone, never on what came of it, or the rows that stay are not those of
        the policy.
        """
        _, slate = np.unique(self.slates, return_inverse=True)
        young = np.bincount(slate, weights=~matured) > 0.0
        kept = ~young[slate]
        return replace(self.keep(kept), immature=self.immature + int((~kept).sum()))

    def check(self, *, direct: bool = False) -> None:
        """Report everything that makes the rows unusable, with `direct` the direct model's columns too.

        Raises:
            DataError: There are no rows; a propensity is missing, not above 0 or above 1; a probability lies outside
                [0, 1]; a reward is missing; or two rows of a slate hold one place.
            ValueError: The arrays are not all [n].
        """
        sizes = {name: value.shape for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        if set(sizes.values()) != {(len(self),)}:
            raise ValueError(f"every array must be [n], got {sizes}")
        problems = [*_propensity_problems(self.logged), *self._problems()]
        if direct:
            problems += [
                problem for name in ("predicted", "expected") for problem in _direct(name, getattr(self, name))
            ]
        if problems:
            raise DataError("logged rows", problems)

    def _problems(self) -> list[Problem]:
        if len(self) == 0:
            return [Problem("rows", f"none are left ({self.immature} were not mature)")]
        outside = np.isnan(self.target) | (self.target < 0.0) | (self.target > 1.0 + ROUNDING)
        doubled = np.zeros(len(self), dtype=np.bool_)
        order = np.lexsort((self.positions, self.slates))
        same = (np.diff(self.slates[order]) == 0) & (np.diff(self.positions[order]) == 0)
        doubled[order[1:][same]] = True
        found = [
            _problem("target probability", outside, "lie outside [0, 1] or are missing", ""),
            _problem("reward", np.isnan(self.reward), "are missing", "Drop immature requests; they are no zeros."),
            _problem("position", doubled, "are held by two rows of one slate", "One slate has one title per place."),
        ]
        return [problem for problem in found if problem is not None]


def _propensity_problems(logged: Floats64) -> list[Problem]:
    hint = "Off-policy estimates need the exact propensity of every row."
    found = [
        _problem("propensity", np.isnan(logged), "are missing", hint),
        _problem("propensity", logged == 0.0, "are 0", "What was shown cannot have had no chance."),
        _problem("propensity", logged < 0.0, "are negative", ""),
        _problem("propensity", logged > 1.0 + ROUNDING, "are above 1", "A propensity is a probability, no weight."),
    ]
    return [problem for problem in found if problem is not None]


def _direct(name: str, values: Floats64 | None) -> list[Problem]:
    if values is None:
        return [Problem(name, "the direct model's values are not given", "Doubly robust estimators need them.")]
    found = _problem(name, ~np.isfinite(values), "are no finite numbers", "")
    return [] if found is None else [found]


def _problem(where: str, bad: Mask, what: str, hint: str) -> Problem | None:
    if not bad.any():
        return None
    return Problem(where, f"{int(bad.sum())} of {bad.size} {what}, the first in row {int(bad.argmax())}.", hint)


class Chain(NamedTuple):
    """How far units get, as self-normalised shares: reach_c = prod_{j<=c} sum_u steps_uj / sum_u starts_uj.

    Weights are [U, C]: `steps` of units that got to each column, `starts` of those that got to the column before.
    """

    steps: Floats64
    starts: Floats64


class Terms(NamedTuple):
    """Sums of an estimator: value = sum_c scale_c reach_c (sum_u numerators_uc / sum_u denominators_uc)."""

    numerators: Floats64  # [U, C]
    denominators: Floats64  # [U, C]; ones for a plain mean, the weights for a self-normalised one
    scale: Floats64  # [C] sign and size with which a column counts
    members: Indices  # [U] member of each unit
    weights: Floats64  # [U, C] importance weights as they are used; 0 where a unit lacks the column
    importance: Floats64  # [C] share of the value each column carries; weighs the columns' effective sizes
    left_out: float = 0.0  # share of the target policy's weight that a threshold took away from the log
    threshold: float | None = None  # the largest weight taken, where there is one
    by_slate: bool = False  # whether units are slates, in ascending order of their codes; else rows
    chain: Chain | None = None  # where reach_c is not 1

    def sums(self) -> Floats64:
        """Return [U, P] every column whose sums decide the value, for `of_sums`."""
        parts = [self.numerators, self.denominators]
        return np.concatenate([*parts, *(self.chain or ())], axis=1)

    def of_sums(self, sums: Floats64) -> Floats64:
        """Return [R] values from [R, P] sums of (drawn) units."""
        numerators, denominators, *chain = np.split(sums, sums.shape[1] // self.scale.size, axis=1)
        parts = ratio(numerators, denominators)
        if chain:
            parts = parts * np.cumprod(ratio(*chain), axis=1)
        total: Floats64 = parts @ self.scale
        return total

    def influence(self) -> Floats64:
        """Return [U] how much each unit moves the value: the delta method's derivative, of mean zero."""
        means, starts = self.numerators.mean(axis=0), self.denominators.mean(axis=0)
        values = ratio(means, starts)
        moved = ratio(self.numerators - values * self.denominators, np.broadcast_to(starts, self.numerators.shape))
        if self.chain is None:
            return np.asarray(moved @ self.scale)
        share = ratio(self.chain.steps.mean(axis=0), self.chain.starts.mean(axis=0))
        reach = np.cumprod(share)
        below = np.broadcast_to(self.chain.starts.mean(axis=0) * share, moved.shape)
        steps = ratio(self.chain.steps - share * self.chain.starts, below)
        return np.asarray((moved + np.cumsum(steps, axis=1) * values) @ (self.scale * reach))

    @property
    def effective_sample_size(self) -> float:
        """Kish's effective number of units, (sum w)^2 / sum w^2, over columns by harmonic mean.

        The harmonic mean is weighted by each column's share of the value, since variances add up. In [0, U]. Source:
        Kish, "Survey Sampling", 1965; Owen, "Monte Carlo theory, methods and examples", 2013, chapter 9.3.
        """
        squares = np.sum(self.weights**2, axis=0)
        if (squares[self.importance > 0.0] <= 0.0).any():
            return 0.0
        sizes = np.divide(self.weights.sum(axis=0) ** 2, squares, out=np.ones_like(squares), where=squares > 0.0)
        return float(1.0 / np.sum(self.importance / sizes))


def ratio(above: Floats64, below: Floats64) -> Floats64:
    """Divide, with 0 where there is nothing to divide by."""
    found: Floats64 = np.divide(above, below, out=np.zeros(np.shape(above)), where=below != 0.0)
    return found


def one_column(data: OffPolicyData, numerators: Floats64, denominators: Floats64 | None, weights: Floats64) -> Terms:
    """Make the terms of an estimator whose units are rows, from [n] arrays; no denominators = a plain mean."""
    below = np.ones(len(data)) if denominators is None else denominators
    one = np.ones(1)
    return Terms(numerators[:, None], below[:, None], one, data.members, weights[:, None], one)
