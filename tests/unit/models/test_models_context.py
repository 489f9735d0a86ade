"""The request's context in the network: what stands for what is absent, and the switches of a model's contexts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from playbill.models import ContextBatch, HistoryBatch, Network, NetworkConfig, TitleInputs
from playbill.models.context import some_requests

Make = Callable[..., ContextBatch]


def network_with(config: NetworkConfig, moved: bool = True, **context: Any) -> Network:
    """A network whose context is configured otherwise, every weight away from its start where `moved`."""
    torch.manual_seed(3)
    network = Network(config.model_copy(update={"context": config.context.model_copy(update=context)})).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters() if moved else ():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        network.titles.id.weight[0] = 0
    return network


def scores(network: Network, history: HistoryBatch, context: ContextBatch, titles: TitleInputs) -> torch.Tensor:
    return network.scores(history, context, titles)["play"]


def test_a_named_query_is_read_as_if_the_name_had_been_typed(
    config: NetworkConfig, context_of: Make, titles: TitleInputs
) -> None:
    network = network_with(config, moved=False, named_queries=True)
    context = context_of([0, 3], source_title=np.array([2, 2]), by_name=np.array([1, 0]))
    prepared = network.title_vectors(titles).prepared
    queries = network.context.queries(context, network.grams, prepared)
    assert queries is not None
    assert torch.equal(queries.read[0], prepared.names[2])
    assert queries.rows[queries.read.any(dim=1)].tolist() == [0], "the other request has no query"
    assert not queries.dense.any(), "at the start a name is not matched with names"
    assert network.context.queries(context_of([0, 3]), network.grams, prepared) is None


def test_queries_are_kept_for_requests_that_have_one(
    config: NetworkConfig, context_of: Make, titles: TitleInputs
) -> None:
    network = network_with(config)
    grams, sizes = np.array([3, 4, 5, 6, 7]), np.array([0, 2, 0, 3, 0])
    context = context_of([0, 3, 4, 1, 2], query_grams=grams, query_offsets=np.cumsum(sizes) - sizes)
    queries = network.context.queries(context, network.grams, network.title_vectors(titles).prepared)
    assert queries is not None
    plain = network.grams.queries(context.query_grams, context.query_offsets)
    assert torch.equal(queries.dense, plain)
    places, matched = queries.requested(torch.tensor([3, 0, 1]))
    assert places.tolist() == [0, 2]
    assert torch.equal(matched, plain[[3, 1]])
    some = some_requests(context, torch.tensor([3, 0, 1]))
    assert torch.equal(network.grams.queries(some.query_grams, some.query_offsets), plain[[3, 0, 1]])
    assert some.state.tolist() == [1, 0, 3]


def test_a_named_query_depends_on_nothing_but_the_source_title(
    config: NetworkConfig, history: HistoryBatch, context_of: Make, titles: TitleInputs
) -> None:
    network = network_with(config, named_queries=True)
    context = context_of([0, 3, 4], source_title=np.array([2, 1, 1]), by_name=np.array([1, 1, 0]))
    silent = context_of([0, 3, 4], source_title=np.array([2, 1, 1]))
    changed = scores(network, history, context, titles) - scores(network, history, silent, titles)
    assert changed[0].abs().max() > 1e-3
    assert changed[2].abs().max() < 1e-5, "rounding of the other rows' products at most"
    with torch.no_grad():
        network.context.name_match.zero_()  # type: ignore[union-attr]
        network.context.query.weight.zero_()
    assert torch.allclose(scores(network, history, context, titles), scores(network, history, silent, titles))


def test_rows_and_places_are_neutral_until_trained_and_then_tell_rows_apart(
    config: NetworkConfig, history: HistoryBatch, context_of: Make, titles: TitleInputs
) -> None:
    nowhere, there = context_of([3]), context_of([3], row=np.array([2]), row_position=np.array([1]))
    fresh = network_with(config, moved=False, rows=4, row_positions=3)
    assert torch.equal(scores(fresh, history, nowhere, titles), scores(fresh, history, there, titles))
    moved = network_with(config, rows=4, row_positions=3)
    assert not torch.allclose(scores(moved, history, nowhere, titles), scores(moved, history, there, titles))
    without = network_with(config)
    assert torch.equal(scores(without, history, nowhere, titles), scores(without, history, there, titles))


ABSENT: dict[str, Any] = {
    **{name: np.zeros(1, np.int64) for name in ("canvas", "country", "device", "language", "hour_of_week")},
    "numeric": np.full((1, 2), np.nan, np.float32),
    "categorical": np.zeros((1, 1), np.int64),
}


def test_without_imputation_what_is_absent_adds_nothing(
    config: NetworkConfig, context_of: Make, titles: TitleInputs
) -> None:
    context = context_of([0], **ABSENT)
    for imputation in (True, False):
        network = network_with(config, imputation=imputation)
        vectors = network.title_vectors(titles)
        encoded = network.context(context, network.context.source(context, vectors.vectors), None)
        assert bool(encoded.any()) is imputation


@pytest.mark.parametrize("field", ABSENT)
def test_with_imputation_each_absent_field_has_a_value_of_its_own(
    config: NetworkConfig, history: HistoryBatch, context_of: Make, titles: TitleInputs, field: str
) -> None:
    network = network_with(config)
    texts, absent = context_of([3]), context_of([3], **{field: ABSENT[field]})
    assert not torch.allclose(scores(network, history, texts, titles), scores(network, history, absent, titles))


def test_without_crossing_the_context_is_only_added(config: NetworkConfig) -> None:
    states, contexts = torch.randn(4, 16), torch.randn(1, 16)
    for crossing in (True, False):
        network = network_with(config, crossing=crossing)
        moved = network.crossing(states, contexts.expand(4, 16)) - states
        same = torch.allclose(moved, moved[:1].expand(4, 16), atol=1e-6)
        assert same is not crossing
