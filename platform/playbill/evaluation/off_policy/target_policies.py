"""Target policies: what a model would have shown, as exact probabilities place by place.

Axis letters: S slates, T titles, K places. At every place a policy chooses among the candidates that are left; the
probability of a logged title is the one given the logged titles above it, which is what the slate estimators need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from playbill.arrays import Floats64, Indices, Mask
from playbill.errors import ConfigError


class TargetPolicy(Protocol):
    """Turns scores into the chance of each candidate to be shown next."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def distribution(self, scores: Floats64, left: Mask) -> Floats64:
        """Return [S, T] probabilities over the candidates that are left; rows add up to 1, or to 0 where none is."""


@dataclass(frozen=True)
class SoftmaxPolicy:
    """Draws each place from a softmax of the scores over what is left (Plackett and Luce)."""

    temperature: float = 1.0  # in units of the scores; towards 0 it always shows the best, large values show anything

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < float("inf"):
            raise ConfigError(f"a softmax policy needs a temperature above 0, got {self.temperature}")

    @property
    def name(self) -> str:
        """`softmax(temperature)`."""
        return f"softmax({self.temperature:g})"

    def distribution(self, scores: Floats64, left: Mask) -> Floats64:
        """Return exp(score / temperature) over the sum of those left."""
        logits = np.where(left, scores / self.temperature, -np.inf)
        top = logits.max(axis=1, keepdims=True, initial=-np.inf)
        weight = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
        return _normalised(weight)


@dataclass(frozen=True)
class TopPolicy:
    """Shows the best title left with probability 1 - epsilon, else any of those left."""

    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon <= 1.0:
            raise ConfigError(f"epsilon is a share between 0 and 1, got {self.epsilon}")

    @property
    def name(self) -> str:
        """`top(epsilon)`."""
        return f"top({self.epsilon:g})"

    def distribution(self, scores: Floats64, left: Mask) -> Floats64:
        """Return epsilon / (titles left), and 1 - epsilon more for the best; of equals the first column is best."""
        even = _normalised(left.astype(np.float64))
        best = np.where(left, scores, -np.inf).argmax(axis=1)
        rows = np.flatnonzero(left.any(axis=1))
        chosen = self.epsilon * even
        chosen[rows, best[rows]] += 1.0 - self.epsilon
        return chosen


class Placed(NamedTuple):
    """[S, K] chance of each logged title given those above, 0 if empty, and the direct model's mean at its place."""

    probability: Floats64
    expected: Floats64 | None


def place_by_place(
    policy: TargetPolicy,
    scores: Floats64,
    candidates: Mask,
    shown: Indices,
    quality: Floats64 | None = None,
    factor: Floats64 | None = None,
) -> Placed:
    """Walk down logged slates and ask a policy about every place. Time O(S T K), extra memory O(S T).

    `scores` and `candidates` are [S, T], `shown` [S, K] the title column of each logged place, -1 = empty; a title that
    is no candidate has probability 0. `quality` [S, T] is a direct model of a title's reward, which `factor` [K]
    multiplies at each place (None = ones); without it there are no expectations.
    """
    size, places = shown.shape
    left = candidates.copy()
    rows = np.arange(size)
    probability = np.zeros((size, places))
    expected = None if quality is None else np.zeros((size, places))
    for place in range(places):
        title = shown[:, place]
        filled = title >= 0
        chances = policy.distribution(scores, left)
        probability[filled, place] = chances[rows[filled], title[filled]]
        if expected is not None and quality is not None:
            means = np.einsum("st,st->s", chances, quality) * (1.0 if factor is None else factor[place])
            expected[filled, place] = means[filled]
        left[rows[filled], title[filled]] = False
    return Placed(probability, expected)


def _normalised(weight: Floats64) -> Floats64:
    total = weight.sum(axis=1, keepdims=True)
    share: Floats64 = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0.0)
    return share
