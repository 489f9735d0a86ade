"""Is it worth predicting delayed rewards? Against waiting for them and ignoring them, by the simulator's exact value.

    python tests/benchmarks/delayed_feedback.py --json
    python tests/benchmarks/delayed_feedback.py --members 300 --titles 150 --days 42 --seeds 7 --json

A simulated service with many launches runs under its own policy until `--first-day`. Then each arm takes over, with
the same members and luck, and learns anew every `--every` days from nothing but its own log: from long-term rewards
whose young terms are predicted, waited for or ignored, whose delayed terms are left out (`at_once`), and from a
click-like reward. The arms are compared member by member on the simulator's long-term value (days as a member, with
the luck of who leaves taken out), on satisfaction, on who stayed, and on what titles of the last 14 days brought.
On the service's own log it is measured how well young terms are told at each age, how well the policies of both
rewards tell what is played next, and how rewards rank members by how often they come back. The last line is one JSON
object.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
from delayed_offline import ARMS, objective, offline
from delayed_pictures import draw
from delayed_policy import Relearning
from delayed_value import Nights
from threadpoolctl import threadpool_limits

from playbill.clock import to_microseconds
from playbill_lab.simulator import World, WorldSpec, simulate
from playbill_lab.simulator.world.behaviour_model import LAW
from playbill_lab.simulator.world.launches import DAY_US

OTHERS = ("waiting", "ignoring", "at_once")
OFFLINE = "offline"
NEW_DAYS = 14
RESAMPLES = 4_000


@click.command(help=__doc__)
@click.option("--members", default=1000, show_default=True)
@click.option("--titles", default=300, show_default=True)
@click.option("--launches", default=20.0, show_default=True, help="New titles a week.")
@click.option("--days", default=63, show_default=True, help="Of the run.")
@click.option("--first-day", default=21, show_default=True, help="When the arms take over.")
@click.option("--every", default=3, show_default=True, help="Days from one learning to the next.")
@click.option("--seeds", default="7,8,9,10,11", show_default=True)
@click.option("--sharpness", default=1.5, show_default=True, help="Of the arms' draws, per log odds learnt.")
@click.option("--workers", default=2, show_default=True)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Picture, .svg or .png.")
@click.option("--json", "as_json", is_flag=True)
def main(members, titles, launches, days, first_day, every, seeds, sharpness, workers, plot, as_json):
    """Run every seed's arms, and compare."""
    started = time.perf_counter()
    sizes = {"members": members, "titles": titles, "launches_per_week": launches, "days": days}
    wanted = [int(seed) for seed in seeds.split(",")]
    policy = {"first_day": first_day, "every": every, "sharpness": sharpness}
    jobs = [(seed, arm) for seed in wanted for arm in (*ARMS, OFFLINE)]
    # A forked worker would wait for ever on locks of threads that did not come along.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(partial(job, sizes, policy), *zip(*jobs, strict=True)))
    runs = dict(zip(jobs, done, strict=True))
    result = summary(runs, wanted)
    result |= {"sizes": sizes | policy | {"seeds": wanted}, "seconds": round(time.perf_counter() - started, 1)}
    if plot is not None:
        draw(result, plot)
    for name, value in result.items():
        click.echo(f"{name}: {value}")
    if as_json:
        click.echo(json.dumps(result))


def job(sizes, policy, seed, arm):
    """Run one arm of one world, or measure what can be measured on the log of its own policy."""
    world = World.make(WorldSpec(seed=seed, **sizes))
    with threadpool_limits(1):
        return offline(world) if arm == OFFLINE else online(world, arm, policy)


def online(world, arm, policy):
    """Run a world with an arm; return what came of each of the K members who had not left when it took over."""
    begin = to_microseconds(world.spec.start) + policy["first_day"] * DAY_US
    pleased, brought, plays, new_plays = (np.zeros(world.spec.members) for _ in range(4))

    nights = Nights(world, policy["first_day"])

    def watch(requested, slates, response):
        nights.see(requested.state)
        rows = np.flatnonzero((response.played >= 0) & (requested.at_us >= begin))
        title, member = slates.titles[rows, response.played[rows]], requested.member[rows]
        age = requested.at_us[rows] - world.windows.opens[title, requested.country[rows]]
        new = (age >= 0) & (age < NEW_DAYS * DAY_US)
        worth = LAW.satisfying(response.satisfaction_logit[rows])
        np.add.at(pleased, member, worth)
        np.add.at(brought, member[new], worth[new])
        np.add.at(plays, member, 1)
        np.add.at(new_plays, member[new], 1)

    learner = Relearning(arm, objective(arm, world.spec.seed), **policy)
    outcome = simulate(world, learner, keep_log=True, watch=watch)
    members = outcome.members
    left = members["churned_at"].to_physical().fill_null(np.iinfo(np.int64).max).to_numpy()
    there = left > begin
    pairs = outcome.members_per_title
    return {
        "value": nights.settled(members)[there],
        "as_lived": members["value"].to_numpy()[there],
        "stayed": members["churned_at"].is_null().to_numpy()[there].astype(np.float64),
        "pleased": pleased[there],
        "brought": brought[there],
        "plays": plays[there],
        "new_plays": new_plays[there],
        "bait": float(pairs[world.truth.bait].sum() / pairs.sum()),
    }


def summary(runs, seeds):
    """Compare the arms over all seeds."""

    def gain(arm, other, name):
        return interval([runs[seed, arm][name] - runs[seed, other][name] for seed in seeds])

    def share(arm, part, whole):
        return round(float(total(arm, part) / total(arm, whole)), 4)

    def total(arm, name):
        return sum(runs[seed, arm][name].sum() for seed in seeds)

    off = [runs[seed, OFFLINE] for seed in seeds]
    auc = {arm: [found["auc"][arm] for found in off] for arm in off[0]["auc"]}
    return {
        **{f"predicted_minus_{other}": gain("predicted", other, "value") for other in OTHERS},
        **{
            measure: {f"predicted_minus_{other}": gain("predicted", other, name) for other in OTHERS}
            for measure, name in (("satisfaction", "pleased"), ("value_as_lived", "as_lived"), ("stayed", "stayed"))
        },
        "new_titles": {
            **{f"satisfaction_predicted_minus_{other}": gain("predicted", other, "brought") for other in OTHERS},
            "share_of_plays": {arm: share(arm, "new_plays", "plays") for arm in ARMS},
            "satisfaction_per_play": {arm: share(arm, "brought", "new_plays") for arm in ARMS},
        },
        "click_like_offline": interval(
            [one - other for one, other in zip(auc["click_like"], auc["predicted"], strict=True)]
        ),
        "click_like_offline_auc": {arm: round(float(np.nanmean(np.concatenate(auc[arm]))), 4) for arm in auc},
        "click_like_value_lost": gain("predicted", "click_like", "value"),
        "click_like_members_lost": gain("predicted", "click_like", "stayed"),
        "value": {arm: mean_of(runs, seeds, arm, "value") for arm in ARMS},
        "members_left": {arm: round(1 - mean_of(runs, seeds, arm, "stayed"), 4) for arm in ARMS},
        "bait_share": {arm: round(float(np.mean([runs[seed, arm]["bait"] for seed in seeds])), 4) for arm in ARMS},
        **{f"{name}_by_age": by_age([found["report"] for found in off], name) for name in ("auc", "ece", "log_loss")},
        "proxy_rank_correlation": mean_by_days([found["proxies"] for found in off]),
        "members": sum(len(runs[seed, "predicted"]["value"]) for seed in seeds),
        "rewards": off[0]["rewards"],
    }


def mean_of(runs, seeds, arm, name):
    """Return the mean over all members of all seeds."""
    return round(float(np.concatenate([runs[seed, arm][name] for seed in seeds]).mean()), 4)


def mean_by_days(found):
    """Return reward -> days -> mean over seeds."""
    return {
        name: {str(days): round(float(np.mean([one[name][days] for one in found])), 4) for days in found[0][name]}
        for name in found[0]
    }


def by_age(reports, measure):
    """Return term -> age in hours -> mean of a measure over seeds."""
    found = {}
    for term in reports[0]["term"].unique(maintain_order=True):
        rows = [report.filter(report["term"] == term) for report in reports]
        mean = np.mean([row[measure].to_numpy() for row in rows], axis=0)
        ages = rows[0]["age_h"].to_list()
        found[term] = {str(age): round(float(value), 4) for age, value in zip(ages, mean, strict=True)}
    return found


def interval(differences):
    """Return the mean of all seeds' members, its 95 % interval, and the mean of each seed.

    The bootstrap draws members within each seed; nan is left out.
    """
    rng = np.random.default_rng(1)
    kept = [one[np.isfinite(one)] for one in differences]
    count = sum(map(len, kept))
    sums = [one[rng.integers(0, len(one), (RESAMPLES, len(one)))].sum(axis=1) for one in kept]
    low, high = np.percentile(np.sum(sums, axis=0) / count, [2.5, 97.5])
    numbers = {"value": np.concatenate(kept).mean(), "low": low, "high": high}
    found = {name: round(float(number), 4) for name, number in numbers.items()}
    return found | {"by_seed": [round(float(one.mean()), 4) for one in kept]}


if __name__ == "__main__":
    main()
