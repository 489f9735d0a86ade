"""A network that knows more has every learnt value bit for bit, and its optimizer goes on."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fixtures import ring_problem as ring
from fixtures.vocabulary_problem import (
    TITLES,
    VOCABULARIES,
    catalogue,
    config,
    events,
    parent_of,
    shaken,
    state,
    states,
)
from playbill.continual.incremental.growth import MOMENTS, OptimizerState, grown_config, grown_network, update_settings
from playbill.datasets import Encoder
from playbill.datasets.encoding.encoder import EncoderState
from playbill.datasets.encoding.fit import grown_encoder
from playbill.definitions.specs import UpdateSpec
from playbill.models import Network
from playbill.training import fit
from playbill.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from playbill.training.inherit import Label, NamedTensors, Parent, axes_of, years_among

UNPLAYED = 19  # row of a title that the parent knows and has never seen played


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    plays = np.ones(len(TITLES) + 1)
    plays[UNPLAYED] = 0
    wanted = {"adaptation": {"type": "low_rank", "rank": 2, "width": 4}}
    # Names of rows by their letters, as training gives them.
    network = shaken(Network(grown_config(config(state(), **wanted), Encoder(state()))))
    return parent_of(tmp_path_factory.mktemp("p") / "bundle", state(), network, plays)


def later() -> EncoderState:
    """Return what a log says that has more of everything, in other orders."""
    names = [name for name in VOCABULARIES if name not in ("numeric", "title_snapshot", "title_vectors", "titles")]
    more = {name: ("0 new", *reversed(VOCABULARIES[name])) for name in names}
    return state(**more, titles=(*TITLES, "late"), row_texts={"0 new": "New", "popular": "Popular"})


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(grown_encoder(state(), later()))


def grown(parent: Parent, encoder: Encoder, rule: str = "mean_noise") -> Network:
    return grown_network(parent, encoder, catalogue(encoder), rule, seed=3).eval()


def test_every_value_keeps_its_index_and_new_ones_come_behind(encoder: Encoder) -> None:
    for name, values in VOCABULARIES.items():
        known = getattr(encoder.state, name)
        assert known[: len(values)] == values
        assert set(known[len(values) :]) == set(getattr(later(), name)) - set(values)


def test_rows_of_learnt_titles_are_bit_for_bit_what_they_were(parent: Parent, encoder: Encoder) -> None:
    before, network = parent.bundle.network(), grown(parent, encoder)
    learnt = [row for row in range(len(TITLES) + 1) if row != UNPLAYED]
    for old, new in zip(before.title_tables(), network.title_tables(), strict=True):
        columns = old.weight.shape[1]
        if new.weight.shape[1] == columns:
            assert torch.equal(new.weight[learnt], old.weight[learnt])
    canvases = before.config.events.canvases
    own = network.canvas_titles.weight.unflatten(1, (-1, canvases + 1))[learnt, :, :canvases]
    assert torch.equal(own, before.canvas_titles.weight.unflatten(1, (-1, canvases))[learnt])


def test_everything_else_is_bit_for_bit_what_it_was(parent: Parent, encoder: Encoder) -> None:
    before, network = parent.bundle.network().state_dict(), grown(parent, encoder).state_dict()
    same = [name for name, tensor in before.items() if network[name].shape == tensor.shape]
    assert len(same) > len(before) / 2
    assert [name for name in same if not torch.equal(network[name], before[name])] == []
    here, there = (
        _named(one, own) for one, own in ((grown(parent, encoder), encoder), (parent.bundle.network(), None))
    )
    for name in here.tensors:
        if here.tensors[name].shape != there.tensors[name].shape:
            mine, theirs = _by_label(here, name), _by_label(there, name)
            assert theirs.keys() <= mine.keys(), name
            assert {label: mine[label] for label in theirs} == theirs, name


def _named(network: Network, encoder: Encoder | None) -> NamedTensors:
    own = state() if encoder is None else encoder.state
    # A title that was never played is no learnt row.
    titles = [title if row != UNPLAYED else "" for row, title in enumerate(own.titles, start=1)]
    return NamedTensors(network, axes_of(network.config, own, titles, years_among(own, own)))


def _by_label(named: NamedTensors, name: str) -> dict[tuple[Label, ...], float]:
    """Return every value of a tensor by the labels along its axes; of a label that stands twice the first."""
    tensor, axes = named.tensors[name], named.axes[name]
    labels = [
        [("place", str(place)) for place in range(size)] if own is None else own
        for own, size in zip(axes, tensor.shape, strict=True)
    ]
    cells = zip(product(*labels), tensor.flatten().tolist(), strict=True)
    return dict(reversed(list(cells)))


def test_a_history_is_read_as_before(parent: Parent, encoder: Encoder) -> None:
    frame = events()
    there = states(parent.bundle.encoder, parent.bundle.network(), frame)
    torch.testing.assert_close(states(encoder, grown(parent, encoder), frame), there)


def test_a_title_starts_by_the_rule_that_is_named(parent: Parent, encoder: Encoder) -> None:
    before = parent.bundle.network().titles.id.weight.detach()
    learnt = [row for row in range(1, len(TITLES) + 1) if row != UNPLAYED]
    new = encoder.title_rows.encode(["late"])[0]
    rows = {rule: grown(parent, encoder, rule) for rule in ("metadata_neighbours", "mean_noise", "fallback", "random")}
    mean, spread = before[learnt].mean(dim=0), before[learnt].std(dim=0)
    for row in (new, UNPLAYED):
        assert ((rows["mean_noise"].titles.id.weight[row] - mean).abs() < spread).all()
        titles = catalogue(encoder)
        tower = rows["fallback"].titles
        metadata = tower.metadata(titles, tower.prepare(titles, rows["fallback"].grams))[row]
        torch.testing.assert_close(tower.id.weight[row], metadata + tower.fallback(titles.kind)[row])
        assert rows["random"].title_bias.weight[row].eq(0).all()
        assert not torch.equal(rows["random"].titles.id.weight[row], before[UNPLAYED])
        nearest = rows["metadata_neighbours"].titles.id.weight[row]
        held = [before[list(chosen)].mean(dim=0) for chosen in _tens(rows["metadata_neighbours"], titles, row, learnt)]
        assert any(torch.allclose(nearest, one, atol=1e-6) for one in held)


def _tens(network: Network, titles, row: int, learnt: list[int]) -> list[list[int]]:
    vectors = network.titles.metadata(titles, network.titles.prepare(titles, network.grams)).detach()
    alike = torch.nn.functional.cosine_similarity(vectors[row][None], vectors[learnt])
    return [[learnt[place] for place in alike.argsort(descending=True)[:10].tolist()]]


def test_moments_of_learnt_rows_go_on_and_those_of_new_rows_are_zero(parent: Parent, encoder: Encoder) -> None:
    before, network = parent.bundle.network(), grown(parent, encoder)
    parameters = dict(before.named_parameters())
    moments = {moment: {name: torch.rand_like(own.detach()) for name, own in parameters.items()} for moment in MOMENTS}
    own = OptimizerState(moments, dict.fromkeys(parameters, 7.0), {"found": torch.zeros(7)})
    found = own.grown(network, encoder, parent)
    learnt = [row for row in range(1, len(TITLES) + 1) if row != UNPLAYED]
    new = [UNPLAYED, *range(len(TITLES) + 1, len(network.titles.id.weight))]
    assert found.steps == own.steps
    for moment in MOMENTS:
        assert found.moments[moment].keys() == parameters.keys()
        ids = found.moments[moment]["titles.id.weight"]
        assert torch.equal(ids[learnt], moments[moment]["titles.id.weight"][learnt])
        assert ids[new].eq(0).all()
        trunk = [name for name in parameters if name.startswith("trunk.")]
        assert all(torch.equal(found.moments[moment][name], moments[moment][name]) for name in trunk)
        devices = found.moments[moment]["context.fields.table.weight"]
        assert devices.eq(0).all(dim=1).any(), "a new device has no moments"


@pytest.mark.parametrize(
    ("before", "after"), [({}, {}), ({"head_rates": {"play": 0.5}}, {}), ({}, {"title_rate": 30.0})]
)
def test_a_run_begins_with_the_optimizer_that_another_ended_with(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    first = ring.SETTINGS.model_copy(update=before)
    result = fit(ring.ring_network(), ring.RingBatches(), first, folder=tmp_path / "first")
    own = OptimizerState.read(tmp_path / "first")
    assert own is not None
    for name, parameter in result.network.named_parameters():
        if name in own.steps:
            assert own.moments["exp_avg"][name].shape == parameter.shape, name
    settings = first.model_copy(update={"epochs": 1, "learning_rate": 1e-9, **after})
    own.begin(tmp_path / "second", result.network, ring.RingBatches(), settings, workers=0)
    begun = load_checkpoint(checkpoints(tmp_path / "second")[0], None)
    assert begun.epoch == begun.step == 0
    same = OptimizerState.read(tmp_path / "second")
    assert same is not None
    assert same.steps == own.steps
    for moment, values in own.moments.items():
        assert all(torch.equal(same.moments[moment][name], value) for name, value in values.items())
    again = fit(result.network, ring.RingBatches(), settings, folder=tmp_path / "second")
    assert again.resumed_from is None
    ended = OptimizerState.read(tmp_path / "second")
    assert ended is not None
    batches = len(list(ring.RingBatches().epoch(0, 0, 1)))
    assert {name: steps - own.steps[name] for name, steps in ended.steps.items()} == dict.fromkeys(own.steps, batches)
    assert OptimizerState.read(tmp_path / "nothing") is None


def test_an_optimizer_that_does_not_name_its_parameters_is_not_gone_on_with(tmp_path: Path) -> None:
    fit(ring.ring_network(), ring.RingBatches(), ring.SETTINGS.model_copy(update={"epochs": 1}), folder=tmp_path)
    saved = load_checkpoint(checkpoints(tmp_path)[-1], None)
    for group in saved.optimizer["param_groups"]:
        del group["names"]
    save_checkpoint(tmp_path, replace(saved, epoch=saved.epoch + 1))
    assert OptimizerState.read(tmp_path) is None


def test_an_update_learns_at_its_own_rates() -> None:
    found = update_settings(
        ring.SETTINGS.model_copy(update={"min_steps": 400}), UpdateSpec(rate=0.5, title_rate=7), 0.01
    )
    assert (found.epochs, found.min_steps) == (1, 0)
    assert found.learning_rate == pytest.approx(0.5 * ring.SETTINGS.learning_rate)
    assert found.title_rate == 7
    assert "title_rate" not in UpdateSpec(rate=0.5).model_dump(), "definitions from before it keep their hash"


@pytest.mark.parametrize(("share", "passes"), [(0.0, 2), (0.05, 2), (0.1, 4), (0.25, 10), (1.0, 10)])
def test_a_large_part_of_all_events_is_learnt_nearly_as_often_as_in_training(share: float, passes: int) -> None:
    training = ring.SETTINGS.model_copy(update={"epochs": 10})
    found = update_settings(training, UpdateSpec(epochs=2, title_rate=3), share)
    assert found.epochs == passes
    assert found.title_rate == pytest.approx({2: 3, 4: 1.5, 10: 1}[passes])
