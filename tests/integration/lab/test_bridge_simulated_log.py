"""The same service going on after its log, and policies that switch."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.errors import ConfigError, UnknownNameError
from playbill_lab.ab.experiment import Test as AbTest
from playbill_lab.ab.experiment import measured, simulated_ab
from playbill_lab.ab.report import MEASURES
from playbill_lab.bridge.simulated_log import SimulatedLog, Switching, going_on
from playbill_lab.simulator import World, WorldSpec, load_policy, simulate

SPEC = WorldSpec(seed=5, members=100, titles=50, days=20, sessions_per_day=0.5)


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(SPEC)


@pytest.fixture(scope="module")
def events(world: World) -> pl.DataFrame:
    return simulate(world, load_policy("plackett_luce"), keep_log=True).interactions


def test_the_service_goes_on_with_the_same_titles_and_people(world: World) -> None:
    later = going_on(world, 14, 50)
    assert later.spec.days == SPEC.days + 14
    assert later.titles.equals(world.titles)
    assert later.availability.equals(world.availability)
    assert later.members.equals(world.members.head(50))
    np.testing.assert_array_equal(later.truth.taste, world.truth.taste[:50])
    assert len(going_on(world, 1).people) == 100


@pytest.mark.parametrize(("days", "members"), [(0, 10), (5, 0), (5, 101)])
def test_going_on_without_days_or_with_other_members_is_refused(world: World, days: int, members: int) -> None:
    with pytest.raises(ConfigError, match="cannot go on"):
        going_on(world, days, members)


def test_the_days_of_the_log_repeat_themselves(world: World, events: pl.DataFrame) -> None:
    """With everybody there, the longer run writes the same log and then some."""
    longer = simulate(going_on(world, 2), load_policy("plackett_luce"), keep_log=True).interactions
    assert longer.filter(pl.col("event_at") < SPEC.end).equals(events)
    assert longer.height > events.height


def test_tables_hold_what_was_known_by_the_end(world: World, events: pl.DataFrame) -> None:
    early = SPEC.start + timedelta(days=10)
    log = SimulatedLog(world, events.filter(pl.col("event_at") < early), early)
    assert log.titles()["recorded_at"].max() <= early
    assert log.titles().height < world.titles.height
    assert log.members().height < world.members.height
    assert log.vocabulary("title").entries == tuple(log.titles()["title_id"])
    assert log.clock().now() == early
    with pytest.raises(UnknownNameError, match="vocabulary"):
        log.vocabulary("member")


def test_evaluation_waits_for_outcomes_where_days_were_waited(world: World, events: pl.DataFrame) -> None:
    early = SPEC.start + timedelta(days=12)
    log = SimulatedLog(world, events.filter(pl.col("event_at") < early), early, events)
    frames = log.evaluation()
    assert frames.interactions.height == events.height
    assert frames.end > early
    assert SimulatedLog(world, events, SPEC.end).evaluation().end == SPEC.end


def test_policies_switch_on_their_day(world: World, events: pl.DataFrame) -> None:
    """Up to the day everything is as the log; the day after, lists are the other policy's, all of them certain."""
    policy = Switching(load_policy("plackett_luce"), load_policy("popular"), 15)
    assert policy.name == "popular"
    log = simulate(world, policy, keep_log=True).interactions
    day = SPEC.start + timedelta(days=15)
    assert log.filter(pl.col("event_at") < day).equals(events.filter(pl.col("event_at") < day))
    shown = (pl.col("action") == "impression") & (pl.col("canvas") != "row_ranking")
    later = log.filter(shown, pl.col("event_at") >= day + timedelta(days=1))
    assert (later["propensity"] == 1.0).all()
    assert (events.filter(shown)["propensity"] < 1.0).any()


def test_a_policy_against_itself_differs_in_nothing(world: World) -> None:
    arms, progress = {"one": load_policy("popular"), "two": load_policy("popular")}, []
    test = AbTest(15, load_policy("plackett_luce"), (0, 1))
    found = simulated_ab(world, arms, test, progress=lambda *step: progress.append(step))
    assert progress[0] == ("one", 1, 4 * 20)
    assert progress[-1] == ("two", 4 * 20, 4 * 20)
    assert [done for _, done, _ in progress] == list(range(1, 4 * 20 + 1))
    assert found.seeds == (0, 1)
    for measure in MEASURES:
        gap = found.of("two", measure).difference
        assert gap is not None
        assert gap == (0.0, 0.0, 0.0)


def test_satisfaction_brings_active_days_and_metrics_count_the_test_alone(world: World) -> None:
    base, test = load_policy("plackett_luce"), AbTest(10, load_policy("plackett_luce"))
    values = {name: measured(world, load_policy(name), test) for name in ("uniform", "best_value")}
    assert values["best_value"]["value"].mean() > values["uniform"]["value"].mean()
    plays = simulate(world, base, keep_log=True).interactions.filter(
        pl.col("action") == "play", pl.col("event_at") >= SPEC.start + timedelta(days=10)
    )
    own = measured(world, base, test)
    members = world.member_ids.gather(own["member"])
    counted = plays.filter(pl.col("member_id").is_in(members.implode())).height
    assert own["plays_per_day"].sum() * 10 == pytest.approx(counted)


def test_a_test_outside_the_run_is_refused(world: World) -> None:
    arms = {"one": load_policy("popular"), "two": load_policy("uniform")}
    with pytest.raises(ConfigError, match="outside a run of 20 days"):
        simulated_ab(world, arms, AbTest(20, load_policy("popular")))


def test_the_guide_says_what_works() -> None:
    page = (Path(__file__).parents[3] / "docs/guide/experiments.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    there: dict[str, Any] = {}
    exec(block, there)
    assert there["report"].of("best_value").difference.low > 0
