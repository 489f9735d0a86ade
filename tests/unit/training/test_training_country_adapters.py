"""Weights of single countries beside a network that stands still."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from fixtures import context_service as service
from fixtures import country_gap, shown_service
from fixtures.country_gap import SETTINGS, log
from playbill.datasets import TrainingSet, build_training_set, make_split
from playbill.errors import StateError
from playbill.models import ContextBatch, HistoryBatch, Network, TargetBatch, TitleInputs
from playbill.training.country_adapters import (
    FrozenNetwork,
    adapters_of,
    country_examples,
    country_members,
    learn_country,
    set_adapters,
    with_low_rank,
)
from playbill.training.side_by_side import side_by_side


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    return country_gap.data()


@pytest.fixture(scope="module")
def network(data: TrainingSet) -> Network:
    return country_gap.network(data)


def loss_of(network: Network, data: TrainingSet, index: int) -> float:
    (examples,) = country_examples(data, (index,), SETTINGS)
    total = 0.0
    titles = TitleInputs.from_arrays(data.titles)
    with torch.no_grad():
        for history, context, targets in examples.batches:
            batch = (
                HistoryBatch.from_arrays(history),
                ContextBatch.from_arrays(context),
                TargetBatch.from_arrays(targets),
            )
            total += float(network(*batch, titles)[0])
    return total / len(examples.batches)


def test_a_country_learns_what_is_its_own_and_nothing_else_moves(data: TrainingSet, network: Network) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    start = loss_of(network, data, 1), loss_of(network, data, 2)
    assert data.encoder.state.countries == ("FR", "US")
    frozen = FrozenNetwork(network, TitleInputs.from_arrays(data.titles), SETTINGS)
    (examples,) = country_examples(data, (1,), SETTINGS)
    index, path = learn_country(frozen, examples)
    assert index == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    losses = []
    for adapter in path:
        set_adapters(network, {1: adapter})
        losses.append(loss_of(network, data, 1))
        assert loss_of(network, data, 2) == start[1], "another country hears nothing of it"
    set_adapters(
        network, {1: adapters_of(with_low_rank(network, 3, 1))[1] | {"up": np.zeros((3, 64)), "shift": np.zeros(64)}}
    )
    assert loss_of(network, data, 1) == start[0]
    assert losses[0] < start[0]
    assert losses == sorted(losses, reverse=True), "more passes fit it better"


def test_the_loss_from_known_states_is_that_of_the_whole_network(data: TrainingSet, network: Network) -> None:
    titles = TitleInputs.from_arrays(data.titles)
    history, context, targets = next(iter(data.epoch(0)))
    batch = HistoryBatch.from_arrays(history), ContextBatch.from_arrays(context), TargetBatch.from_arrays(targets)
    with torch.no_grad():
        vectors = network.title_vectors(titles)
        states = network.last_states(batch[0], batch[1], vectors)
        found = network.loss_from(states, *batch, vectors)
        torch.testing.assert_close(found, network(*batch, titles)[0], rtol=1e-4, atol=1e-5)


def test_countries_are_counted_by_members_and_large_ones_are_drawn_from(data: TrainingSet) -> None:
    assert country_members(data) == {1: 12, 2: 12}
    (whole,) = country_examples(data, (1,), SETTINGS)
    (part,) = country_examples(data, (1,), replace(SETTINGS, most_rows=10))
    assert whole.members == 12
    assert part.members < 12
    assert 10 <= part.rows < whole.rows


def test_a_trained_encoder_numbers_nothing_anew(data: TrainingSet) -> None:
    resolved = country_gap.model()
    later = log().with_columns(country=pl.when(pl.col("country") == "FR").then(pl.lit("AA")).otherwise("country"))
    tables, split = shown_service.Tables(later), make_split("leave_one_out", later)
    given = (tables, resolved, split, service.Features(), shown_service.CLOCK)
    again = build_training_set(*given, encoder=data.encoder)
    assert again.encoder.version == data.encoder.version
    assert country_members(again) == {2: 12}
    assert build_training_set(*given).encoder.state.countries == ("AA", "US")


def _double(shared: int, item: int) -> int:
    if item < 0:
        raise StateError(f"{item} is below {shared}")
    return item * shared


def test_work_in_this_process_takes_one_item_after_the_other() -> None:
    taken = []

    def items() -> object:
        for item in (3, 1, 2):
            taken.append(item)
            yield item

    found = side_by_side(_double, 2, items())
    assert next(found) == (0, 6)
    assert taken == [3]
    assert list(found) == [(1, 2), (2, 4)]
    with pytest.raises(StateError, match="-1 is below 2"):
        list(side_by_side(_double, 2, [1, -1]))
