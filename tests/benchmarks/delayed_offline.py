"""What can be measured on the log of a simulated service's own policy: predictions by age, policies, and proxies."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from pathlib import Path

import polars as pl
from delayed_policy import Objective, auc_by_member, fitted, shown

from playbill.definitions.zoo import load_zoo
from playbill.labels import label_events
from playbill.rewards import DelayedSettings, delayed_report, reward_values, reward_version, slate_values
from playbill_lab.simulator import simulate

ROOT = Path(__file__).parents[2]
ARMS = {
    "predicted": ("long_term", "predict"),
    "waiting": ("long_term", "wait"),
    "ignoring": ("long_term", "ignore"),
    "at_once": ("long_term", "drop"),
    "click_like": ("click_like", "ignore"),
}
PROXIES = ("click_like", "play", "long_term")
RETURN = "returned_within_7d"
RETURN_DAYS = (7, 14, 28)
HELD_OUT = timedelta(days=22)
DAY = timedelta(days=1)


@cache
def zoo():
    """Return the shipped definitions."""
    return load_zoo(ROOT / "model_zoo", ROOT / "feature_repo")


def objective(arm, seed):
    """Return what an arm learns from."""
    name, young = ARMS[arm]
    reward, labels = zoo().reward(name)
    return Objective(
        reward, labels, young, DelayedSettings(trees=25, learning_rate=0.2, leaves=15, most=40_000, seed=seed)
    )


def offline(world):
    """Measure on the log of the service's own policy."""
    log = simulate(world, keep_log=True).interactions
    best = objective("predicted", world.spec.seed)
    end = world.spec.end
    outcomes = label_events(list(best.labels.values()), log, end, world.availability, world.titles)
    report = delayed_report(
        best.reward, best.labels, outcomes, log, end, end - HELD_OUT, world.availability, settings=best.settings
    )
    ids = {name: reward_version(*zoo().reward(name)) for name in ("long_term", "click_like")}
    return {"report": report.rows, "auc": next_plays(world, log), "proxies": proxies(world, log), "rewards": ids}


def next_plays(world, log):
    """Return arm -> [M] how well a policy learnt from all but the last week tells what is played in it."""
    cut = world.spec.end - 7 * DAY
    before, seen = log.filter(log["recorded_at"] <= cut), shown(log, world)
    learnt, found = shown(before, world), {}
    for arm in ("predicted", "click_like"):
        weights = fitted(learnt, objective(arm, world.spec.seed).values(before, world, cut), world)
        found[arm] = auc_by_member(weights, seen, cut)
    return found


def proxies(world, log):
    """Return reward -> days -> rank correlation over members of the reward of a page with the days they came later.

    Rewards are those of the two weeks before the last four, known to the end; days are counted in the weeks after.
    """
    until = world.spec.end - max(RETURN_DAYS) * DAY
    rewards = {name: zoo().reward(name) for name in PROXIES}
    rewards[f"long_term without {RETURN}"] = without(RETURN, *rewards["long_term"])
    found = {}
    for name, (reward, labels) in rewards.items():
        outcomes = label_events(list(labels.values()), log, world.spec.end, world.availability, world.titles)
        worth = slate_values(reward_values(reward, labels, outcomes, log, world.spec.end), log)
        placed = log.select("event_id", "member_id", "request_id", "event_at").join(worth, on="event_id")
        pages = placed.filter(pl.col("event_at").is_between(until - 14 * DAY, until, closed="left"))
        members = pages.group_by("member_id").agg(proxy=pl.col("value").sum() / pl.col("request_id").n_unique())
        found[name] = {days: _rank_correlation(members, log, until, days) for days in RETURN_DAYS}
    return found


def without(term, reward, labels):
    """Return a reward without one of its terms, and its labels."""
    terms = {name: spec for name, spec in reward.terms.items() if name != term}
    kept = tuple(name for name in reward.delayed if name != term)
    changed = reward.model_copy(update={"terms": terms, "delayed": kept})
    return changed, {name: label for name, label in labels.items() if name != term}


def _rank_correlation(members, log, until, days):
    later = log.filter(pl.col("event_at").is_between(until, until + days * DAY, closed="left"))
    came = later.group_by("member_id").agg(days=pl.col("event_at").dt.date().n_unique())
    both = members.join(came, on="member_id", how="left").with_columns(pl.col("days").fill_null(0))
    return float(both.select(pl.corr("proxy", "days", method="spearman")).item())
