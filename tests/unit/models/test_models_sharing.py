"""Ways to share a state: neutral at the start, apart where they should be, mixed as the papers say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from playbill.definitions.specs import SHARINGS
from playbill.definitions.specs.network import read_sharing
from playbill.models import ContextBatch, HistoryBatch, Network, NetworkConfig, TargetBatch, TitleInputs
from playbill.models.heads import Mmoe, Ple
from playbill.ranking.scoring.row_scoring import bias_tables, pair_scores

Batch = tuple[HistoryBatch, ContextBatch, TargetBatch]
OPTIONS = {"mmoe": {"experts": 3, "width": 8}, "ple": {"experts": 2, "own": 2, "width": 8}, "adapters": {"width": 8}}


def network_of(config: NetworkConfig, name: str) -> Network:
    torch.manual_seed(3)
    heads = (config.heads[0], config.heads[1].model_copy(update={"level": True}))
    trunk = config.trunk.model_copy(update={"sharing": {"type": name, **OPTIONS.get(name, {})}})
    titles = config.titles.model_copy(update={"id_mask": 0.0})
    return Network(
        NetworkConfig.model_validate(config.model_copy(update={"trunk": trunk, "titles": titles, "heads": heads}))
    )


def moved(network: Network) -> Network:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.sharing.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


@pytest.mark.parametrize("name", SHARINGS.names())
def test_every_sharing_is_neutral_at_the_start(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, name: str
) -> None:
    history, context, _ = batch
    plain, other = network_of(config, "shared"), network_of(config, name)
    state = plain.state_dict()
    other.load_state_dict({**other.state_dict(), **state})
    for head, scores in plain.eval().scores(history, context, titles).items():
        torch.testing.assert_close(other.eval().scores(history, context, titles)[head], scores)


@pytest.mark.parametrize("name", [name for name in SHARINGS.names() if name != "shared"])
def test_heads_of_their_own_state_learn_and_score_alike(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, name: str
) -> None:
    network, (history, context, _) = moved(network_of(config, name)), batch
    network.start_levels({"thumb": -2.0})
    total, _ = network(*batch, titles)
    total.backward()
    assert all(own.grad is not None and own.grad.abs().sum() > 0 for own in network.sharing.parameters())
    scores = network.eval().scores(history, context, titles)
    with torch.no_grad():
        vectors = network.title_vectors(titles)
        scene = network.scene(history, context, vectors)
        states = [scene.state_of(head) for head in network.title_heads().values()]
        pairs = [(row, head) for row in range(3) for head in ("play", "thumb")]
        bias = {1: bias_tables(network, vectors, [(1, 1)])[0]}
        found = pair_scores(network, scene, pairs, bias)
    assert not torch.allclose(*states)
    torch.testing.assert_close(found, torch.stack([scores[head][row, 1:] for row, head in pairs]))


def test_mmoe_mixes_the_same_experts_by_a_gate_for_each_head() -> None:
    torch.manual_seed(1)
    module, state = Mmoe(4, 2, read_sharing({"type": "mmoe", "experts": 3, "width": 5})), torch.randn(6, 4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
        found = module(state)
        experts = module.experts(state)
        gates = (state @ module.gates.weight.T + module.gates.bias).view(6, 2, 3).softmax(-1)
        for row in range(6):
            for head in range(2):
                mixed = sum(gates[row, head, one] * experts[one, row] for one in range(3))
                torch.testing.assert_close(found[head, row], state[row] + mixed)


def test_in_ple_only_a_heads_own_experts_and_the_shared_ones_reach_it() -> None:
    torch.manual_seed(1)
    module, state = Ple(4, 2, read_sharing({"type": "ple", "experts": 1, "width": 5, "levels": 1})), torch.randn(6, 4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
        before = module(state)
        module.levels[0].own.down[0] += 1
        own = module(state)
        module.levels[0].shared.down[0] += 1
        shared = module(state)
    assert not torch.allclose(own[0], before[0])
    assert torch.equal(own[1], before[1])
    assert not torch.allclose(shared[1], own[1])


def test_a_heads_own_experts_read_its_own_state() -> None:
    torch.manual_seed(1)
    level = Ple(4, 2, read_sharing({"type": "ple", "experts": 1, "own": 2, "width": 5, "levels": 1})).levels[0]
    common, states = torch.randn(6, 4), torch.randn(2, 6, 4)
    with torch.no_grad():
        for parameter in level.parameters():
            parameter.normal_()
        before = level(common, states)[1]
        after = level(common, torch.stack([states[0] + 1, states[1]]))[1]
    assert not torch.allclose(after[0], before[0])
    assert torch.equal(after[1], before[1])


def test_levels_pass_on_what_heads_share() -> None:
    torch.manual_seed(1)
    module, state = Ple(4, 2, read_sharing({"type": "ple", "experts": 1, "width": 5, "levels": 2})), torch.randn(6, 4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
        before = module(state)
        module.levels[0].own.down[0] += 1
        after = module(state)
    # Through the shared gate of the first level, and the shared experts of the second.
    assert not torch.allclose(after[1], before[1])


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"type": "mmoee"}, "unknown sharing 'mmoee'"),
        ({"type": "mmoe", "own": 2}, "own"),
        ({"type": "ple", "experts": 0}, "experts"),
    ],
)
def test_mistakes_in_sharing_are_named(wrong: dict[str, Any], text: str) -> None:
    from pydantic import TypeAdapter

    from playbill.definitions.specs.network import Sharing

    with pytest.raises(ValueError, match=text):
        TypeAdapter(Sharing).validate_python(wrong)
