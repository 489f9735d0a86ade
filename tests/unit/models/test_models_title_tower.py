"""The title tower: how far a title's own vector counts, and what stands in for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from playbill.models import ContextBatch, HistoryBatch, Network, NetworkConfig, TargetBatch, TitleInputs

Batch = tuple[HistoryBatch, ContextBatch, TargetBatch]


def with_titles(config: NetworkConfig, **changes: object) -> NetworkConfig:
    return config.model_copy(update={"titles": config.titles.model_copy(update=changes)})


def trained(config: NetworkConfig, batch: Batch, titles: TitleInputs, steps: int = 40) -> Network:
    torch.manual_seed(0)
    network = Network(config).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        network.loss(*batch, titles)[0].backward()
        optimizer.step()
    return network.eval()


def test_the_share_of_the_id_rises_with_plays(config: NetworkConfig, title_arrays: SimpleNamespace) -> None:
    plays = np.array([0, 0, 1, 5, 40, 300], np.float32)
    titles = TitleInputs.from_arrays(SimpleNamespace(**vars(title_arrays) | {"plays": plays, "has_id": plays > 0}))
    network = Network(config).eval()
    _, share = network.titles(titles, network.titles.prepare(titles, network.grams))
    shares = share.squeeze(-1).detach().numpy()
    assert shares[:2].tolist() == [0, 0], "nobody has played them, so their metadata is all there is"
    assert np.corrcoef(np.log1p(plays), shares)[0, 1] > 0.9
    assert 0.3 < shares[2] < shares[3] < shares[4] < shares[5] < 1
    everywhere = Network(with_titles(config, age_gate=False)).eval()
    _, flat = everywhere.titles(titles, everywhere.titles.prepare(titles, everywhere.grams))
    assert flat.squeeze(-1).tolist() == [0, 0, 1, 1, 1, 1]


def test_a_fallback_changes_nothing_before_it_is_trained(config: NetworkConfig, titles: TitleInputs) -> None:
    found = []
    for fallback in (False, True):
        torch.manual_seed(0)
        network = Network(with_titles(config, fallback=fallback)).eval()
        with torch.no_grad():
            network.titles.id.weight[1:] += 1
            for parameter in network.titles.metadata.parameters():
                parameter.fill_(0.3)
        found.append(network.title_vectors(titles).vectors)
    assert torch.equal(*found)


def test_a_fallback_is_trained_by_hidden_ids_alone_and_is_that_of_the_kind(
    config: NetworkConfig, batch: Batch, titles: TitleInputs
) -> None:
    usable = dataclasses.replace(titles, has_id=titles.index > 0)
    plain = trained(with_titles(config, fallback=True, id_mask=0.0), batch, usable).titles.fallback
    assert plain is not None
    assert plain.weight[1:].abs().sum() == 0, "no id is hidden and each title has one"
    network = trained(with_titles(config, fallback=True, id_mask=0.4), batch, usable)
    fallback = network.titles.fallback
    assert fallback is not None
    assert (fallback.weight[1:].norm(dim=1) > 0.01).all()
    hidden = dataclasses.replace(titles, has_id=torch.zeros_like(titles.has_id))
    prepared = network.titles.prepare(hidden, network.grams)
    vectors = network.titles(hidden, prepared)[0]
    assert network.titles.given is not None
    left = vectors - network.titles.metadata(hidden, prepared) - network.titles.given(prepared.numeric)
    torch.testing.assert_close(left, fallback.weight[titles.kind])


@pytest.mark.parametrize("metadata", [True, False])
def test_a_title_with_an_id_has_no_fallback(config: NetworkConfig, titles: TitleInputs, metadata: bool) -> None:
    network = Network(with_titles(config, fallback=True, metadata=metadata)).eval()
    before = network.title_vectors(titles).vectors
    with torch.no_grad():
        assert network.titles.fallback is not None
        network.titles.fallback.weight.fill_(1.0)
    after = network.title_vectors(titles).vectors
    assert torch.equal(before[titles.has_id], after[titles.has_id])
    torch.testing.assert_close(after[~titles.has_id], before[~titles.has_id] + 1)


def test_a_network_written_before_there_were_fallbacks_loads(config: NetworkConfig) -> None:
    written = json.loads(config.to_json())
    del written["titles"]["fallback"]
    assert NetworkConfig.from_json(json.dumps(written)) == config
    assert not any("fallback" in name for name in Network(config).state_dict())


@pytest.mark.parametrize(
    ("metadata", "typed", "read"),
    [(False, False, set()), (False, True, {"names"}), (True, False, {"names", "synopses"})],
)
def test_text_of_titles_is_worked_out_where_something_reads_it(
    config: NetworkConfig,
    history: HistoryBatch,
    context_of: Callable[..., ContextBatch],
    titles: TitleInputs,
    monkeypatch: pytest.MonkeyPatch,
    metadata: bool,
    typed: bool,
    read: set[str],
) -> None:
    network = Network(with_titles(config, metadata=metadata)).eval()
    query = {"query_grams": np.array([3, 4]), "query_offsets": np.array([0, 2])} if typed else {}
    kinds = {id(titles.name_grams): "names", id(titles.synopsis_grams): "synopses"}
    computed, vectors = [], network.grams.names

    def counted(grams: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        computed.append(kinds[id(grams)])
        return vectors(grams, offsets)

    monkeypatch.setattr(network.grams, "names", counted)
    for _ in range(2):
        network.scores(history, context_of([0, 3], **query), titles)
    assert sorted(computed) == sorted(read), "each once"


def test_text_that_was_first_read_in_inference_can_be_trained_on(config: NetworkConfig, titles: TitleInputs) -> None:
    network = Network(config)
    prepared = network.titles.prepare(titles, network.grams)
    with torch.inference_mode():
        assert prepared.names.any()
    network.titles.metadata(titles, prepared).sum().backward()
    assert network.titles.metadata.name.weight.grad is not None
