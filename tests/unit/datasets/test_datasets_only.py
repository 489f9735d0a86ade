"""Models that learn from the events of some countries alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fixtures import context_service as service
from fixtures import shown_service
from playbill.datasets import TrainingSet, make_split
from playbill.definitions.specs import ResolvedModel
from playbill.errors import DataError
from playbill.evaluation.cases.event_log import EventLog, TitleOrder
from playbill.ranking.scoring.bundle import read_bundle
from playbill.training.build import build_network
from playbill.training.inherit import Parent, knowing
from playbill_lab.bridge.simulated_log import trained_on

CANVASES = {name: service.CANVASES[name] for name in ("home", "lobby")}


def model(**changes: Any) -> ResolvedModel:
    return service.model(CANVASES, training={"epochs": 1, "stride": 8, "batch_slots": 90, "seed": 3}, **changes)


def log() -> pl.DataFrame:
    """A log in which title t02 is played in the United States alone."""
    events = service.log(members=16)
    french = (pl.col("country") == "FR") & (pl.col("title_id") == "t02")
    return events.with_columns(title_id=pl.when(french).then(pl.lit("t01")).otherwise("title_id"))


def plays_of(data: TrainingSet) -> dict[str, float]:
    return dict(zip(data.encoder.state.titles, data.plays[1:].tolist(), strict=True))


def test_nothing_else_of_the_log_is_learnt_from() -> None:
    events = log()
    data = service.training_set(model(only={"country": ["FR"]}), events)
    alone = service.training_set(model(), events.filter(pl.col("country") == "FR"))
    assert data.encoder.state.countries == ("FR",)
    assert data.encoder.version == alone.encoder.version
    assert plays_of(data) == plays_of(alone)
    assert plays_of(data)["t02"] == 0 < plays_of(service.training_set(model(), events))["t02"]
    for mine, theirs in zip(data.epoch(0), alone.epoch(0), strict=True):
        assert np.array_equal(mine.history.title, theirs.history.title)
        assert np.array_equal(mine.targets.title, theirs.targets.title)


def test_countries_without_an_event_are_named_together() -> None:
    with pytest.raises(DataError) as raised:
        service.training_set(model(only={"country": ["FR", "USA", "BR"]}), log())
    text = str(raised.value)
    assert "2 problems" in text
    assert "only.country: 'USA': no event of the train fold is from there. Did you mean 'US'?" in text
    assert "only.country: 'BR': no event of the train fold is from there. There are FR, US." in text


def test_it_is_in_a_hash_only_where_it_is_wanted() -> None:
    assert "only" not in model().model.model_dump(mode="json")
    assert model(only={"country": ["FR"]}).model.model_dump(mode="json")["only"] == {"country": ["FR"]}
    assert model().spec_hash != model(only={"country": ["FR"]}).spec_hash


def test_a_model_that_starts_from_another_keeps_the_titles_that_nobody_played_there(tmp_path: Path) -> None:
    events, whole = log(), model()
    trained_on(service.training_set(whole, events), whole, tmp_path / "bundle")
    parent = Parent("asked:1", read_bundle(tmp_path / "bundle"))
    wanted = model(only={"country": ["FR"]})
    data = service.training_set(wanted, events)
    place = data.encoder.state.titles.index("t02") + 1
    assert not data.titles.has_id[place]
    known = knowing(data, wanted, parent)
    assert known.titles.has_id[place]
    assert plays_of(known)["t01"] == max(plays_of(data)["t01"], dict(parent.bundle.titles.iter_rows())["t01"])
    network, before = build_network(wanted, known, parent), parent.bundle.network()
    there = parent.bundle.encoder.state.titles.index("t02") + 1
    assert np.array_equal(network.titles.id.weight[place].detach(), before.titles.id.weight[there].detach())
    assert knowing(data, whole, parent) is data
    assert knowing(data, wanted, None) is data


def test_plays_of_terms_are_of_these_countries_alone() -> None:
    events = log()
    titles = TitleOrder.of(shown_service.TITLES)
    every = EventLog.of(events, make_split("leave_one_out", events), titles)
    french = every.from_countries(["FR"])
    members = events.filter(pl.col("country") == "FR")["member_id"].unique()
    assert set(french.fitted_plays()["member_id"]) == set(members)
    assert french.fitted_plays().height < every.fitted_plays().height
