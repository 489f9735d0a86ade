"""Is it worth predicting delayed rewards? Against waiting for them and ignoring them, on exact long-term value.

    python tests/benchmarks/delayed_feedback.py --json
    python tests/benchmarks/delayed_feedback.py --members 300 --days 42 --first-day 28 --seeds 7 --json

A simulated service with many launches runs under its own policy until `--first-day`. Then each arm takes over, with
the same members and luck, and learns anew every week from its own log: from long-term rewards whose young terms are
predicted, waited for, or ignored, and from a click-like reward. Each arm's members are compared with those of the
predicting one, member by member, on the simulator's exact long-term value; what came of titles launched in the last
14 days is shown apart. The last line is one JSON object.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

import click
import numpy as np
from delayed_policy import Objective, Relearning, auc_of_plays, fitted, shown
from sklearn.metrics import roc_auc_score

from playbill.labels import label_events
from playbill.rewards import DelayedSettings, delayed_report, reward_version
from playbill.simulator import World, WorldSpec, load_policy, simulate
from playbill.simulator.launches import DAY_US, microseconds
from playbill.simulator.law import LAW
from playbill.zoo import load_zoo

ROOT = Path(__file__).parents[2]
ARMS = {
    "predicted": ("long_term", "predict"),
    "waiting": ("long_term", "wait"),
    "ignoring": ("long_term", "ignore"),
    "click_like": ("click_like", "ignore"),
}
NEW_DAYS = 14
RESAMPLES = 2_000


@click.command(help=__doc__)
@click.option("--members", default=3000, show_default=True)
@click.option("--titles", default=500, show_default=True)
@click.option("--launches", default=25.0, show_default=True, help="New titles a week.")
@click.option("--days", default=70, show_default=True, help="Of the run.")
@click.option("--first-day", default=28, show_default=True, help="When the arms take over.")
@click.option("--seeds", default="7,8,9,10", show_default=True)
@click.option("--sharpness", default=1.5, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(members, titles, launches, days, first_day, seeds, sharpness, workers, as_json):
    """Run every seed's arms, and compare."""
    started = time.perf_counter()
    sizes = {"members": members, "titles": titles, "launches_per_week": launches, "days": days}
    jobs = [(sizes, int(seed), arm, first_day, sharpness) for seed in seeds.split(",") for arm in ARMS]
    jobs += [(sizes, int(seed), None, first_day, sharpness) for seed in seeds.split(",")]
    with ProcessPoolExecutor(workers) as pool:
        done = list(pool.map(_job, jobs))
    runs = {(job[1], job[2]): found for job, found in zip(jobs, done, strict=True)}
    result = summary(runs, [int(seed) for seed in seeds.split(",")])
    result |= {"seconds": round(time.perf_counter() - started, 1), "sizes": sizes | {"first_day": first_day}}
    for name, value in result.items():
        click.echo(f"{name}: {value}")
    if as_json:
        click.echo(json.dumps(result))


def _job(job):
    sizes, seed, arm, first_day, sharpness = job
    world = World.make(WorldSpec(seed=seed, **sizes))
    return offline(world, first_day) if arm is None else online(world, arm, first_day, sharpness)


def objective(arm, seed):
    """Return what an arm learns from."""
    zoo = load_zoo(ROOT / "model_zoo", ROOT / "feature_repo")
    name, young = ARMS[arm]
    reward = zoo.rewards[name]
    labels = {term: zoo.labels[term] for term in reward.terms}
    return Objective(reward, labels, young, DelayedSettings(trees=100, most=120_000, seed=seed))


def online(world, arm, first_day, sharpness):
    """Run a world with an arm; return [M] long-term value and what new titles brought each member."""
    policy = Relearning(arm, objective(arm, world.spec.seed), first_day, sharpness=sharpness)
    begin = microseconds(world.spec.start) + first_day * DAY_US
    pleased, plays = np.zeros(world.spec.members), np.zeros((world.spec.members, 2))

    def watch(asked, slates, response):
        rows = np.flatnonzero((response.played >= 0) & (asked.at_us >= begin))
        title, member = slates.titles[rows, response.played[rows]], asked.member[rows]
        age = asked.at_us[rows] - world.windows.opens[title, asked.country[rows]]
        new = (age >= 0) & (age < NEW_DAYS * DAY_US)
        pleased[member[new]] += LAW.satisfying(response.gladness[rows])[new]
        plays[member, 1] += 1
        plays[member, 0] += new

    outcome = simulate(world, policy, keep_log=True, watch=watch)
    return {
        "value": outcome.members["value"].to_numpy(),
        "new_titles": pleased,
        "plays": plays[:, 1],
        "new_plays": plays[:, 0],
        "bait": float(outcome.members_per_title[world.truth.bait].sum() / outcome.members_per_title.sum()),
    }


def offline(world, first_day):
    """Train on the service's own log and measure on its last week: by age, and what each reward does for plays."""
    spec = world.spec
    log = simulate(world, load_policy("plackett_luce"), keep_log=True).interactions
    best = objective("predicted", spec.seed)
    outcomes = label_events(list(best.labels.values()), log, spec.end, world.availability, world.titles)
    split = spec.start + timedelta(days=max(first_day, spec.days - 22))
    report = delayed_report(
        best.reward, best.labels, outcomes, log, spec.end, split, world.availability, settings=best.settings
    )
    cut = spec.end - timedelta(days=7)
    before, seen = log.filter(log["recorded_at"] <= cut), shown(log, world)
    learnt = shown(before, world)
    auc = {}
    for arm in ("predicted", "click_like"):
        weights = fitted(learnt, objective(arm, spec.seed).values(before, world, cut), world)
        auc[arm] = auc_of_plays(weights, seen, cut, roc_auc_score)
    return {"report": report.rows, "auc": auc, "version": reward_version(best.reward, best.labels)}


def summary(runs, seeds):
    """Compare the arms over all seeds."""

    def members(arm, name):
        return np.concatenate([runs[seed, arm][name] for seed in seeds])

    result = {"reward": runs[seeds[0], None]["version"]}
    result |= {f"value_{arm}": round(float(members(arm, "value").mean()), 2) for arm in ARMS}
    for other in ("waiting", "ignoring"):
        result[f"predicted_minus_{other}"] = interval(members("predicted", "value") - members(other, "value"))
        gain = members("predicted", "new_titles") - members(other, "new_titles")
        result[f"new_titles_predicted_minus_{other}"] = interval(gain)
    result["new_title_play_share"] = {
        arm: round(float(members(arm, "new_plays").sum() / members(arm, "plays").sum()), 4) for arm in ARMS
    }
    reports = [runs[seed, None]["report"] for seed in seeds]
    for name, measure in (("auc_by_age", "auc"), ("ece_by_age", "ece"), ("log_loss_by_age", "log_loss")):
        result[name] = by_age(reports, measure)
    gains = np.array([runs[seed, None]["auc"]["click_like"] - runs[seed, None]["auc"]["predicted"] for seed in seeds])
    result["click_like_offline_auc"] = round(
        float(np.mean([runs[seed, None]["auc"]["click_like"] for seed in seeds])), 4
    )
    result["click_like_offline_gain"] = interval(gains)
    result["click_like_value_loss"] = interval(members("predicted", "value") - members("click_like", "value"))
    result["bait_share"] = {arm: round(float(np.mean([runs[seed, arm]["bait"] for seed in seeds])), 4) for arm in ARMS}
    return result


def by_age(reports, measure):
    """Return term -> age in hours -> mean of a measure over seeds."""
    terms = reports[0]["term"].unique(maintain_order=True)
    found = {}
    for term in terms:
        rows = [report.filter(report["term"] == term) for report in reports]
        ages = rows[0]["age_h"].to_list()
        mean = np.mean([row[measure].to_numpy() for row in rows], axis=0)
        found[term] = {str(age): round(float(value), 4) for age, value in zip(ages, mean, strict=True)}
    return found


def interval(differences):
    """Return the mean of differences and its 95 % interval, by bootstrap over the rows."""
    rng = np.random.default_rng(1)
    count = len(differences)
    means = [differences[rng.integers(0, count, count)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {"value": round(float(differences.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


if __name__ == "__main__":
    main()
