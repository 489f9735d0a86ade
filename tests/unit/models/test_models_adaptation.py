"""How a network bends to a country: neutral before training and for unknown countries, else what the papers say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playbill.models import (
    AdaptationConfig,
    ContextBatch,
    HistoryBatch,
    Network,
    NetworkConfig,
    TargetBatch,
    TitleInputs,
)
from playbill.models.adaptation import ADAPTATIONS, CountryGates, CountryVectors, LowRank
from playbill.ranking.scoring.row_scoring import bias_tables, pair_scores

Batch = tuple[HistoryBatch, ContextBatch, TargetBatch]
KINDS = sorted(ADAPTATIONS)
SHARINGS: list[dict[str, Any]] = [{"type": "shared"}, {"type": "mmoe", "experts": 2, "width": 4}]


def network_of(config: NetworkConfig, kind: str | None, sharing: dict[str, Any] = SHARINGS[0]) -> Network:
    torch.manual_seed(3)
    update = {
        "trunk": config.trunk.model_copy(update={"sharing": sharing}),
        "titles": config.titles.model_copy(update={"id_mask": 0.0}),
        "adaptation": None if kind is None else AdaptationConfig(type=kind, rank=3, width=5),
    }
    return Network(config.model_copy(update=update)).eval()


def moved(network: Network) -> Network:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def without(network: Network) -> Network:
    """Return the global network in it."""
    plain = Network(network.config.model_copy(update={"adaptation": None})).eval()
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if "adaptation" not in name})
    return plain


def of_countries(context: ContextBatch, countries: list[int]) -> ContextBatch:
    fields = context.named() | {"country": torch.tensor(countries)}
    return ContextBatch(**fields)


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda one: one["type"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_neutral_before_training(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, kind: str, sharing: dict[str, Any]
) -> None:
    network = network_of(config, kind, sharing)
    context = of_countries(batch[1], [1, 2, 3, 1, 2, 3, 1])
    plain = without(network).scores(batch[0], context, titles)
    for head, scores in network.scores(batch[0], context, titles).items():
        assert torch.equal(scores, plain[head])


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda one: one["type"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_country_is_the_global_network_and_known_ones_are_not(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, kind: str, sharing: dict[str, Any]
) -> None:
    network = moved(network_of(config, kind, sharing))
    context = of_countries(batch[1], [0, 2, 0, 3, 1, 0, 0])
    plain = without(network).scores(batch[0], context, titles)
    unknown = context.country.eq(0)
    for head, scores in network.scores(batch[0], context, titles).items():
        assert torch.equal(scores[unknown], plain[head][unknown])
        assert (scores[~unknown] - plain[head][~unknown]).abs().amax(dim=1).min() > 1e-3


def test_vectors_of_countries_are_added_to_what_each_head_reads(config: NetworkConfig) -> None:
    module = CountryVectors(config.model_copy(update={"adaptation": AdaptationConfig(type="id")}))
    state, own, country = torch.randn(4, 16), torch.randn(2, 4, 16), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        module.vectors.normal_()
        shared, apart = (module.heads(one, state, country, state) for one in (None, own))
        assert torch.equal(module.state(state, country, state), state)
        for row, index in enumerate(country.tolist()):
            for head in range(2):
                added = module.vectors[index - 1, head] if index else 0.0
                torch.testing.assert_close(shared[head, row], state[row] + added)
                torch.testing.assert_close(apart[head, row], own[head, row] + added)


def plain_gate(gate: Any, read: Tensor) -> Tensor:
    hidden = (gate.up.weight @ read + gate.up.bias).clamp(min=0)
    return 2 / (1 + torch.exp(-(gate.down.weight @ hidden + gate.down.bias)))


def test_gates_scale_the_state_and_what_each_head_reads_of_it(config: NetworkConfig) -> None:
    module = CountryGates(config.model_copy(update={"adaptation": AdaptationConfig(type="gate", width=5)}))
    state, context, country = torch.randn(4, 16), torch.randn(4, 16), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
        found = module.state(state, country, context)
        heads = module.heads(None, found, country, context)
        assert found[0].ne(state[0]).all()
        for row, index in enumerate(country.tolist()):
            vector, known = module.country.weight[index], index > 0
            factor = plain_gate(module.shared, torch.cat([vector, state[row]])) if known else 1.0
            torch.testing.assert_close(found[row], state[row] * factor)
            own = plain_gate(module.own, torch.cat([vector, found[row], context[row]])) if known else torch.ones(32)
            torch.testing.assert_close(heads[:, row], found[row] * own.view(2, 16))


def test_a_gate_does_not_pull_at_what_drives_it(config: NetworkConfig) -> None:
    """Its derivative by the state is the factor alone, as if the factor were a constant."""
    module = CountryGates(config.model_copy(update={"adaptation": AdaptationConfig(type="gate", width=5)}))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    state = torch.randn(4, 16, requires_grad=True)
    context = torch.randn(4, 16, requires_grad=True)
    country = torch.tensor([2, 0, 3, 1])
    module.state(state, country, context).sum().backward()
    with torch.no_grad():
        factor = module.state(torch.ones_like(state) * state, country, context) / state
    torch.testing.assert_close(state.grad, factor)
    module.heads(None, state, country, context).sum().backward()
    assert context.grad is None
    assert module.country.weight.grad is not None


def test_low_rank_weights_are_a_matrix_and_a_vector_of_each_country(config: NetworkConfig) -> None:
    module = LowRank(config.model_copy(update={"adaptation": AdaptationConfig(type="low_rank", rank=3)}))
    state, country = torch.randn(5, 16), torch.tensor([2, 0, 3, 2, 1])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
        found = module.state(state, country, state)
        for row, index in enumerate(country.tolist()):
            own = (module.down[index - 1] @ module.up[index - 1], module.shift[index - 1]) if index else (0.0, 0.0)
            added = (state[row] @ own[0] if index else 0.0) + own[1]
            torch.testing.assert_close(found[row], state[row] + added)
    assert module.heads(None, state, country, state) is None


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_pages_score_as_lists_do(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, kind: str
) -> None:
    network = moved(network_of(config, kind))
    context = of_countries(batch[1], [1, 2, 3, 0, 1, 2, 3])
    network(batch[0], context, batch[2], titles)[0].backward()
    assert network.adaptation is not None
    assert all(own.grad is not None and own.grad.abs().sum() > 0 for own in network.adaptation.parameters())
    with torch.no_grad():
        scores = network.scores(batch[0], context, titles)
        vectors = network.title_vectors(titles)
        pairs = [(row, head) for row in range(3) for head in ("play", "thumb")]
        bias = {1: bias_tables(network, vectors, [(1, 1)])[0]}
        found = pair_scores(network, network.scene(batch[0], context, vectors), pairs, bias)
    torch.testing.assert_close(found, torch.stack([scores[head][row, 1:] for row, head in pairs]))


def test_a_configuration_from_before_there_were_adaptations_still_loads(config: NetworkConfig) -> None:
    assert "adaptation" not in config.to_json()
    plain = Network(NetworkConfig.from_json(config.to_json()))
    assert plain.adaptation is None
    assert not [name for name in plain.state_dict() if "adaptation" in name]
    other = config.model_copy(update={"adaptation": AdaptationConfig(type="low_rank", rank=2)})
    assert NetworkConfig.from_json(other.to_json()) == other
    assert (
        Network(other.model_copy(update={"events": config.events.model_copy(update={"countries": 1})})).adaptation
        is None
    )


def test_the_global_part_of_a_network_begins_as_without(config: NetworkConfig) -> None:
    """So that two arms of one seed differ in what they are asked to, and in nothing else."""
    plain, bent = network_of(config, None), network_of(config, "gate")
    for name, value in plain.state_dict().items():
        assert torch.equal(value, bent.state_dict()[name]), name


def test_ranks_above_the_width_are_the_width(config: NetworkConfig) -> None:
    module = LowRank(config.model_copy(update={"adaptation": AdaptationConfig(type="low_rank", rank=400)}))
    assert module.down.shape == (3, 16, 16)
    assert F.relu(module.up).sum() == 0
