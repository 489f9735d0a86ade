"""A network that starts from another gives what that one gave, however differently the two number things."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fixtures import shown_service as service
from fixtures.vocabulary_problem import (
    HEADS,
    TITLES,
    VOCABULARIES,
    by_title,
    config,
    events,
    parent_of,
    renumbered,
    shaken,
    state,
    states,
    turned,
)
from playbill.config import shipped_folder
from playbill.datasets import Encoder
from playbill.datasets.encoding.encoder import EncoderState
from playbill.definitions.specs.network import GatedTransformerOptions
from playbill.definitions.zoo import load_zoo
from playbill.errors import StateError
from playbill.models import (
    HeadConfig,
    HistoryBatch,
    Network,
    TitleInputs,
)
from playbill.training import LoopSettings, fit, loop
from playbill.training.build import build_network, network_config
from playbill.training.inherit import NamedTensors, Parent, axes_of, inherit, inherited
from playbill.training.start import network_differences


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    return parent_of(tmp_path_factory.mktemp("p") / "bundle", state(), shaken(Network(config(state()))))


def started(own: EncoderState, parent: Parent, seed: int = 9, **changes: Any) -> Network:
    torch.manual_seed(seed)
    network = shaken(Network(config(own, **changes)), seed)
    inherit(network, Encoder(own), np.ones(len(own.titles) + 1, np.float32), parent)
    return network.eval()


def test_a_copy_scores_every_title_as_its_parent_though_nothing_has_the_same_number(parent: Parent) -> None:
    frame, own = events(), renumbered()
    there = by_title(parent.bundle.encoder, parent.bundle.network(), frame)
    here = by_title(Encoder(own), started(own, parent), frame)
    assert here.keys() == there.keys() == {"play", "up", "wish"}
    for head, titles in there.items():
        for title, scores in titles.items():
            np.testing.assert_allclose(here[head][title], scores, rtol=1e-4, atol=1e-4, err_msg=f"{head} {title}")


def test_heads_about_rows_pages_genres_and_kinds_are_taken_too(parent: Parent) -> None:
    own = renumbered()
    before, network = parent.bundle.network(), started(own, parent)
    for place in (3, 4):
        for name, tensor in network.heads[place].named_parameters():
            torch.testing.assert_close(tensor, before.heads[place].get_parameter(name))
    kinds = [0, *(1 + own.kinds.index(kind) for kind in state().kinds)]
    torch.testing.assert_close(network.heads[6].out.weight[kinds], before.heads[6].out.weight)
    genres = [0, *(1 + own.genres.index(genre) for genre in state().genres)]
    torch.testing.assert_close(network.heads[5].out.bias[genres], before.heads[5].out.bias)
    torch.testing.assert_close(network.rows.genre.weight[genres], before.rows.genre.weight)


def test_heads_in_another_order_keep_their_own_weights_and_begin_afresh_where_they_are_mixed(parent: Parent) -> None:
    network, before = started(state(), parent, heads=HEADS[::-1]), parent.bundle.network()
    torch.testing.assert_close(network.heads[-1].query.weight, before.heads[0].query.weight)
    torch.testing.assert_close(network.title_bias.weight.flip(1), before.title_bias.weight)
    assert not torch.equal(network.sharing.own.up, before.sharing.own.up)


@pytest.mark.parametrize("kind", ["id", "gate", "low_rank"])
def test_what_bends_to_countries_is_taken_by_name_and_a_new_country_begins_neutral(tmp_path: Path, kind: str) -> None:
    wanted = {"adaptation": {"type": kind, "rank": 2, "width": 4}}
    parent = parent_of(tmp_path / "bundle", state(), shaken(Network(config(state(), **wanted))))
    own = state(countries=("NO", "US", "FR"))
    network, frame = Network(config(own, **wanted)), events()
    inherit(network, Encoder(own), np.ones(len(own.titles) + 1, np.float32), parent)
    for country in ("US", "FR"):
        requested = frame.with_columns(country=pl.lit(country))
        there = by_title(parent.bundle.encoder, parent.bundle.network(), requested)
        for head, titles in by_title(Encoder(own), network.eval(), requested).items():
            np.testing.assert_allclose(titles["t03"], there[head]["t03"], rtol=1e-4, atol=1e-4)
    if kind != "gate":  # the vector of a new country drives the gates that are there
        plain = Network(config(own)).eval()
        plain.load_state_dict({name: own for name, own in network.state_dict().items() if "adaptation" not in name})
        requested = frame.with_columns(country=pl.lit("NO"))
        expected, found = (by_title(Encoder(own), one, requested)["play"] for one in (plain, network))
        np.testing.assert_allclose(found["t03"], expected["t03"], rtol=1e-5, atol=1e-5)


def test_a_head_that_learns_otherwise_is_another_head(parent: Parent) -> None:
    other = (HeadConfig(name="play", loss="bce"),)
    network = started(state(), parent, heads=other)
    fresh = shaken(Network(config(state(), heads=other)), 9)
    torch.testing.assert_close(network.heads[0].query.weight, fresh.heads[0].query.weight)
    torch.testing.assert_close(network.title_bias.weight, fresh.title_bias.weight)


def test_states_are_the_parents_where_the_child_has_other_heads_and_more_of_everything(parent: Parent) -> None:
    more = {name: ("new", *turned(values)) for name, values in VOCABULARIES.items() if name != "titles"}
    own = state(**more, titles=(*turned(TITLES), "late"), categorical={"place__size": ("big",)})
    network = started(own, parent, heads=(HeadConfig(name="other", loss="softmax"),), frozen=True)
    found = states(Encoder(own), network, events())
    torch.testing.assert_close(found, states(parent.bundle.encoder, parent.bundle.network(), events()))


def test_a_value_that_the_parent_never_saw_begins_as_its_unknown_value(parent: Parent) -> None:
    own, frame = state(devices=("tv", "vr", "phone"), canvases=("home", "lobby", "cinema")), events("vr")
    there = frame.with_columns(pl.col("canvas").replace("kids", "elsewhere"))
    expected = states(parent.bundle.encoder, parent.bundle.network(), there)
    here = frame.with_columns(pl.col("canvas").replace("kids", "cinema"))
    torch.testing.assert_close(states(Encoder(own), started(own, parent), here), expected)


def test_other_edges_of_years_take_the_bucket_that_a_year_was_in(parent: Parent) -> None:
    own = state(year_edges=(1980, 1990, 1999, 2010))
    torch.testing.assert_close(
        states(Encoder(own), started(own, parent), events()),
        states(parent.bundle.encoder, parent.bundle.network(), events()),
    )


def test_a_title_that_the_parent_does_not_know_is_turned_into_its_space(tmp_path: Path) -> None:
    """Where the parent's vectors are the fresh ones, turned and stretched, a new title's are too."""
    own = state(titles=(*turned(TITLES), "late", "later"))
    torch.manual_seed(1)
    network = Network(config(own))
    rotation, _ = torch.linalg.qr(torch.randn(16, 16))
    before = Network(config(state()))
    fresh = network.titles.id.weight.detach().clone()
    with torch.no_grad():
        for place, title in enumerate(TITLES):
            before.titles.id.weight[1 + place] = 3.0 * fresh[1 + own.titles.index(title)] @ rotation
        before.titles.id.weight[5] = 100.0  # never played where the parent was trained: it says nothing
    plays = np.ones(len(TITLES) + 1)
    plays[5] = 0
    parent = parent_of(tmp_path / "bundle", state(), before, plays)
    inherit(network, Encoder(own), np.ones(len(own.titles) + 1, np.float32), parent)
    torch.testing.assert_close(network.titles.id.weight[1:], (3.0 * fresh @ rotation)[1:], rtol=1e-3, atol=1e-4)
    found = {one.kind: one for one in inherited(own, np.ones(len(own.titles) + 1), ["play", "new"], parent)}
    assert (str(found["titles"]), found["titles"].new) == ("19 of 22 titles", ("t04", "late", "later"))
    assert (str(found["heads"]), found["heads"].new) == ("1 of 2 heads", ("new",))
    assert str(found["genres"]) == "4 of 4 genres"


def test_every_tensor_that_counts_a_vocabulary_has_labels() -> None:
    """Sizes that nothing else has: a tensor with one of them on an axis without labels would be copied by place."""
    sizes = dict(zip(VOCABULARIES, (101, 37, 41, 43, 97, 53, 59, 61, 67, 71, 73, 79, 113), strict=True))
    many = {name: tuple(f"{name} {place}" for place in range(size)) for name, size in sizes.items()}
    texts = {f"row {place}": f"Row {place}" for place in range(83)}
    own = state(**many, row_texts=texts, year_edges=tuple(range(89)))
    network = Network(config(own))
    named = NamedTensors(network, axes_of(network.config, own, own.titles, list(map(str, range(1, 91)))))
    counted = {size + extra for size in (*sizes.values(), 83, 89) for extra in (0, 1, 2)} | {2 * 73, 2 * 79, 2 * 113}
    for name, tensor in named.tensors.items():
        labels = named.axes.get(name, (None,) * tensor.ndim)
        for axis, size in enumerate(tensor.shape):
            if labels[axis] is None:
                assert size not in counted, f"axis {axis} of {name} has no labels"
            else:
                assert len(labels[axis]) == size, name
    assert named.axes.keys() >= {"titles.id.weight", "canvas_titles.weight"}
    assert {name for name in named.axes if name in named.tensors} > {"rows.name.weight", "context.numeric.weight"}


FOUNDATION = ("titles.", "events.", "trunk.")


@pytest.mark.parametrize("by_rows", [False, True])
def test_frozen_parts_are_bit_identical_after_training_and_all_else_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_rows: bool
) -> None:
    if by_rows:
        monkeypatch.setattr(loop, "ROWS_FROM", 1)
    drawn = {"loss": "sampled_softmax", "negatives": {"policy": "uniform", "count": 4}}
    heads = {"play": {"label": "play", **drawn}}
    small = {"trunk": {"dim": 16, "layers": 1, "heads": 2, "dropout": 0.5}, "titles": {"id_mask": 0.5}}
    resolved = service.model(heads, init_from={"model": "foundation:3", "trunk": "frozen"}, **small)
    data = service.training_set(resolved, service.log())
    fresh = Network(network_config(resolved.afresh(), data.encoder))
    parent = parent_of(tmp_path / "bundle", data.encoder.state, shaken(fresh))
    network = build_network(resolved, data, parent)
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    settings = LoopSettings(epochs=2, learning_rate=0.05, weight_decay=0.5, ema=0.9, low_precision=False)
    trained = fit(network, data, settings, folder=tmp_path / "checkpoints").network
    known = parent.bundle.network().state_dict()
    for name, tensor in trained.state_dict().items():
        if name.startswith(FOUNDATION):
            assert torch.equal(tensor, known[name]), name
    for part in ("heads.0.query.weight", "title_bias.weight", "crossing.shift.weight", "context.fields.table.weight"):
        assert not torch.equal(trained.state_dict()[part], start[part]), part
    history, _, _ = next(data.epoch(0))
    batch, inputs = HistoryBatch.from_arrays(history), TitleInputs.from_arrays(data.titles)
    with torch.no_grad():
        trained.train()  # also in training nothing of what is frozen is dropped or hidden
        found = trained.states(batch, trained.title_vectors(inputs))
        before = parent.bundle.network()
        torch.testing.assert_close(found, before.states(batch, before.title_vectors(inputs)))


def test_a_tuned_copy_moves_all_of_it(tmp_path: Path) -> None:
    resolved = service.model({"play": {"label": "play", "loss": "softmax"}}, init_from="foundation:3")
    data = service.training_set(resolved, service.log())
    fresh = shaken(Network(network_config(resolved, data.encoder)))
    network = build_network(resolved, data, parent_of(tmp_path / "bundle", data.encoder.state, fresh))
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.testing.assert_close(start["trunk.norm.weight"], fresh.state_dict()["trunk.norm.weight"])
    trained = fit(network, data, LoopSettings(epochs=1, low_precision=False)).network.state_dict()
    for name in ("titles.id.weight", "events.position.weight", "trunk.norm.weight"):
        assert not torch.equal(trained[name], start[name])


def test_a_definition_that_starts_from_a_version_is_not_trained_without_it() -> None:
    resolved = service.model({"play": {"label": "play", "loss": "softmax"}}, init_from="foundation:3")
    data = service.training_set(resolved, service.log())
    with pytest.raises(StateError, match="model 'shown' starts from foundation:3"):
        build_network(resolved, data)
    assert not build_network(resolved.afresh(), data).config.frozen


def test_the_shipped_model_can_start_from_the_shipped_foundation() -> None:
    zoo = load_zoo(shipped_folder("model_zoo"))
    foundation, model = zoo.model("foundation"), zoo.model("everycanvas")
    encoder = Encoder(state())
    bundle = SimpleNamespace(resolved=foundation, encoder=encoder, config=network_config(foundation, encoder))
    assert list(network_differences(model, Parent("foundation:1", bundle))) == []
    wider = model.model_copy(
        update={"model": model.model.model_copy(update={"trunk": GatedTransformerOptions(dim=64)})}
    )
    (problem,) = network_differences(wider, Parent("foundation:1", bundle))
    assert (problem.where, problem.what) == ("trunk.dim", "64, but foundation:1 has 128.")
