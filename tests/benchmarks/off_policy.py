"""How far off-policy estimates can be trusted, against a simulated service whose truth is known.

    .venv/bin/python tests/benchmarks/off_policy.py --json
    .venv/bin/python tests/benchmarks/off_policy.py --members 300 --days 7 --repeats 20 --ab-members 200 --ab-days 7

A logging policy runs a simulated service. Ten other policies (other temperatures; blends of popularity, taste, appeal
and quality; uniform) are judged from its log. Bias and interval coverage come from repeated logs: members drawn with
replacement, slates drawn by the logging policy, luck drawn anew; the truth is the mean exact expectation over all
questions. Rank correlations compare what each offline protocol says of the policies with a simulated A/B test in
which each of them serves everything: the long-term value of members in days.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "problems"))

import numpy as np
from off_policy_world import LOGGING, OUTCOMES, Questions, another_log, real_log, target_policies, watched_run
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from playbill.errors import EffectiveSampleError
from playbill.metrics import DEFAULT_FLOOR, Rules, estimate
from playbill.simulator import World, WorldSpec, simulate

ROWS = ("ips", "clipped_ips", "snips", "doubly_robust", "self_normalised_dr", "switch_dr", "direct")
SLATES = ("slate", "slate_snips", "slate_dr", "slate_independent")
STUDY = Rules(interval="normal", floor=0.0)


def main() -> None:
    given = arguments()
    started = time.perf_counter()
    spec = WorldSpec(members=given.members, days=given.days, titles=given.titles, seed=given.seed)
    policies = target_policies()
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        arms = {name: pool.submit(arm, given, name) for name in policies}
        watcher = watched_run(World.make(spec), policies)
        kinds = {"billboard": (ROWS, 1), "top_picks": (SLATES, given.places)}
        questions = {name: watcher.questions(name) for name in kinds}
        studies = {name: study(questions[name], *kinds[name], given) for name in kinds}
        online = {name: future.result() for name, future in arms.items()}
    offline = {**ranked(watcher.ranks(), given), **weighed(questions, kinds, given)}
    result = {
        "bias": {name: value for one in studies.values() for name, value in one["bias"].items()},
        "coverage_95": {name: value for one in studies.values() for name, value in one["coverage"].items()},
        "rank_correlation": correlations(offline, online),
        "variance": studies["billboard"]["variance"],
        "effective_sample_size": {name: one["effective"] for name, one in studies.items()},
        "refusal": refusal(questions["top_picks"], given),
        "by_policy": {name: one["by_policy"] for name, one in studies.items()},
        "offline": offline,
        "online": online,
        "questions": {name: len(one.member) for name, one in questions.items()},
        "truth_check": max(one.check for one in questions.values()),
        "settings": vars(given),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if given.json:
        print(json.dumps(result))
    else:
        show(result)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=2000, help="members of the logged service")
    parser.add_argument("--days", type=int, default=14, help="days that are logged")
    parser.add_argument("--titles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=200, help="repeated logs behind bias and coverage")
    parser.add_argument("--places", type=int, default=4, help="first places of the row that slates are judged by")
    parser.add_argument("--draws", type=int, default=40, help="slates per question behind the truth of slates")
    parser.add_argument("--ab-members", type=int, default=3000, help="members of every arm of the A/B test")
    parser.add_argument("--ab-days", type=int, default=42)
    parser.add_argument("--workers", type=int, default=2, help="arms of the A/B test that run side by side")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser.parse_args()


def arm(given: argparse.Namespace, name: str) -> dict[str, float]:
    """Let one policy serve everything; what members are worth, with the standard error of the mean."""
    spec = WorldSpec(members=given.ab_members, days=given.ab_days, titles=given.titles, seed=given.seed)
    members = simulate(World.make(spec), target_policies()[name]).members
    values = members["value"].to_numpy()
    error = float(values.std(ddof=1) / len(values) ** 0.5)
    return {"value": float(values.mean()), "value_error": error, "plays": float(members["plays"].mean())}


def study(questions: Questions, names: tuple[str, ...], places: int, given: argparse.Namespace) -> dict[str, Any]:
    """Estimate every policy from repeated logs, and hold the estimates against the truth."""
    generator = np.random.default_rng(given.seed)
    policies = list(target_policies())
    truth = [questions.truth(p, places, "play", given.draws, generator) for p in range(len(policies))]
    found = np.full((given.repeats, len(policies), len(names), 4), np.nan)
    for repeat in range(given.repeats):
        log = another_log(questions, places, "play", generator)
        model = log.direct(questions)
        for p in range(len(policies)):
            data = log.weighed(questions, p, model)
            for e, name in enumerate(names):
                one = estimate(name, data, rules=STUDY)
                inside = one.low <= truth[p] <= one.high
                found[repeat, p, e] = one.value, inside, one.effective_sample_size, one.weight_max
    return summary(found, np.array(truth), policies, names)


def summary(found: np.ndarray, truth: np.ndarray, policies: list[str], names: tuple[str, ...]) -> dict[str, Any]:
    values = found[..., 0]
    bias = values.mean(axis=0) / truth[:, None] - 1.0
    noise = values.std(axis=0, ddof=1) / len(values) ** 0.5 / truth[:, None]
    variance = values.var(axis=0, ddof=1)
    covered, effective, largest = (found[..., column].mean(axis=0) for column in (1, 2, 3))
    given = found[..., 2] >= DEFAULT_FLOOR
    kept = np.where(given, found[..., 1], np.nan)
    place = {name: at for at, name in enumerate(names)}
    return {
        "bias": {
            name: {
                "mean": rounded(bias[:, e].mean()),
                "largest": rounded(bias[np.abs(bias[:, e]).argmax(), e]),
                "noise": rounded(noise[:, e].max()),
            }
            for e, name in enumerate(names)
        },
        "coverage": {
            name: {
                "mean": rounded(covered[:, e].mean()),
                "lowest": rounded(covered[:, e].min()),
                "above_floor": rounded(np.nanmean(kept[..., e])) if given[..., e].any() else None,
                "refused": rounded(1.0 - given[..., e].mean()),
            }
            for e, name in enumerate(names)
        },
        "variance": {
            policy: {
                name: rounded(variance[p, place[name]] / truth[p] ** 2, 6)
                for name in ("ips", "snips", "doubly_robust")
                if name in place
            }
            for p, policy in enumerate(policies)
        },
        "effective": {
            policy: {"effective": rounded(effective[p, 0], 1), "largest_weight": rounded(largest[p, 0], 2)}
            for p, policy in enumerate(policies)
        },
        "by_policy": {
            policy: {
                "truth": rounded(truth[p], 5),
                "bias": dict(zip(names, map(rounded, bias[p]), strict=True)),
                "coverage": dict(zip(names, map(rounded, covered[p]), strict=True)),
            }
            for p, policy in enumerate(policies)
        },
    }


def ranked(plays: dict[str, np.ndarray], given: argparse.Namespace) -> dict[str, list[float]]:
    """What ranking protocols say of each policy: how high it puts what members played under the logging policy."""
    cut = plays["at"].min() + 0.9 * (plays["at"].max() - plays["at"].min())
    folds = {"leave_one_out": np.ones(len(plays["at"]), bool), "global_time": plays["at"] >= cut}
    found = {}
    for name, fold in folds.items():
        members, ranks = plays["member"][fold], plays["ranks"][fold]
        last = len(members) - 1 - np.unique(members[::-1], return_index=True)[1]
        hit = (ranks[last] > 0) & (ranks[last] <= 10)
        found[f"{name}_hr@10"] = hit.mean(axis=0).tolist()
        gain = np.where(hit, 1.0 / np.log2(np.maximum(ranks[last], 1) + 1.0), 0.0)
        found[f"{name}_ndcg@10"] = gain.mean(axis=0).tolist()
        # Gains may be negative here: a play that made its member sorry counts against who ranks it high.
        found[f"{name}_reward_ndcg@10"] = (gain * plays["worth"][fold][last, None]).mean(axis=0).tolist()
    return found


def weighed(
    questions: dict[str, Questions], kinds: dict[str, tuple[tuple[str, ...], int]], given: argparse.Namespace
) -> dict[str, list[float]]:
    """What off-policy estimates from the run's own log say of each policy, for plays and for satisfaction."""
    found: dict[str, list[float]] = {}
    for place, (names, places) in kinds.items():
        for outcome in OUTCOMES:
            log = real_log(questions[place], places, outcome)
            model = log.direct(questions[place])
            for p in range(len(questions[place].targets)):
                data = log.weighed(questions[place], p, model)
                for name in names:
                    value = estimate(name, data, rules=STUDY).value
                    found.setdefault(f"{name}_{outcome}", []).append(value)
    return found


def correlations(offline: dict[str, list[float]], online: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    value, plays = ([one[key] for one in online.values()] for key in ("value", "plays"))
    return {
        name: {
            "spearman": rounded(spearmanr(scores, value).statistic),
            "kendall": rounded(kendalltau(scores, value).statistic),
            "spearman_plays": rounded(spearmanr(scores, plays).statistic),
        }
        for name, scores in offline.items()
    }


def refusal(questions: Questions, given: argparse.Namespace) -> dict[str, Any]:
    """Judge a policy that always shows what the logging policy likes best: no log of this size supports it."""
    best = np.zeros_like(questions.logging[None])
    best[0, np.arange(len(best[0])), questions.logging.argmax(axis=1)] = 1.0 - 1e-6
    greedy = Questions(**{**vars(questions), "targets": best + 1e-6 / best.shape[2]})
    data = real_log(greedy, given.places, "play").weighed(greedy, 0, None)
    try:
        estimate("slate", data)
    except EffectiveSampleError as error:
        return {"refused": True, "effective": rounded(error.effective, 2), "message": str(error)}
    return {"refused": False}


def rounded(value: Any, digits: int = 4) -> float:
    return round(float(value), digits)


def show(result: dict[str, Any]) -> None:
    console = Console()
    table = Table(title="estimators against the truth, ten policies")
    for name in ("estimator", "bias, mean", "bias, largest", "coverage", "lowest", "above the floor", "refused"):
        table.add_column(name)
    for name, bias in result["bias"].items():
        covered = result["coverage_95"][name]
        shares = ("-" if value is None else f"{value:.3f}" for value in covered.values())
        table.add_row(name, f"{bias['mean']:+.3f}", f"{bias['largest']:+.3f}", *shares)
    console.print(table)
    table = Table(title="rank correlation with the simulated A/B")
    for name in ("protocol", "spearman", "kendall", "spearman with plays"):
        table.add_column(name)
    for name, one in result["rank_correlation"].items():
        table.add_row(name, *(f"{value:+.2f}" for value in one.values()))
    console.print(table)
    console.print(result["refusal"].get("message", "nothing was refused"))
    console.print(f"logging policy {LOGGING.name}; {result['questions']} questions; {result['seconds']} s")


if __name__ == "__main__":
    main()
