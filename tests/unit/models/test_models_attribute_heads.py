"""Auxiliary heads: attributes of the next title, learnt from the state and never served."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from playbill.models import ContextBatch, HeadConfig, HistoryBatch, Network, NetworkConfig, TargetBatch, TitleInputs

Batch = tuple[HistoryBatch, ContextBatch, TargetBatch]
GENRES = torch.tensor([[1, 0], [2, 3], [3, 0], [0, 0], [1, 2], [3, 1], [1, 0]])


def network_of(config: NetworkConfig, *others: HeadConfig) -> Network:
    torch.manual_seed(3)
    genre = HeadConfig(name="genre", loss="bce", target="genres", weight=0.1)
    network = Network(config.model_copy(update={"heads": (*others, genre)})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.1)
    return network


def with_genres(batch: Batch) -> Batch:
    history, context, targets = batch
    known = torch.where(GENRES.gt(0).any(-1), 1.0, torch.nan)
    return history, context, replace(targets, labels={**targets.labels, "genre": known}, attributes={"genre": GENRES})


def test_the_loss_is_the_likelihood_of_the_set_of_genres(
    config: NetworkConfig, batch: Batch, titles: TitleInputs
) -> None:
    network, (history, context, targets) = network_of(config), with_genres(batch)
    seen: list[torch.Tensor] = []
    network.heads[0].register_forward_hook(lambda _, __, logits: seen.append(logits))
    found = network.loss(history, context, targets, titles)[1]["genre"]
    logits, plain, weight = iter(seen[0].tolist()), 0.0, 0.0
    for genres, share in zip(GENRES.tolist(), targets.weight.tolist(), strict=True):
        own = {genre for genre in genres if genre}
        if own:
            row = next(logits)
            plain += share * sum(math.log1p(math.exp(-row[g] if g in own else row[g])) for g in range(1, 4))
            weight += share
    assert float(found.detach()) == pytest.approx(plain / weight, rel=1e-4)


def test_it_shapes_the_trunk_and_scores_no_title(config: NetworkConfig, batch: Batch, titles: TitleInputs) -> None:
    network, (history, context, targets) = network_of(config, *config.heads), with_genres(batch)
    total, sums = network(history, context, targets, titles)
    assert sums.shape == (3, 2)
    (gradient,) = torch.autograd.grad(sums.new_tensor(0) + total, [network.trunk.blocks[0].up.weight])
    quiet = replace(targets, labels={**targets.labels, "genre": torch.full((7,), torch.nan)})
    other = network(history, context, quiet, titles)[0]
    (without,) = torch.autograd.grad(other, [network.trunk.blocks[0].up.weight])
    assert not torch.allclose(gradient, without)
    assert set(network.scores(history, context, titles)) == {"play", "thumb"}


def test_drawn_titles_are_still_all_that_a_batch_reads(config: NetworkConfig) -> None:
    network = network_of(config, HeadConfig(name="play", loss="sampled_softmax"))
    assert network.ranks_named_titles({"play"})


def test_no_state_without_a_row_is_made_for_it(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads about rows read such states, so a network without any has none."""
    sized = config.model_copy(update={"context": config.context.model_copy(update={"rows": 3})})
    network, scene = network_of(sized, *config.heads), Network.scene
    made = []

    def spy(*given, **named):
        made.append(scene(network, *given, **named))
        return made[-1]

    monkeypatch.setattr(network, "scene", spy)
    network.loss(*with_genres(batch), titles)
    assert [one.page for one in made] == [None]
