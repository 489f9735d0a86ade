"""Each leakage check catches a defect that is planted for it, and stays quiet on what is honest."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.datasets import make_split
from playbill.definitions.specs import BASELINES
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import UNKNOWN
from playbill.evaluation.leakage_checks import (
    LeakageCheck,
    alarms,
    check_chance,
    check_features,
    check_future,
    check_leakage,
    check_order,
    check_views,
)
from playbill.features import LeakReport
from playbill.features.leaks import Leak

TITLES = [str(i) for i in range(1, 13)]
PROTOCOLS = ["leave_one_out", "global_time_successive"]
HONEST = ["popular", "popular_7d", "ease"]


@pytest.fixture(params=PROTOCOLS)
def case(request):
    tables = world.tables_of(world.random_rows(), titles=TITLES)
    split = make_split("leave_one_out" if request.param == "leave_one_out" else request.param, tables.interactions)
    return build_case(tables, split, world.resolved_of(), "home")


class Future:
    """Popularity over the whole log: held-out plays too."""

    def __init__(self, case) -> None:
        self.title_ids = case.catalogue.title_ids
        played = case.log.column[case.log.plays]
        self.counts = np.bincount(played[played != UNKNOWN], minlength=len(case.catalogue)).astype(float)

    def score(self, requests):
        return np.tile(self.counts, (len(requests), 1))


class SameMoment:
    """Popularity up to and including the request's own event: off by one."""

    def __init__(self, case) -> None:
        self.title_ids, self.case = case.catalogue.title_ids, case
        self.at = case.log.frame["event_at"].to_numpy()

    def score(self, requests):
        moments = np.array([request.at.replace(tzinfo=None) for request in requests], dtype="datetime64[us]")
        counts = [
            np.bincount(self.case.log.column[(self.at <= moment) & self.case.log.plays], minlength=len(self.title_ids))
            for moment in moments
        ]
        return np.array(counts, dtype=float)


@pytest.mark.parametrize("name", HONEST)
def test_honest_baselines_raise_no_alarm(case, name):
    make = BASELINES[name].load()
    assert check_future(name, make, case).passed
    assert check_chance(name, make, case).passed


def test_a_score_that_counts_the_future_is_named(case):
    found = check_future("leaky", Future, case)
    assert not found.passed
    assert "'leaky' reads what comes after a request" in found.message
    assert alarms([found]) == (found.message,)


def test_a_counter_that_is_off_by_one_is_caught():
    tables = world.tables_of(world.random_rows(), titles=TITLES)
    split = make_split("global_time_successive", tables.interactions)
    case = build_case(tables, split, world.resolved_of(), "home")
    assert not check_future("inclusive", SameMoment, case).passed


def test_a_score_that_reads_the_targets_beats_chance(case):
    found = check_chance("oracle", world.Oracle, case)
    assert not found.passed
    assert "'oracle' reads the targets" in found.message


def test_targets_left_in_the_history_are_caught(case):
    """The defect: the held-out event itself is in the request's past, and its title is scored high."""

    class Included:
        def __init__(self, made) -> None:
            self.title_ids, self.made = made.catalogue.title_ids, made
            columns = zip(made.frame["member_id"], made.frame["at"], strict=True)
            self.place = dict(zip(columns, made.positions.tolist(), strict=True))

        def score(self, requests):
            scores = np.zeros((len(requests), len(self.title_ids)))
            for row, request in enumerate(requests):
                scores[row, self.made.log.column[self.place[request.member_id, request.at]]] = 1.0
            return scores

    assert not check_chance("included", Included, case).passed
    assert not check_future("included", Included, case).passed


def test_the_chance_level_is_that_of_uniform_ranks(case):
    """A function without any sense lies around the level that the leakage check states."""

    class Noise:
        def __init__(self, made) -> None:
            self.title_ids, self.generator = made.catalogue.title_ids, np.random.default_rng(5)

        def score(self, requests):
            return self.generator.random((len(requests), len(self.title_ids)))

    found = check_chance("noise", Noise, case)
    low, high = (float(part) for part in found.message.split("[")[1].split("]")[0].split(","))
    chance = float(found.message.split("chance is ")[1])
    assert found.passed
    assert low <= chance <= high
    sizes = [int(row.sum()) for chunk in case.chunks() for row in chunk.candidates]
    by_hand = np.mean([sum(1 / np.log2(rank + 1) for rank in range(1, min(10, c) + 1)) / c for c in sizes])
    assert chance == pytest.approx(by_hand, abs=1e-4)


class Successor:
    """Scores the title after the last played one in a ring; `as_set` forgets which was the last."""

    def __init__(self, title_ids, *, as_set: bool) -> None:
        self.title_ids, self.as_set = title_ids, as_set

    def score(self, requests):
        scores = np.zeros((len(requests), len(self.title_ids)))
        for row, request in enumerate(requests):
            played = request.history["title_id"].to_list()
            for title in sorted(played) if self.as_set else played[-1:]:
                scores[row, self.title_ids.index(str(int(title) % 12 + 1))] += 1.0
        return scores


@pytest.fixture
def ring():
    rows = [(f"m{m}", str((m + step) % 12 + 1), 10.0 * m + step) for m in range(40) for step in range(6)]
    tables = world.tables_of(rows, titles=TITLES)
    return build_case(tables, make_split("leave_one_out", tables.interactions), world.resolved_of(), "home")


def test_a_sequential_model_loses_in_shuffled_order(ring):
    found = check_order("ring", Successor(ring.catalogue.title_ids, as_set=False), ring)
    assert found.passed
    assert "changes by -" in found.message


def test_a_model_that_lost_the_order_is_noticed_and_is_no_leak(ring):
    found = check_order("bag", Successor(ring.catalogue.title_ids, as_set=True), ring)
    assert not found.passed
    assert "no order is seen to be read" in found.message
    assert alarms([found]) == ()


class Door:
    """Plays of the member: strictly before the moment, and (planted) of all time."""

    def __init__(self, tables) -> None:
        self.plays = tables.interactions.filter(pl.col("action") == "play")

    def member_features(self, service, frame):
        favourite = self.plays.group_by("member_id").agg(member__ever=pl.col("title_id").sort().last())
        before = frame.join(self.plays.select("member_id", "title_id", played="event_at"), on="member_id", how="left")
        known = before.filter(pl.col("played") < pl.col("event_at"))
        past = known.group_by("member_id", "event_at").agg(member__before=pl.col("title_id").sort().last())
        return frame.join(past, on=["member_id", "event_at"], how="left", maintain_order="left").join(
            favourite, on="member_id", how="left", maintain_order="left"
        )


def test_a_planted_future_feature_is_named_and_the_honest_one_is_not():
    tables = world.tables_of(world.random_rows(members=40), titles=TITLES)
    case = build_case(tables, make_split("leave_one_out", tables.interactions), world.resolved_of(), "home")
    found = {one.subject: one.passed for one in check_features(Door, "tiny_v1", case)}
    assert found == {"member__before": True, "member__ever": False}


def test_all_leakage_checks_run_together(case):
    baselines = {name: BASELINES[name].load() for name in ("popular", "popular_7d")}
    found = check_leakage(case, "leaky", Future, baselines)
    assert [(one.check, one.subject) for one in found] == [
        *((check, name) for name in ("leaky", *baselines) for check in ("future", "chance")),
        ("order", "leaky"),
    ]
    assert alarms(found)
    assert all("'leaky'" in message for message in alarms(found))
    assert isinstance(found[0], LeakageCheck)


def test_a_view_of_ones_own_that_leaks_is_an_alarm_and_an_honest_one_is_named_too():
    at = datetime(2024, 1, 1, tzinfo=UTC)
    leak = Leak("member_mood", "mood", {"member_id": "m1"}, at, at, 1.0, "is the title of the event")
    found = check_views(LeakReport(("member_mood", "member_taste"), (leak,), ()))
    assert [(one.check, one.subject, one.passed) for one in found] == [
        ("views", "member_mood", False),
        ("views", "member_taste", True),
    ]
    (alarm,) = alarms(found)
    assert alarm.startswith("view 'member_mood', mood is the title of the event. Example: member_id m1")
