"""The truth behind requests: chances worked out against lists that are drawn, and a run that is repeated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.errors import IntegrityError
from playbill_lab.simulator import WorldSpec
from playbill_lab.simulator.engine import true_plays
from playbill_lab.simulator.engine.run import RunOutcome, simulate
from playbill_lab.simulator.engine.true_plays import TruePlays, listed, looked_at, truth_of
from playbill_lab.simulator.world.checkpoint import FILE, save_world
from playbill_lab.simulator.world.spec import EffectsSpec, read_spec
from playbill_lab.simulator.world.world import World

SPEC = WorldSpec(members=300, titles=80, days=14, seed=5)


@pytest.fixture(scope="module")
def run() -> tuple[World, RunOutcome]:
    world = World.make(SPEC)
    return world, simulate(world, keep_log=True)


def played(outcome: RunOutcome) -> pl.DataFrame:
    plays = outcome.interactions.filter(pl.col("action") == "play", pl.col("request_id").is_not_null())
    return plays.unique("request_id", keep="first", maintain_order=True)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_chance_to_be_looked_at_is_that_of_lists_that_are_drawn(size: int) -> None:
    rng = np.random.default_rng(size)
    weights, play = rng.gamma(0.5, size=(1, 30)), rng.uniform(0.0, 0.4, (1, 30))
    arrivals = rng.exponential(size=(40_000, 30)) / weights
    lists = np.argsort(arrivals, axis=1)[:, :size].astype(np.int32)
    look = np.array([0.85])
    drawn = np.mean([listed(one[None], play, look)[0] for one in lists], axis=0)
    found = looked_at(weights, play, look, np.array([size]))[0]
    np.testing.assert_allclose(found, drawn, atol=0.03)
    assert np.corrcoef(found, drawn)[0, 1] > 0.995


def test_titles_after_one_that_is_surely_played_are_not_looked_at() -> None:
    titles, play = np.array([[2, 0, 1, -1]], dtype=np.int32), np.array([[1.0, 0.3, 0.5]])
    np.testing.assert_allclose(listed(titles, play, np.array([0.8])), [[0.4, 0.0, 1.0]])


def test_the_truth_ranks_what_was_played_far_above_popularity(run: tuple[World, RunOutcome]) -> None:
    world, outcome = run
    plays = played(outcome)
    truth = TruePlays(world)
    chances = truth.of(plays["request_id"].to_list())
    assert chances is not None
    assert truth.note == ""
    columns = {title: column for column, title in enumerate(truth.title_ids)}
    own = np.array([columns[title] for title in plays["title_id"]])
    popular = np.bincount(own, minlength=len(columns)).astype(float)
    rank = (chances > np.take_along_axis(chances, own[:, None], 1)).sum(axis=1)
    other = (popular[None] > popular[own][:, None]).sum(axis=1)
    assert (rank < 10).mean() > 1.3 * (other < 10).mean()
    assert (np.take_along_axis(chances, own[:, None], 1) > 0).mean() > 0.97, "what was played could be"


def test_requests_of_another_log_and_large_worlds_give_a_note(
    run: tuple[World, RunOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, outcome = run
    request = played(outcome)["request_id"].to_list()
    truth = TruePlays(world)
    assert truth.of([*request[:3], "of-another-log"]) is None
    assert truth.note == "no ceiling: 1 of 4 requests are not of the simulated run"
    monkeypatch.setattr(true_plays, "MOST_MEMBERS", 100)
    assert TruePlays(world).of(request) is None
    large = TruePlays(world)
    large.gather(request)
    assert "a world of 300 members takes too long" in large.note


def test_a_workspace_has_a_truth_only_where_its_log_was_simulated(tmp_path: Path) -> None:
    assert truth_of(tmp_path) is None
    save_world(tmp_path, SPEC)
    assert isinstance(truth_of(tmp_path), TruePlays)
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(IntegrityError, match="simulate the workspace again"):
        truth_of(tmp_path)


def test_an_oracle_may_believe_in_another_law() -> None:
    """It sees the run of its world, and works chances out by the law it believes in."""
    world = World.make(read_spec({"members": 60, "titles": 40, "days": 4, "seed": 5, "effects": {"hour_genre": 4}}))
    request = played(simulate(world, keep_log=True))["request_id"].to_list()
    plain = replace(world, spec=world.spec.model_copy(update={"effects": EffectsSpec()}))
    progress = [
        TruePlays(world).of(request),
        *(TruePlays(world, believed=other).of(request) for other in (world, plain)),
    ]
    assert progress[0] is not None
    np.testing.assert_array_equal(progress[0], progress[1])
    assert not np.array_equal(progress[0], progress[2])
