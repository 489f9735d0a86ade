"""Estimators held against the truth, log after log: bias, interval coverage, and variances.

Axis letters: R repeated logs, P target policies, E estimators.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from off_policy_world import Questions, another_log

from playbill.evaluation.off_policy.estimate import DEFAULT_FLOOR, Rules, estimate
from playbill.evaluation.off_policy.terms import OffPolicyData

FREE = Rules(interval="normal", floor=0.0, coverage=0.0)
"""Nothing is refused: a study sees what the floor protects from."""

PAIRS = {"ips": "snips", "slate": "slate_snips"}
"""Estimators and their self-normalised forms."""


@dataclass(frozen=True)
class Study:
    """What repeated logs showed.

    Args:
        policies: P names.
        names: E estimators.
        truth: [P].
        found: [R, P, E, 4] value, whether the interval holds the truth, effective sample size, largest weight.
        drawn: [R, P] whether the bootstrap's interval of the self-normalised estimator holds the truth.
        passed_by: [R, P, 2] plain and self-normalised estimates where the reward is 1 for each place looked at in vain.
    """

    policies: tuple[str, ...]
    names: tuple[str, ...]
    truth: np.ndarray
    found: np.ndarray
    drawn: np.ndarray
    passed_by: np.ndarray

    @property
    def pair(self) -> tuple[int, int]:
        """Places of the plain estimator and of its self-normalised form."""
        plain = next(name for name in PAIRS if name in self.names)
        return self.names.index(plain), self.names.index(PAIRS[plain])

    def bias(self) -> dict[str, dict[str, float]]:
        """Mean error over the truth: over policies, of the worst policy, and the standard error of the worst known."""
        off = self._bias()
        noise = self.found[..., 0].std(axis=0, ddof=1) / len(self.found) ** 0.5 / self.truth[:, None]
        return {
            name: {
                "mean": rounded(off[:, e].mean()),
                "largest": rounded(off[np.abs(off[:, e]).argmax(), e]),
                "noise": rounded(noise[:, e].max()),
            }
            for e, name in enumerate(self.names)
        }

    def coverage(self) -> dict[str, dict[str, float | None]]:
        """Share of intervals that hold the truth; `above_floor`: of those that are not refused."""
        held, given = self.found[..., 1].mean(axis=0), self.found[..., 2] >= DEFAULT_FLOOR
        kept = np.where(given, self.found[..., 1], np.nan)
        return {
            name: {
                "mean": rounded(held[:, e].mean()),
                "lowest": rounded(held[:, e].min()),
                "above_floor": rounded(np.nanmean(kept[..., e])) if given[..., e].any() else None,
                "refused": rounded(1.0 - given[..., e].mean()),
            }
            for e, name in enumerate(self.names)
        }

    def bootstrap_coverage(self) -> dict[str, float | None]:
        """The same for the bootstrap's intervals, which reports print."""
        given = self.found[..., self.pair[1], 2] >= DEFAULT_FLOOR
        return {
            "mean": rounded(self.drawn.mean()),
            "above_floor": rounded(self.drawn[given].mean()) if given.any() else None,
        }

    def variance_ratio(self) -> dict[str, dict[str, float]]:
        """Variance of the self-normalised estimator over that of the plain one, by reward; geometric means."""
        values = {"play": self.found[..., list(self.pair), 0], "passed_by": self.passed_by}
        table = {}
        for reward, pairs in values.items():
            spread = pairs.var(axis=0, ddof=1)
            ratio = spread[:, 1] / spread[:, 0]
            table[reward] = {
                "mean": rounded(np.exp(np.log(ratio).mean())),
                "below_one": rounded((ratio < 1.0).mean()),
                **dict(zip(self.policies, map(rounded, ratio), strict=True)),
            }
        return table

    def by_policy(self) -> dict[str, Any]:
        """Truth, bias, coverage, spread and effective sample size of each policy."""
        off, mean = self._bias(), self.found.mean(axis=0)
        spread = self.found[..., 0].std(axis=0, ddof=1)
        return {
            policy: {
                "truth": rounded(self.truth[p], 5),
                "effective_sample_size": rounded(mean[p, self.pair[0], 2], 1),
                "largest_weight": rounded(mean[p, self.pair[0], 3], 2),
                "value": dict(zip(self.names, (rounded(v, 5) for v in mean[p, :, 0]), strict=True)),
                "spread": dict(zip(self.names, (rounded(v, 5) for v in spread[p]), strict=True)),
                "bias": dict(zip(self.names, map(rounded, off[p]), strict=True)),
                "coverage": dict(zip(self.names, map(rounded, mean[p, :, 1]), strict=True)),
            }
            for p, policy in enumerate(self.policies)
        }

    def _bias(self) -> np.ndarray:
        return np.asarray(self.found[..., 0].mean(axis=0) / self.truth[:, None] - 1.0)


def study(
    questions: Questions,
    policies: tuple[str, ...],
    names: tuple[str, ...],
    *,
    places: int,
    repeats: int,
    draws: int,
    resamples: int,
    seed: int,
) -> Study:
    """Estimate every policy from repeated logs, and hold the estimates against the truth.

    Args:
        questions: Of one canvas or row.
        policies: Names of its target policies.
        names: Estimators, all over rows or all over slates.
        places: First places of each slate that are judged.
        repeats: Logs.
        draws: Slates per question behind the truth of slates.
        resamples: Of the bootstrap.
        seed: Of everything that is drawn.
    """
    generator = np.random.default_rng(seed)
    size = len(policies)
    truth = [questions.truth(p, places, "play", draws, generator) for p in range(size)]
    plain = next(name for name in PAIRS if name in names)
    found, drawn = np.full((repeats, size, len(names), 4), np.nan), np.zeros((repeats, size))
    passed_by = np.zeros((repeats, size, 2))
    for repeat in range(repeats):
        log = another_log(questions, places, "play", generator)
        model = log.direct(questions)
        for p in range(size):
            data = log.weighed(questions, p, model)
            found[repeat, p] = [_held(name, data, truth[p], FREE) for name in names]
            rules = replace(FREE, interval="bootstrap", resamples=resamples, seed=repeat)
            drawn[repeat, p] = _held(PAIRS[plain], data, truth[p], rules)[1]
            vain = replace(data, reward=1.0 - data.reward)
            passed_by[repeat, p] = [estimate(name, vain, rules=FREE).value for name in (plain, PAIRS[plain])]
    return Study(policies, names, np.array(truth), found, drawn, passed_by)


def _held(name: str, data: OffPolicyData, truth: float, rules: Rules) -> tuple[float, float, float, float]:
    one = estimate(name, data, rules=rules)
    return one.value, float(one.low <= truth <= one.high), one.effective_sample_size, one.weight_max


def rounded(value: Any, digits: int = 4) -> float:
    """Return a plain float with a few digits."""
    return round(float(value), digits)
