"""What the log of a simulated service says, against the law it was written by."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from playbill.clock import to_microseconds
from playbill_lab.simulator import PolicyRequest, RunOutcome, Slates, World, WorldSpec, load_policy, simulate
from playbill_lab.simulator.engine.choices import Response, expected_by_place, leanings
from playbill_lab.simulator.policies.policies import PlackettLuce
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.behaviour_model import LAW, logistic
from playbill_lab.simulator.world.launches import DAY_US
from playbill_lab.simulator.world.state import State

SPEC = WorldSpec(seed=4, members=4000, days=12, titles=200)
SIGMAS = 4.5


@dataclass
class Tally:
    """Sums over all questions of a run: [places, 3] of what the law expects, its variance, and what happened."""

    by_place: dict[tuple[int, str], NDArray[np.float64]] = field(
        default_factory=lambda: defaultdict(lambda: np.zeros((8, 3)))
    )

    def watch(self, request: PolicyRequest, slates: Slates, response: Response) -> None:
        size = slates.titles.shape[1]
        played = np.arange(size) == response.played[:, None]
        for outcome, happened in (("click", response.clicked), ("play", played)):
            chance = expected_by_place(request, slates, outcome)  # type: ignore[arg-type]
            for canvas in np.unique(request.canvas):
                at = request.canvas == canvas
                kept = self.by_place[int(canvas), outcome]
                kept[:size, 0] += chance[at].sum(axis=0)
                kept[:size, 1] += (chance[at] * (1 - chance[at])).sum(axis=0)
                kept[:size, 2] += happened[at].sum(axis=0)

    def sigmas(self, canvas: int, outcome: str) -> NDArray[np.float64]:
        """Return how far each place is from the law, in standard deviations, where much is expected."""
        expected, variance, happened = self.by_place[canvas, outcome].T
        enough = expected >= 5
        return np.asarray((happened - expected)[enough] / np.sqrt(variance[enough]))


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(SPEC)


@pytest.fixture(scope="module")
def tally() -> Tally:
    return Tally()


@pytest.fixture(scope="module")
def outcome(world: World, tally: Tally) -> RunOutcome:
    return simulate(world, watch=tally.watch, keep_log=True)


@pytest.fixture(scope="module")
def log(outcome: RunOutcome) -> pl.DataFrame:
    return outcome.interactions


def test_clicks_and_plays_come_as_often_as_expected(outcome: RunOutcome, tally: Tally) -> None:
    tried = 0
    for canvas in on.CANVAS_PLACES:
        for what in ("click", "play"):
            found = tally.sigmas(canvas, what)
            assert np.abs(found).max(initial=0) < SIGMAS, (on.CANVASES[canvas], what, found.round(1).tolist())
            tried += found.size
    assert tried > 40


def test_the_effect_of_places_is_in_the_log(log: pl.DataFrame) -> None:
    """Of the lists that were looked at up to a place and not played there, the law's share went on to the next."""
    home = log.filter(pl.col("canvas") == "home", pl.col("row_id") == "top_picks")
    shown = home.filter(pl.col("action") == "impression").group_by("request_id").agg(last=pl.col("position").max())
    plays = home.filter(pl.col("action") == "play").group_by("request_id").agg(played=pl.col("position").min())
    lists = shown.join(plays, on="request_id", how="left")
    # Whoever did not play at a place went on, or stopped there.
    for place in range(3):
        at_least = lists.filter(pl.col("last") >= place, pl.col("played").is_null() | (pl.col("played") > place))
        went_on = at_least.filter(pl.col("last") > place).height / at_least.height
        spread = np.sqrt(0.86 * 0.14 / at_least.height)
        assert abs(went_on - on.CANVAS_PLACES[on.HOME].look) < SIGMAS * spread
    assert lists.height > 1000


def test_the_effect_of_rows_is_in_the_log(world: World, outcome: RunOutcome, log: pl.DataFrame) -> None:
    """Rows come in an order of chance, with the probability that is logged."""
    rows = log.filter(pl.col("canvas") == "row_ranking")
    assert rows["title_id"].null_count() == rows.height
    second = rows.filter(pl.col("position") == 1, pl.col("propensity") < 1)
    kinds = second.with_columns(kind=pl.col("row_id").str.split(":").list.first())
    # "popular" fits on every page, so it comes at place 1 as often as its propensities say.
    expected, variance = second["propensity"].sum(), (second["propensity"] * (1 - second["propensity"])).sum()
    came = kinds.filter(pl.col("kind") == "popular").height
    assert abs(came - expected) < SIGMAS * np.sqrt(variance)
    pinned = rows.filter(pl.col("row_id").is_in(["continue_watching", "top_picks"]))
    assert (pinned["propensity"] == 1).all()


def test_what_a_row_promises_draws_clicks(world: World) -> None:
    """The same title in two rows: its log odds differ by the rows' draws."""
    found: list[float] = []

    def watch(request: PolicyRequest, slates: Slates, response: Response) -> None:
        at = np.flatnonzero(request.row == on.NEW_RELEASES)
        if len(at) and len(found) < 3:
            part = request.take(at)
            other = part.take(np.arange(len(at)))
            other.row[:] = on.POPULAR
            one, two = (leanings(requested_at, slates.titles[at]).click for requested_at in (part, other))
            kept = slates.titles[at] >= 0
            found.append(float(np.mean((_odds(one) - _odds(two))[kept])))

    simulate(World.make(WorldSpec(seed=4, members=300, days=2, titles=200)), watch=watch)
    assert np.mean(found) == pytest.approx(on.ROW_DRAW[on.NEW_RELEASES], abs=1e-6)


def test_members_leave_by_the_hazard_of_their_satisfaction() -> None:
    """Who left each night, against the hazards of all who were there."""
    world = World.make(WorldSpec(seed=5, members=3000, days=15, titles=100, sessions_per_day=0.5))
    states: list[State] = []
    sums = np.zeros(3)
    gone = np.zeros(len(world.people), np.bool_)

    def watch(request: PolicyRequest, slates: Slates, response: Response) -> None:
        states[:] = [request.state]

    def night(day: int, days: int) -> None:
        state, end = states[0], to_microseconds(world.spec.start) + day * DAY_US
        here = (world.people.joined < end) & ~gone
        chance = LAW.hazard(state.satisfaction / LAW.keep)[here]
        left = (state.churned == end) & here
        gone[left] = True
        sums[:] += chance.sum(), (chance * (1 - chance)).sum(), left.sum()

    simulate(world, watch=watch, progress=night)
    expected, variance, left = sums
    assert expected > 50
    assert abs(left - expected) < SIGMAS * np.sqrt(variance)


def test_the_value_beyond_the_run_is_the_hazards() -> None:
    """The closed form against members who live on at one satisfaction, day by day."""
    luck = np.random.default_rng(0).random((40_000, 60))
    for satisfaction in (-1.5, 0.0, 1.0):
        hazard = float(LAW.hazard(np.array([satisfaction]))[0])
        days = (np.cumprod(luck >= hazard, axis=1)).sum(axis=1)
        closed = float(LAW.remaining_days(np.array([satisfaction]), 60)[0])
        assert abs(days.mean() - closed) < SIGMAS * days.std() / np.sqrt(len(days))


def test_unhappy_members_leave_sooner(outcome: RunOutcome) -> None:
    left = outcome.members["churned_at"].is_not_null()
    ends = outcome.members.group_by(left.alias("left")).agg(pl.col("satisfaction").mean()).sort("left")
    assert ends["satisfaction"][0] > ends["satisfaction"][1] + 0.3


def test_the_value_of_members_is_what_the_log_says(world: World, outcome: RunOutcome, log: pl.DataFrame) -> None:
    """Days end at churn, nobody acts after it, and the rest of the value is the hazard's."""
    members = outcome.members
    start, end = world.spec.start, world.spec.end
    begun = pl.max_horizontal("joined_at", pl.lit(start))
    days = (pl.col("churned_at").fill_null(end) - begun).dt.total_microseconds() / 86_400_000_000
    rest = LAW.remaining_days(members["satisfaction"].to_numpy(), world.spec.value_days)
    stayed = members["churned_at"].is_null().to_numpy()
    progress = members.select(days=days)["days"].to_numpy()
    np.testing.assert_allclose(members["days"].to_numpy(), progress, atol=1e-9)
    np.testing.assert_allclose(members["value"].to_numpy(), progress + rest * stayed, atol=1e-9)
    # A visit that lasts past midnight belongs to the day it began.
    late = log.join(members.drop_nulls("churned_at"), on="member_id").filter(
        pl.col("event_at") > pl.col("churned_at") + pl.duration(hours=14)
    )
    assert late.height == 0


def test_thumbs_and_endings_follow_gladness(world: World) -> None:
    """Thumbs up among plays, against the gladness that the law gave each of them."""
    glad: list[NDArray[np.float64]] = []

    def watch(request: PolicyRequest, slates: Slates, response: Response) -> None:
        glad.append(response.satisfaction_logit[response.played >= 0])

    ran = simulate(world, load_policy("uniform"), watch=watch)
    satisfaction_logit = np.concatenate(glad)
    up = logistic(LAW.up_base + LAW.up_glad * satisfaction_logit)
    happened = sum(row.get("thumbs_up", 0) for row in ran.counts.values())
    # The last events of the run may come after its end and are left out.
    assert abs(happened - up.sum()) < SIGMAS * np.sqrt((up * (1 - up)).sum()) + 0.005 * up.sum()
    left = LAW.leaves_early(satisfaction_logit)
    abandoned = sum(row.get("abandon", 0) for row in ran.counts.values())
    assert abs(abandoned - left.sum()) < SIGMAS * np.sqrt((left * (1 - left)).sum()) + 0.005 * left.sum()


def _odds(chance: NDArray[np.float64]) -> NDArray[np.float64]:
    safe = np.clip(chance, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(safe / (1 - safe)))


def test_the_law_is_frozen() -> None:
    """Every result that rests on a simulated service rests on these numbers: a change of one is a change of all."""
    numbers = [*dataclasses.astuple(LAW), *on.SIZE, *on.LOOK, *on.DRAW, *on.ROW_DRAWS, on.NEXT_ROW, on.MOST_ROWS]
    numbers += [PlackettLuce().popularity, PlackettLuce().taste, PlackettLuce().language, WorldSpec().sessions_per_day]
    text = " ".join(f"{float(number):g}" for number in numbers)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "e8364d6a01db8599"
