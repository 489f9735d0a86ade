"""How far off-policy estimates can be trusted, against a simulated service whose truth is known.

    .venv/bin/python tests/benchmarks/off_policy.py --json
    .venv/bin/python tests/benchmarks/off_policy.py --members 300 --days 7 --repeats 20 --worlds 1 --ab-members 200

A logging policy runs a simulated service. Ten other policies (other temperatures; blends of popularity, taste, appeal
and quality; uniform) are judged from its log. Bias, interval coverage and variances come from repeated logs: members
drawn with replacement, slates drawn by the logging policy, luck drawn anew; the truth is the mean exact expectation
over all questions. Rank correlations compare what each offline protocol says of the policies with a simulated A/B test
in which each of them serves everything: the long-term value of members in days.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fixtures_path  # noqa: F401
import numpy as np
from rich.console import Console
from rich.table import Table

from fixtures.off_policy_agreement import agreement, estimated, ranking_protocols
from fixtures.off_policy_study import Study, rounded, study
from fixtures.off_policy_world import LOGGING, ProgressListener, Questions, real_log, target_policies, watched_run
from playbill.errors import EffectiveSampleError
from playbill.evaluation.off_policy.estimate import estimate
from playbill_lab.simulator import World, WorldSpec, simulate

ROWS = ("ips", "clipped_ips", "snips", "doubly_robust", "self_normalised_dr", "switch_dr", "direct")
SLATES = ("slate", "slate_snips", "slate_dr", "slate_independent")
POLICIES = tuple(target_policies())


def main() -> None:
    given = arguments()
    started = time.perf_counter()
    kinds = {"billboard": (ROWS, 1), "top_picks": (SLATES, given.places)}
    seeds = [given.seed + number for number in range(given.worlds)]
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        arms = [{name: pool.submit(arm, given, seed, name) for name in POLICIES} for seed in seeds]
        watched = [watched_run(world(given.members, given.days, given, seed), target_policies()) for seed in seeds]
        questions = [{name: watcher.questions(name) for name in kinds} for watcher in watched]
        studies = {name: studied(questions[0][name], *kinds[name], given) for name in kinds}
        online = [served(one) for one in arms]
    offline = [judged(*one, kinds, given) for one in zip(watched, questions, strict=True)]
    result = {
        "bias": {name: value for one in studies.values() for name, value in one.bias().items()},
        "coverage_95": {name: value for one in studies.values() for name, value in one.coverage().items()},
        "rank_correlation": agreement(offline, online),
        "snips_variance_ratio": {name: one.variance_ratio() for name, one in studies.items()},
        "bootstrap_coverage_95": {name: one.bootstrap_coverage() for name, one in studies.items()},
        "policies": len(POLICIES),
        "refusal": refusal(questions[0]["top_picks"], given),
        "by_policy": {name: one.by_policy() for name, one in studies.items()},
        "offline": offline,
        "online": online,
        "questions": {name: len(one.member) for name, one in questions[0].items()},
        "truth_check": max(one.check for world in questions for one in world.values()),
        "settings": {name: value for name, value in vars(given).items() if name not in ("json", "plot")},
        "seconds": round(time.perf_counter() - started, 1),
    }
    if given.plot is not None:
        draw(studies, offline, online, given.plot)
    if given.json:
        print(json.dumps(result))
    else:
        show(result)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=1500, help="members of the logged service")
    parser.add_argument("--days", type=int, default=10, help="days that are logged")
    parser.add_argument("--titles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7, help="of the first world; the others follow")
    parser.add_argument("--worlds", type=int, default=3, help="worlds behind the rank correlations")
    parser.add_argument("--repeats", type=int, default=200, help="repeated logs behind bias, coverage and variances")
    parser.add_argument("--resamples", type=int, default=300, help="of the bootstrap whose coverage is measured")
    parser.add_argument("--places", type=int, default=4, help="first places of the row that slates are judged by")
    parser.add_argument("--draws", type=int, default=40, help="slates per question behind the truth of slates")
    parser.add_argument("--ab-members", type=int, default=3000, help="members of every arm of the A/B test")
    parser.add_argument("--ab-days", type=int, default=42)
    parser.add_argument("--workers", type=int, default=2, help="arms of the A/B test that run side by side")
    parser.add_argument("--plot", type=Path, help="file for a picture of estimates against the truth")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser.parse_args()


def world(members: int, days: int, given: argparse.Namespace, seed: int) -> World:
    return World.make(WorldSpec(members=members, days=days, titles=given.titles, seed=seed))


def arm(given: argparse.Namespace, seed: int, name: str) -> dict[str, float]:
    """Let one policy serve everything; what members are worth, with the standard error of the mean."""
    members = simulate(world(given.ab_members, given.ab_days, given, seed), target_policies()[name]).members
    values = members["value"].to_numpy()
    error = float(values.std(ddof=1) / len(values) ** 0.5)
    return {"value": float(values.mean()), "value_error": error, "plays": float(members["plays"].mean())}


def served(arms: dict[str, Future[dict[str, float]]]) -> dict[str, list[float]]:
    """Wait for one world's A/B test; every measure as a list over policies."""
    found = [future.result() for future in arms.values()]
    return {key: [one[key] for one in found] for key in found[0]}


def studied(questions: Questions, names: tuple[str, ...], places: int, given: argparse.Namespace) -> Study:
    options = {"repeats": given.repeats, "draws": given.draws, "resamples": given.resamples, "seed": given.seed}
    return study(questions, POLICIES, names, places=places, **options)


def judged(
    watcher: ProgressListener,
    questions: dict[str, Questions],
    kinds: dict[str, tuple[tuple[str, ...], int]],
    given: Any,
) -> dict[str, list[float]]:
    """What every offline protocol says of each policy, from one log."""
    return {**ranking_protocols(watcher.ranks(), given.titles), **estimated(questions, kinds)}


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


def draw(
    studies: dict[str, Study], offline: list[dict[str, list[float]]], online: list[dict[str, list[float]]], path: Path
) -> None:
    """Draw estimates against the truth, and protocols against the A/B test of the first world."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 4)
    shown = [("billboard", "ips"), ("billboard", "snips"), ("billboard", "doubly_robust"), ("top_picks", "slate_snips")]
    for axes, (place, name) in zip(top, shown, strict=True):
        one = studies[place]
        values = one.found[:, :, one.names.index(name), 0]
        ends = [one.truth.min() * 0.8, one.truth.max() * 1.1]
        axes.plot(ends, ends, color="#222222", linestyle="--", linewidth=1)
        axes.errorbar(one.truth, values.mean(axis=0), yerr=1.96 * values.std(axis=0), fmt="o", color="#4477aa")
        axes.set_title(f"{place}: {name}")
        axes.set_xlabel("true plays per slate")
    top[0].set_ylabel("mean estimate, 95 % of the logs")
    protocols = ("global_time_ndcg@10", "global_time_reward_ndcg@10", "snips_play", "snips_satisfaction")
    for axes, name in zip(bottom, protocols, strict=True):
        axes.plot(offline[0][name], online[0]["value"], "o", color="#aa3377")
        for policy, across, value in zip(POLICIES, offline[0][name], online[0]["value"], strict=True):
            axes.annotate(policy, (across, value), fontsize=7, xytext=(3, 3), textcoords="offset points")
        axes.set_xlabel(name)
    bottom[0].set_ylabel("A/B test: days a member stays")
    figure.savefig(path, dpi=80)


def show(result: dict[str, Any]) -> None:
    console = Console()
    columns = ("estimator", "bias, mean", "bias, largest", "noise", "coverage", "lowest", "above the floor", "refused")
    table = _table("estimators against the truth, ten policies", columns)
    for name, bias in result["bias"].items():
        covered = result["coverage_95"][name]
        shares = ("-" if value is None else f"{value:.3f}" for value in covered.values())
        table.add_row(name, f"{bias['mean']:+.3f}", f"{bias['largest']:+.3f}", f"{bias['noise']:.3f}", *shares)
    console.print(table)
    table = _table("variance, self-normalised over plain", ("place", "reward", "geometric mean", "policies below 1"))
    for place, rewards in result["snips_variance_ratio"].items():
        for reward, one in rewards.items():
            table.add_row(place, reward, f"{one['mean']:.3f}", f"{one['below_one']:.0%}")
    console.print(table)
    columns = ("protocol", "spearman", "over policies", "by world", "kendall", "spearman with plays")
    table = _table("rank correlation with the simulated A/B", columns)
    for name, one in result["rank_correlation"].items():
        worlds = " ".join(f"{value:+.2f}" for value in one["by_world"])
        ends = f"[{one['low']:+.2f}, {one['high']:+.2f}]"
        rest = (f"{one[key]:+.2f}" for key in ("kendall", "spearman_plays"))
        table.add_row(name, f"{one['spearman']:+.2f}", ends, worlds, *rest)
    console.print(table)
    console.print(result["refusal"].get("message", "nothing was refused"))
    console.print(f"logging policy {LOGGING.name}; {result['questions']} questions; {result['seconds']} s")


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title)
    for name in columns:
        table.add_column(name)
    return table


if __name__ == "__main__":
    main()
