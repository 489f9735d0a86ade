"""Offline protocols and a simulated A/B test: what each says of the policies, and how far they agree.

Axis letters: W worlds, P policies, B draws of policies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from off_policy_study import FREE, rounded
from off_policy_world import OUTCOMES, Questions, real_log
from scipy.stats import kendalltau, rankdata

from playbill.evaluation.off_policy.estimate import estimate
from playbill.metrics import inverse_popularity

K = 10
HELD_OUT_FROM = 0.9


def ranking_protocols(plays: dict[str, np.ndarray], titles: int) -> dict[str, list[float]]:
    """How high each policy ranks what members played under the logging policy, among all they could have watched.

    The policies are fixed: there is nothing to fit on a training fold and nothing to learn between windows, so
    `replay` says what `global_time_successive` does.

    Args:
        plays: See `ProgressListener.ranks`.
        titles: Size of the catalogue.
    """
    cut = np.quantile(plays["at"], HELD_OUT_FROM)
    held = plays["at"] >= cut
    weight = inverse_popularity(np.bincount(plays["title"][~held], minlength=titles))[plays["title"]]
    every, late = np.arange(len(held)), np.flatnonzero(held)
    folds = {
        "leave_one_out": _last(plays["member"], every),
        "global_time": _last(plays["member"], late),
        "global_time_successive": late,
    }
    found = {}
    for name, rows in folds.items():
        ranks = plays["ranks"][rows]
        hit = (ranks > 0) & (ranks <= K)
        gain = np.where(hit, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)
        found[f"{name}_hr@{K}"] = hit.mean(axis=0).tolist()
        found[f"{name}_ndcg@{K}"] = gain.mean(axis=0).tolist()
        found[f"{name}_debiased_ndcg@{K}"] = np.average(gain, axis=0, weights=weight[rows]).tolist()
        # As `reward_ndcg`: a target with a negative reward counts as nothing.
        worth = np.maximum(plays["worth"][rows], 0.0)
        found[f"{name}_reward_ndcg@{K}"] = np.average(gain, axis=0, weights=worth).tolist()
    return found


def _last(members: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Last of some rows of each member; rows are in order of time."""
    backwards = rows[::-1]
    return backwards[np.unique(members[backwards], return_index=True)[1]]


def estimated(questions: dict[str, Questions], kinds: dict[str, tuple[tuple[str, ...], int]]) -> dict[str, list[float]]:
    """What off-policy estimates from the run's own log say of each policy, for plays and for satisfaction."""
    found: dict[str, list[float]] = {}
    for place, (names, places) in kinds.items():
        for outcome in OUTCOMES:
            log = real_log(questions[place], places, outcome)
            model = log.direct(questions[place])
            for p in range(len(questions[place].targets)):
                data = log.weighed(questions[place], p, model)
                for name in names:
                    found.setdefault(f"{name}_{outcome}", []).append(estimate(name, data, rules=FREE).value)
    return found


def agreement(
    offline: list[dict[str, list[float]]], online: list[dict[str, list[float]]], *, resamples: int = 2000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Rank correlation of every protocol with the A/B test: mean over worlds, with an interval over policies.

    The interval draws the policies with replacement, the same ones in every world: with ten policies it is wide, and it
    says how much rests on which policies were compared. It leaves out what another log would have said.

    Args:
        offline: [W] value of each policy by protocol.
        online: [W] `value` and `plays` of each policy in the A/B test.
        resamples: B.
        seed: Of the draws.
    """
    size = len(online[0]["value"])
    draws = np.random.default_rng(seed).integers(0, size, (resamples, size))
    draws = draws[np.array([np.unique(draw).size > 2 for draw in draws])]
    table = {}
    for name in offline[0]:
        pairs = [(np.array(one[name]), np.array(truth["value"])) for one, truth in zip(offline, online, strict=True)]
        drawn = np.mean([spearman(scores[draws], value[draws]) for scores, value in pairs], axis=0)
        plays = [
            spearman(np.array(one[name]), np.array(truth["plays"])) for one, truth in zip(offline, online, strict=True)
        ]
        low, high = np.nanquantile(drawn, [0.025, 0.975])
        table[name] = {
            "spearman": rounded(np.mean([spearman(*pair) for pair in pairs])),
            "low": rounded(low),
            "high": rounded(high),
            "by_world": [rounded(spearman(*pair)) for pair in pairs],
            "kendall": rounded(np.mean([kendalltau(*pair).statistic for pair in pairs])),
            "spearman_plays": rounded(np.mean(plays)),
        }
    return table


def spearman(left: np.ndarray, right: np.ndarray) -> Any:
    """Rank correlation along the last axis; NaN where one side is constant."""
    first, second = (rankdata(values, axis=-1) for values in (left, right))
    first, second = first - first.mean(axis=-1, keepdims=True), second - second.mean(axis=-1, keepdims=True)
    below = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (first * second).sum(axis=-1) / below
