"""A run of the simulated service: equal again, equal in parts, and true to what can be shown where and when."""

from __future__ import annotations

import multiprocessing
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from threadpoolctl import threadpool_limits

from playbill.errors import ConfigError, StateError
from playbill.tables import canonical_frame
from playbill_lab.simulator import Policy, RunOutcome, World, WorldSpec, load_policy, simulate
from playbill_lab.simulator.engine import shards as days
from playbill_lab.simulator.engine.run import MultiProcess, executor_size
from playbill_lab.simulator.policies.policies import EqualChance
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.spec import EffectsSpec, read_world_file

SPEC = WorldSpec(seed=2, members=1500, days=21, titles=250, joining_share=0.3)


class Gathering:
    """Takes what a run writes."""

    def __init__(self) -> None:
        self.tables: dict[str, list[pl.DataFrame]] = {}

    def write(self, table: str, frame: pl.DataFrame) -> None:
        self.tables.setdefault(table, []).append(frame)

    def interactions(self) -> pl.DataFrame:
        return pl.concat(self.tables["interactions"]).sort("member_id", "seq")


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(SPEC)


@pytest.fixture(scope="module")
def outcome(world: World) -> RunOutcome:
    return simulate(world, keep_log=True)


@pytest.fixture(scope="module")
def log(outcome: RunOutcome) -> pl.DataFrame:
    return outcome.interactions


def test_the_log_is_canonical(log: pl.DataFrame) -> None:
    shaped, mistakes = canonical_frame("interactions", log)
    assert not mistakes
    assert shaped.select("event_id").is_unique().all()
    assert log.select((pl.col("seq") == pl.int_range(pl.len()).over("member_id")).all()).item()
    assert log.select(
        (pl.col("event_at").diff().over("member_id").fill_null(timedelta(0)) >= timedelta(0)).all()
    ).item()


def test_equal_seeds_give_equal_logs_and_others_do_not(log: pl.DataFrame) -> None:
    small = WorldSpec(seed=2, members=120, days=5, titles=60)
    one, again = (simulate(World.make(small), keep_log=True).interactions for _ in range(2))
    other = simulate(World.make(small.model_copy(update={"seed": 3})), keep_log=True).interactions
    assert one.equals(again)
    assert not one.equals(other)


@pytest.mark.parametrize("effects", [EffectsSpec(), read_world_file(Path("rich"), {}).effects], ids=["plain", "rich"])
def test_the_number_of_processes_changes_nothing(monkeypatch: pytest.MonkeyPatch, effects: EffectsSpec) -> None:
    monkeypatch.setattr(days, "BLOCK_MEMBERS", 70)
    world = World.make(WorldSpec(seed=2, members=200, days=4, titles=60, effects=effects))
    gathered = [Gathering(), Gathering()]
    outcomes = [simulate(world, writer=writer, processes=count) for writer, count in zip(gathered, (1, 2), strict=True)]
    assert len(days.blocks_of(world)) == 3
    in_process, together = (writer.interactions() for writer in gathered)
    assert in_process.height > 300
    assert in_process.equals(together)
    assert outcomes[0].members.equals(outcomes[1].members)
    assert outcomes[0].counts == outcomes[1].counts
    np.testing.assert_array_equal(outcomes[0].members_per_title, outcomes[1].members_per_title)
    kept = simulate(world, keep_log=True)
    assert kept.interactions.equals(in_process)


def test_the_number_of_threads_changes_nothing() -> None:
    """BLAS splits sums among threads, and other sums have other last bits; two threads are asked for in vain."""
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            world = World.make(WorldSpec(seed=2, members=2500, days=3, titles=600, countries=SPEC.countries[:6]))
            found.append((world.truth.taste, simulate(world, keep_log=True).interactions))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1].equals(found[1][1])


class Unsendable(EqualChance):
    name = "unsendable"

    def __init__(self) -> None:
        self.clock = lambda: 0


# Spawned processes import what they are sent: the module has to be where they look.
FAILING = """
from playbill_lab.simulator.policies.policies import EqualChance


class Asked(EqualChance):
    def answer(self, asked, rng):
        raise ZeroDivisionError("when it was asked")


class Loaded(EqualChance):
    def __setstate__(self, state):
        raise ZeroDivisionError("when it was loaded")

    def __getstate__(self):
        return {"a": 1}
"""


def in_two(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(days, "BLOCK_MEMBERS", 60)
    simulate(World.make(WorldSpec(seed=2, members=120, days=3, titles=60)), policy, processes=2)


def test_a_policy_that_cannot_be_sent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unsendable"):
        in_two(Unsendable(), monkeypatch)


@pytest.mark.parametrize("moment", ["asked", "loaded"])
def test_errors_of_processes_are_told(moment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "failing_policy.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError, match=f"when it was {moment}"):
        in_two(load_policy(f"failing_policy:{moment.title()}"), monkeypatch)


def test_a_process_that_has_ended_before_it_is_asked_still_tells_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "failing_policy.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    world = World.make(WorldSpec(seed=2, members=20, days=3, titles=60))
    with MultiProcess(world, load_policy("failing_policy:Loaded"), [], None, processes=1) as executor:
        for process in multiprocessing.active_children():
            process.join(60)
        assert not multiprocessing.active_children()
        with pytest.raises(ZeroDivisionError, match="when it was loaded"):
            executor.run_day(0, None)


def test_crews_are_no_larger_than_the_work() -> None:
    assert executor_size(8, 3) == 3
    assert executor_size(None, 1) == 1
    with pytest.raises(ConfigError, match="0 processes"):
        executor_size(0, 3)


def test_every_canvas_and_every_row_is_in_the_log(log: pl.DataFrame) -> None:
    shown = log.filter(pl.col("action") == "impression")
    assert set(shown["canvas"].unique()) == set(on.CANVASES)
    rows = shown.drop_nulls("row_id")["row_id"].str.split(":").list.first()
    assert set(rows.unique()) == set(on.ROWS)


def test_every_action_of_a_streaming_home_is_in_the_log(log: pl.DataFrame) -> None:
    wanted = {
        *("impression", "play", "thumbs_up", "thumbs_down", "my_list_add", "my_list_remove"),
        *("trailer_view", "details_view", "search", "remind_me", "abandon"),
    }
    assert set(log["action"].unique()) == wanted


def test_what_is_played_or_shown_is_available_there_and_then(world: World, log: pl.DataFrame) -> None:
    spans = world.availability.select("title_id", "country", "available_from", "available_until")
    shown = log.filter(
        pl.col("action").is_in(["impression", "play"]),
        pl.col("title_id").is_not_null(),
        ~pl.col("canvas").is_in(["coming_soon", "pre_launch"]),
    ).join(spans, on=["title_id", "country"], how="left")
    # The last place of a list is looked at some seconds after it was asked for; a series goes on with its next episode.
    grace = pl.when(pl.col("action") == "play").then(pl.duration(hours=8)).otherwise(pl.duration(minutes=1))
    inside = (pl.col("available_from") <= pl.col("event_at")) & (
        pl.col("available_until").is_null() | (pl.col("event_at") - grace < pl.col("available_until"))
    )
    assert shown.height > 10_000
    assert shown.filter(~inside.fill_null(False)).height == 0


def test_previews_are_of_titles_to_come_and_reminders_lead_to_plays(world: World, log: pl.DataFrame) -> None:
    spans = world.availability.select("title_id", "country", "available_from")
    soon = log.filter(pl.col("canvas").is_in(["coming_soon", "pre_launch"]), pl.col("action") == "impression")
    soon = soon.join(spans, on=["title_id", "country"], how="left")
    ahead = (pl.col("available_from") - pl.col("event_at")).dt.total_hours() / 24
    reach = soon.group_by("canvas").agg(least=ahead.min(), most=ahead.max()).sort("canvas")
    assert (reach["least"] > -0.02).all()
    assert reach["most"].to_list() == pytest.approx([28, 7], abs=2)
    reminded = log.filter(pl.col("action") == "remind_me").select("member_id", "title_id", request="event_at")
    played = log.filter(pl.col("action") == "play").join(reminded, on=["member_id", "title_id"])
    assert played.height > 3
    assert (played["event_at"] > played["request"]).all()


def test_kids_see_what_is_fit_for_them(world: World, log: pl.DataFrame) -> None:
    kids = log.join(world.members.filter("kids_profile").select("member_id"), on="member_id")
    shown = kids.filter(pl.col("action") == "impression").join(world.titles.select("title_id", "kids"), on="title_id")
    assert shown.height > 500
    assert shown["kids"].all()


def test_a_country_is_silent_until_the_service_opens_there(world: World, log: pl.DataFrame) -> None:
    opening = {country.code: country.launch_day for country in world.spec.countries}
    first = log.group_by("country").agg(pl.col("event_at").min())
    for country, moment in first.iter_rows():
        assert moment >= world.spec.start + timedelta(days=opening[country])
    assert set(first["country"]) == set(opening)


def test_buzz_makes_new_titles_of_a_week_played_most(world: World, log: pl.DataFrame) -> None:
    spans = world.availability.select("title_id", "country", "available_from")
    shown = log.filter(pl.col("row_id") == "top_picks", pl.col("action").is_in(["impression", "play"]))
    aged = (
        shown.drop_nulls("propensity")
        .join(spans, on=["title_id", "country"])
        .with_columns(fresh=(pl.col("event_at") - pl.col("available_from")).dt.total_days() < 5)
    )
    rate = aged.group_by("fresh").agg((pl.col("action") == "play").mean(), pl.len()).sort("fresh")
    assert rate["len"][1] > 200
    assert rate["action"][1] > 1.3 * rate["action"][0]


def test_searches_are_prefixes_with_slips_and_titles_that_are_not_there(world: World, log: pl.DataFrame) -> None:
    typed = log.filter(pl.col("action") == "search")["query"]
    assert typed.null_count() == 0
    matched = world.queries.matches(typed.unique(maintain_order=True)).max(axis=1)
    by_letters = (matched > 0) & (matched <= 0.6)
    assert 0.02 < by_letters.mean() < 0.5, "slips are found by letters in common"
    assert (matched == 0).any(), "titles that nobody has"
    assert (typed.str.len_chars() <= 4).any()


def test_a_run_that_kept_no_log_says_so(world: World) -> None:
    small = World.make(WorldSpec(seed=2, members=30, days=3, titles=40))
    with pytest.raises(StateError, match="kept no log"):
        _ = simulate(small, load_policy("popular")).interactions
