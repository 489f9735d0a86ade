"""Auxiliary heads from a log to a network: which rows teach them, and what a log without genres does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.datasets import TrainingSet, build_training_set, make_split
from playbill.definitions.specs import ModelSpec, ResolvedModel
from playbill.errors import DataError, StateError
from playbill.ranking.blend import head_losses
from playbill.training import LoopSettings, fit
from playbill.training.build import build_network


@pytest.fixture
def build(tables, resolved, features, clock):
    def made(own: dict[str, Any], titles: pl.DataFrame | None = None) -> tuple[TrainingSet, ResolvedModel]:
        trunk = {"dim": 8, "layers": 1, "heads": 2, "dropout": 0.0}
        changes = resolved.model.model_dump(by_alias=True) | {"trunk": trunk, "titles": {"metadata": ["name"]}}
        changes["heads"] |= {"extra": {"weight": 0.1, **own}}
        model = resolved.model_copy(update={"model": ModelSpec.model_validate(changes)})
        known = tables.titles() if titles is None else titles
        log = type(tables)(tables.interactions(), known, tables.availability())
        split = make_split("leave_one_out", log.interactions())
        data = build_training_set(log, model, split, features, clock)
        return data, data.trained(model)

    return made


@pytest.mark.parametrize("auxiliary", ["next_genres", "next_kind"])
def test_each_next_title_of_the_log_teaches_its_attributes(build, titles: pl.DataFrame, auxiliary: str) -> None:
    data, _ = build({"auxiliary": auxiliary})
    column = "genres" if auxiliary == "next_genres" else "kind"
    names = data.encoder.vocabulary("genre" if column == "genres" else "kind").entries
    known = {
        title: set(value if isinstance(value, list) else [value])
        for title, value in titles.select("title_id", column).iter_rows()
        if value is not None
    }
    taught = untaught = 0
    for batch, (row, _) in zip(data.epoch(0), data.rows_read(0), strict=True):
        label, own = batch.targets.labels["extra"], batch.targets.attributes["extra"]
        assert np.isnan(label[len(row) :]).all(), "made rows teach what the log says, once"
        for place in range(len(row)):
            wanted = known.get(data.encoder.state.titles[batch.targets.title[place] - 1], set())
            assert {names[index - 1] for index in own[place] if index} == wanted
            assert (label[place] == 1) == bool(wanted)
            taught, untaught = taught + bool(wanted), untaught + (not wanted)
    assert taught > 50
    assert untaught > 50 or auxiliary == "next_kind"


def test_it_is_trained_beside_the_others_and_is_in_no_blend(build, tmp_path) -> None:
    data, resolved = build({"auxiliary": "next_genres"})
    data.save(tmp_path)
    network = build_network(resolved, data)
    settings = LoopSettings(epochs=6, learning_rate=0.02, low_precision=False)
    reports = fit(network, TrainingSet.load(tmp_path), settings).reports
    assert reports[0]["loss/extra"] == pytest.approx(2 * math.log(2), rel=0.1), "two genres, nothing known"
    assert reports[-1]["loss/extra"] < reports[0]["loss/extra"]
    assert reports[0]["tokens"] == data.epoch_tokens > 0
    assert "extra" not in head_losses(resolved)


def test_a_log_without_genres_refuses_the_head_or_leaves_it_out(build, titles: pl.DataFrame) -> None:
    bare = titles.drop("genres")
    with pytest.raises(DataError, match="head 'extra': no title of this log has genres"):
        build({"auxiliary": "next_genres"}, bare)
    data, resolved = build({"auxiliary": "next_genres", "optional": True}, bare)
    assert data.left_out == {"extra": "no title of this log has genres"}
    assert "extra" not in resolved.model.heads
    assert next(data.epoch(0)).targets.attributes == {}


def test_a_model_keeps_a_head_that_can_be_served(resolved) -> None:
    from playbill.definitions.specs import prune_heads

    model = ModelSpec.model_validate(
        resolved.model.model_dump(by_alias=True)
        | {"heads": {"discovery_play": {"label": "discovery_play", "loss": "softmax"}, "g": {"auxiliary": "next_kind"}}}
    )
    with pytest.raises(StateError, match="no head is left to train"):
        prune_heads(resolved.model_copy(update={"model": model}), {"discovery_play": "no plays"})
