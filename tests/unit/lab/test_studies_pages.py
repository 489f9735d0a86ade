"""Rows and pages end to end in a small service: training rows, the bundle, the builder's values, and the live order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from playbill.config import shipped_folder
from playbill.datasets import Request, TrainingSet, make_split
from playbill.datasets.encoding.row_entries import MOST_ABOVE, page_rows
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import load_zoo
from playbill.models import ContextBatch, HistoryBatch
from playbill.models.batch import TargetBatch
from playbill.models.row_tower import row_logits
from playbill.ranking.page_rules import RowEntry
from playbill.ranking.scoring.row_scoring import PageReader
from playbill_lab.bridge.live_features import NoFeatures
from playbill_lab.bridge.simulated_log import Fitted, SimulatedLog, trained_on, training_set
from playbill_lab.simulator import load_policy
from playbill_lab.simulator.engine.run import simulate
from playbill_lab.simulator.world.spec import WorldSpec
from playbill_lab.simulator.world.world import World
from playbill_lab.studies.pages.policy import PagesRecipe, page_spec, pages_model
from playbill_lab.studies.pages.study import page_policy, plays_after


@pytest.fixture(scope="module")
def log() -> SimulatedLog:
    world = World.make(WorldSpec(seed=5, members=150, titles=80, days=12))
    events = simulate(world, load_policy("plackett_luce"), keep_log=True).interactions
    return SimulatedLog(world, events, world.spec.end, events)


@pytest.fixture(scope="module")
def model() -> ResolvedModel:
    return pages_model(load_zoo(shipped_folder("model_zoo")), PagesRecipe(dim=16, layers=1, epochs=1, min_steps=10))


@pytest.fixture(scope="module")
def data(log: SimulatedLog, model: ResolvedModel) -> TrainingSet:
    return training_set(log, model, make_split("global_time_successive", log.interactions()), NoFeatures())


@pytest.fixture(scope="module")
def fitted(data: TrainingSet, model: ResolvedModel, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return trained_on(data, model, tmp_path_factory.mktemp("bundle") / "pages")


def test_training_knows_each_row_by_its_first_title_and_the_rows_above(log: SimulatedLog, data: TrainingSet) -> None:
    """Against plain code over the log, page by page."""
    events = log.interactions()
    place = pl.int_range(pl.len())
    every = page_rows(data.encoder, events, np.arange(events.height)).around(np.arange(events.height))
    names = ["", *data.encoder.state.row_texts]
    titles = ["", *data.encoder.title_rows.entries]
    shown = events.with_columns(at=place).filter(
        (pl.col("action") == "impression") & pl.col("row_id").is_not_null() & pl.col("title_id").is_not_null()
    )
    checked = 0
    for page in shown.partition_by("member_id", "request_id", maintain_order=True)[:150]:
        above: list[tuple[str, str]] = []
        for row in page.unique("row_id", keep="first", maintain_order=True).iter_rows(named=True):
            own = (row["row_id"].partition(":")[0], row["title_id"])
            found = [
                (names[every["name"][row["at"], column]], titles[every["head"][row["at"], column]])
                for column in range(1 + MOST_ABOVE)
            ]
            assert found[: 1 + len(above)] == [own, *above[::-1]]
            assert set(found[1 + len(above) :]) <= {("", "")}
            above.append(own)
            checked += 1
    assert checked > 200
    labelled = ~np.isnan(data.labels["row_play"])
    assert (data.pages.entry[labelled] >= 0).all()


def test_impressions_of_each_row_train_shown_play_with_their_counts(log: SimulatedLog, data: TrainingSet) -> None:
    """Ones and zeros of each row, against plain counts of the impressions and the plays within an hour."""
    found: dict[str, list[int]] = {}
    names = ["", *data.encoder.state.rows]
    for batch in data.epoch(0):
        label, row = batch.targets.labels["shown_play"], batch.context.row
        for name, value in zip(row[~np.isnan(label)], label[~np.isnan(label)], strict=True):
            found.setdefault(names[name], [0, 0])[int(value)] += 1
    events = log.interactions().filter(pl.col("title_id").is_not_null())
    shown = events.filter((pl.col("action") == "impression") & pl.col("row_id").is_not_null())
    plays = events.filter(pl.col("action") == "play").select("member_id", "title_id", played="event_at")
    later = shown.join(plays, on=["member_id", "title_id"], how="left")
    hit = (pl.col("played") > pl.col("event_at")) & (pl.col("played") <= pl.col("event_at") + pl.duration(hours=1))
    progress = later.group_by("event_id").agg(pl.col("row_id").first().str.split(":").list.first(), one=hit.any())
    share = {row: one for row, one in progress.group_by("row_id").agg(pl.col("one").mean()).iter_rows()}
    assert set(found) - {""} <= set(share)
    assert sum(sum(counts) for name, counts in found.items() if name) > 0.4 * shown.height
    for name in ("continue_watching", "top_picks"):
        zeros, ones = found[name]
        assert ones / (zeros + ones) == pytest.approx(share[name], abs=0.08), name
    assert found["continue_watching"][1] > found["continue_watching"][0]


def test_a_saved_training_set_gives_the_same_batches(data: TrainingSet, tmp_path: Path) -> None:
    data.save(tmp_path / "set")
    again = next(iter(TrainingSet.load(tmp_path / "set").epoch(0))).targets
    first = next(iter(data.epoch(0))).targets
    assert set(first.rows) == {"name", "genre", "about", "head"}
    for name, values in first.rows.items():
        np.testing.assert_array_equal(values, again.rows[name])
    # Only rows that begin a row of a page say which.
    assert ((first.rows["head"][:, 0] > 0) >= ~np.isnan(first.labels["row_play"])).all()


def test_what_serving_values_is_what_the_network_learnt(
    data: TrainingSet, fitted: Fitted, log: SimulatedLog, model: ResolvedModel
) -> None:
    scorer = fitted.scorer(log.world, NoFeatures())
    network = scorer.network
    batch = next(iter(data.epoch(0)))
    targets = TargetBatch.from_arrays(batch.targets)
    with torch.inference_mode():
        vectors = network.title_vectors(scorer.inputs)
    scene = network.scene(HistoryBatch.from_arrays(batch.history), ContextBatch.from_arrays(batch.context), vectors)
    head = network.heads[list(model.model.heads).index("row_play")]
    assert scene.embed is not None
    with torch.inference_mode():
        logits = row_logits(head, scene.state_of(head), targets.rows, scene.embed).numpy()
    names = [None, *data.encoder.state.row_texts]
    genres = [None, *data.encoder.state.genres]
    states = PageReader(network, scorer.encoder, vectors.vectors).read(scene)
    chosen = np.flatnonzero(batch.targets.rows["head"][:, 1] > 0)[:40]
    assert len(chosen) == 40
    for row in chosen.tolist():
        coded = np.stack([batch.targets.rows[name][row] for name in ("name", "genre", "about", "head")], axis=1)
        entries = [
            RowEntry(names[name] or "", genres[genre], about - 1, head_ - 1)
            for name, genre, about, head_ in coded.tolist()
            if head_
        ]
        value = states[row].logits("row_play", entries[:1], entries[1:])
        assert value[0] == pytest.approx(logits[row], abs=1e-4)


def test_pages_of_a_policy_come_in_the_order_of_its_arm(fitted: Fitted, log: SimulatedLog) -> None:
    world = log.world
    tops = {}
    for arm in ("fixed", "greedy/titles", "greedy/rows"):
        policy = page_policy(fitted, world, page_spec(arm))
        events = simulate(replace(world, spec=world.spec.model_copy(update={"days": 2})), policy, keep_log=True)
        rows = events.interactions.filter(pl.col("canvas") == "row_ranking")
        assert rows["propensity"].unique().to_list() == [1.0]
        tops[arm] = rows.filter(pl.col("position") == 0)["row_id"].str.split(":").list.first().value_counts()
    assert set(tops["fixed"].sort("count")["row_id"]) <= {"continue_watching", "top_picks"}
    for arm in ("greedy/titles", "greedy/rows"):
        assert not tops[arm].sort("row_id").equals(tops["fixed"].sort("row_id"))


def test_a_bundle_without_such_heads_has_no_page_states(
    log: SimulatedLog, model: ResolvedModel, tmp_path: Path
) -> None:
    plain = model.model_copy(
        update={
            "model": model.model.model_copy(update={"heads": {"discovery_play": model.model.heads["discovery_play"]}})
        }
    )
    split = make_split("global_time_successive", log.interactions())
    data = training_set(log, plain, split, NoFeatures())
    assert data.encoder.state.row_texts == {}
    assert next(iter(data.epoch(0))).targets.rows == {}
    scorer = trained_on(data, plain, tmp_path / "plain").scorer(log.world, NoFeatures())
    assert scorer.page_states([Request("home", log.world.spec.start)]) == []


def test_going_on_with_a_title_adds_nothing_to_what_was_discovered(log: SimulatedLog) -> None:
    """The metric of discovery counts plays of titles that were new at the page, however often others are continued."""
    world = log.world
    start = int(world.spec.start.timestamp() * 1e6)

    def plays(*progress: tuple[int, int]) -> pl.DataFrame:
        rows = [
            {"member_id": world.member_ids[0], "title_id": world.title_ids[title], "action": "play", "event_at": day}
            for title, day in progress
        ]
        return pl.DataFrame(rows).with_columns(
            event_at=(pl.col("event_at") * 86_400_000_000 + start).cast(pl.Datetime("us", "UTC"))
        )

    member, at = np.array([0]), np.array([start + 5 * 86_400_000_000])
    few = plays_after(member, at, plays((3, 1), (7, 6)), world)
    many = plays_after(member, at, plays((3, 1), (3, 5), (3, 6), (3, 7), (7, 6), (7, 7)), world)
    for found in (few, many):
        assert found.filter(~pl.col("again"))["title"].to_list() == [7]
    assert sorted(many["title"].to_list()) == [3, 7]
    assert plays_after(member, at, plays((7, 4), (7, 13)), world).is_empty()
