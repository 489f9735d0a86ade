"""Small bandits and slates whose true values are known exactly: what off-policy estimators are tried on.

Axis letters: X contexts, A titles, n rows, S slates, K places.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from playbill.evaluation.off_policy.terms import OffPolicyData


def softmax(scores: np.ndarray) -> np.ndarray:
    exponent = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class Bandit:
    """A pool of contexts, titles with known chances of a play, and softmax policies over them."""

    chance: np.ndarray  # [X, A]
    logging: np.ndarray  # [X, A]
    target: np.ndarray  # [X, A]
    model: np.ndarray  # [X, A] a direct model, wrong on purpose

    @classmethod
    def make(cls, seed: int = 0, contexts: int = 200, titles: int = 12, sharpness: float = 2.0) -> Bandit:
        generator = np.random.default_rng(seed)
        taste = generator.standard_normal((contexts, titles))
        chance = 1 / (1 + np.exp(1.5 - taste))
        logging = softmax(0.4 * taste + 0.6 * generator.standard_normal(titles))
        target = softmax(sharpness * 0.6 * taste)
        model = np.clip(chance + 0.1 * generator.standard_normal(chance.shape) + 0.05, 0, 1)
        return cls(chance, logging, target, model)

    @property
    def truth(self) -> float:
        return float((self.target * self.chance).sum(axis=1).mean())

    def log(self, n: int, seed: int, rows_per_member: int = 1) -> OffPolicyData:
        generator = np.random.default_rng(seed)
        members = np.arange(n) // rows_per_member
        context = generator.integers(0, self.chance.shape[0], members[-1] + 1)[members]  # a member is one context
        shown = (generator.random((n, 1)) > self.logging[context].cumsum(axis=1)).sum(axis=1)
        shown = np.minimum(shown, self.chance.shape[1] - 1)
        reward = (generator.random(n) < self.chance[context, shown]).astype(float)
        return OffPolicyData(
            members=members,
            slates=np.arange(n),
            positions=np.zeros(n, np.int64),
            logged=self.logging[context, shown],
            target=self.target[context, shown],
            reward=reward,
            predicted=self.model[context, shown],
            expected=(self.target * self.model)[context].sum(axis=1),
        )


@dataclass(frozen=True)
class SlateBandit:
    """Slates of K of A titles by Plackett-Luce; a place pays less after plays above it, so slates interact."""

    chance: np.ndarray  # [X, A]
    logging: np.ndarray  # [X, A] scores
    target: np.ndarray  # [X, A] scores
    places: int = 3

    @classmethod
    def make(cls, seed: int = 0, contexts: int = 20, titles: int = 6) -> SlateBandit:
        generator = np.random.default_rng(seed)
        taste = generator.standard_normal((contexts, titles))
        return cls(0.6 / (1 + np.exp(-taste)), 0.3 * generator.standard_normal((contexts, titles)), 0.8 * taste)

    @property
    def truth(self) -> float:
        total = 0.0
        for x in range(self.chance.shape[0]):
            for slate in permutations(range(self.chance.shape[1]), self.places):
                chances = conditional(self.target[x : x + 1], np.array([slate]))[0]
                total += chances.prod() * _slate_value(self.chance[x], slate)
        return total / self.chance.shape[0]

    def log(self, n: int, seed: int) -> OffPolicyData:
        generator = np.random.default_rng(seed)
        context = generator.integers(0, self.chance.shape[0], n)
        noise = generator.gumbel(size=(n, self.chance.shape[1]))
        shown = np.argsort(-(self.logging[context] + noise), axis=1)[:, : self.places]
        played = np.zeros(n, bool)
        reward = np.zeros((n, self.places))
        for k in range(self.places):
            chance = self.chance[context, shown[:, k]] * np.where(played, 0.3, 1.0)
            reward[:, k] = generator.random(n) < chance
            played |= reward[:, k] > 0
        expected, remaining = np.zeros((n, self.places)), np.ones((n, self.chance.shape[1]), bool)
        for k in range(self.places):
            probability = softmax(np.where(remaining, self.target[context], -np.inf))
            expected[:, k] = (probability * self.chance[context]).sum(axis=1)
            remaining[np.arange(n), shown[:, k]] = False
        return OffPolicyData(
            members=np.repeat(np.arange(n), self.places),
            slates=np.repeat(np.arange(n), self.places),
            positions=np.tile(np.arange(self.places), n),
            logged=conditional(self.logging[context], shown).ravel(),
            target=conditional(self.target[context], shown).ravel(),
            reward=reward.ravel(),
            predicted=self.chance[context[:, None], shown].ravel(),
            expected=expected.ravel(),
        )


def conditional(scores: np.ndarray, slates: np.ndarray) -> np.ndarray:
    """[n, K] Plackett-Luce probability of each place's title, given the places above."""
    remaining = np.ones(scores.shape, bool)
    out = np.empty(slates.shape)
    rows = np.arange(len(slates))
    for k in range(slates.shape[1]):
        out[:, k] = softmax(np.where(remaining, scores, -np.inf))[rows, slates[:, k]]
        remaining[rows, slates[:, k]] = False
    return out


def _slate_value(chance: np.ndarray, slate: tuple[int, ...]) -> float:
    """Expected plays of one slate: a place pays 0.3 of its chance after any play above."""
    nothing, total = 1.0, 0.0
    for title in slate:
        p = chance[title]
        now = nothing * p + (1 - nothing) * 0.3 * p
        total += now
        nothing *= 1 - p
    return total
