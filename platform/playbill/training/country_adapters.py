"""Low-rank weights of single countries, learnt beside a network that stands still.

Everything but a country's own weights is frozen, so the trunk is read once for each of its members, and an epoch costs
no more than the heads. A country is a piece of work of its own that knows nothing of the others: see `side_by_side`.
Yang et al., "MLoRA" (RecSys 2024): what is learnt of all is frozen, then each domain learns what it adds to it.
Letters: D width, R rank, N rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from playbill.arrays import Floats32, Ints64
from playbill.datasets import TrainingSet
from playbill.datasets.batching.windows import row_ranges
from playbill.models import AdaptationConfig, ContextBatch, HistoryBatch, Network, TargetBatch, TitleInputs
from playbill.models.adaptation import Adaptation, LowRank
from playbill.models.batch import pad_rows
from playbill.models.heads import TitleVectors
from playbill.models.network import PADDED_ROWS
from playbill.models.weights import bfloat16_is_fast
from playbill.training.contract import Batch
from playbill.training.loop import reproducible
from playbill.training.optimizer import BETAS

RATED_RANK = 4  # whose rate the settings name: Kalajdzievski, "Rank stabilization scaling" (2023)
LEAST_STEPS = 8  # of a pass, where there are rows enough
Adapter = Mapping[str, Floats32]
"""A country's `down` [D, R], `up` [R, D] and `shift` [D]."""


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """How a country's weights are learnt."""

    passes: tuple[int, ...] = (1, 2, 4, 8)  # over its rows; after each of these the weights are kept, to choose from
    learning_rate: float = 2e-2  # of rank 4; a step of a product of rank R moves it by the root of R as far
    weight_decay: float = 0.1  # towards the global network
    most_rows: int = 5_000  # of one country; of a larger one some windows are drawn at random
    clip: float = 1.0  # norm that a gradient is cut off at
    seed: int = 17


@dataclass(frozen=True)
class CountryExamples:
    """What one country learns from."""

    index: int  # of the country in the network's vocabulary
    batches: tuple[Batch, ...]
    rows: int  # logged ones
    members: int


@dataclass(frozen=True)
class FrozenNetwork:
    """What every country starts from: a network with low-rank weights, and the titles."""

    network: Network
    titles: TitleInputs
    settings: AdapterSettings


def with_low_rank(network: Network, rank: int, seed: int) -> Network:
    """Return a network with neutral low-rank weights of countries, or the network itself where it has such."""
    if isinstance(network.adaptation, LowRank):
        return network.eval()
    adapted = network.config.model_copy(update={"adaptation": AdaptationConfig(type="low_rank", rank=rank)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = Network(adapted)
    found.load_state_dict({**found.state_dict(), **network.state_dict()})
    return found.eval()


def adapters_of(network: Network) -> dict[int, Adapter]:
    """Return what each country has, by its index in the vocabulary."""
    own = network.adaptation
    assert isinstance(own, LowRank)
    tensors = {name: tensor.detach().numpy() for name, tensor in own.named_parameters()}
    return {place + 1: {name: value[place].copy() for name, value in tensors.items()} for place in range(len(own.down))}


@torch.no_grad()
def set_adapters(network: Network, adapters: Mapping[int, Adapter]) -> None:
    """Give countries their weights, by their index; the others keep theirs."""
    own = network.adaptation
    assert isinstance(own, LowRank)
    for index, adapter in adapters.items():
        for name, parameter in own.named_parameters():
            parameter[index - 1] = torch.from_numpy(np.asarray(adapter[name]))


def country_members(data: TrainingSet) -> dict[int, int]:
    """Return how many members have rows to learn from in each country, by its index."""
    country, window = _countries_of_windows(data)
    member = data.windows_of(0).member[window]
    pairs = np.unique(np.stack([country, member]), axis=1)
    found, counts = np.unique(pairs[0], return_counts=True)
    return {int(index): int(count) for index, count in zip(found, counts, strict=True) if index}


def country_examples(
    data: TrainingSet, indices: tuple[int, ...], settings: AdapterSettings
) -> Iterator[CountryExamples]:
    """Yield what each of some countries learns from; every batch is of members who have rows there."""
    country, window = _countries_of_windows(data)
    windows = data.windows_of(0)
    first, last = row_ranges(windows, data.rows.slot)
    for index in indices:
        own = np.unique(window[country == index])
        drawn = np.random.default_rng((settings.seed, index)).permutation(own)
        enough = int(np.searchsorted(np.cumsum((last - first)[drawn]), settings.most_rows)) + 1
        chosen = np.sort(drawn[:enough])
        # A small country would be a single batch, and a pass a single step.
        slots = max(PADDED_ROWS, int(windows.length[chosen].sum()) // LEAST_STEPS)
        # Made rows stand for canvases that it may have no requests of.
        plain = replace(data.settings, tasks=(), batch_slots=min(slots, data.settings.batch_slots))
        part = replace(
            data, windows=windows[chosen], settings=plain, rows=replace(data.rows, copies=data.rows.copies[:0])
        )
        rows, members = int((last - first)[chosen].sum()), len(np.unique(windows.member[chosen]))
        yield CountryExamples(index, tuple(part.epoch(0)), rows, members)


def _countries_of_windows(data: TrainingSet) -> tuple[Ints64, Ints64]:
    """Return pairs of a country and a window with a row in it; 0 is none that is known."""
    first, last = row_ranges(data.windows_of(0), data.rows.slot)
    size = last - first
    window = np.repeat(np.arange(len(size)), size)
    row = np.arange(len(window)) + np.repeat(first - np.cumsum(size) + size, size)
    country = np.asarray(data.context.country)[data.rows.request[row]].astype(np.int64)
    pairs = np.unique(np.stack([country, window.astype(np.int64)]), axis=1)
    return pairs[0], pairs[1]


def learn_country(frozen: FrozenNetwork, examples: CountryExamples) -> tuple[int, tuple[Adapter, ...]]:
    """Return a country's index, and its weights after each of the settings' `passes`."""
    torch.manual_seed(frozen.settings.seed)
    try:
        return examples.index, tuple(_passes(frozen, examples))
    finally:
        frozen.network.low_precision = False


def _passes(frozen: FrozenNetwork, examples: CountryExamples) -> Iterator[Adapter]:
    network, settings = frozen.network, frozen.settings
    own = network.adaptation
    assert isinstance(own, LowRank)
    network.requires_grad_(False)
    network.low_precision = bfloat16_is_fast(own.down.device)
    with reproducible(own.down.device):
        vectors = _vectors(network, frozen.titles)
        parts = [_read(network, vectors, batch) for batch in examples.batches]
        alone = _OneCountry(own, examples.index)
        rate = settings.learning_rate * (RATED_RANK / own.down.shape[2]) ** 0.5
        optimizer = torch.optim.AdamW(alone.parameters(), rate, BETAS, weight_decay=settings.weight_decay, fused=True)
        network.adaptation = alone
        try:
            for number in range(1, max(settings.passes) + 1):
                for place in torch.randperm(len(parts)).tolist():
                    states, history, context, targets = parts[place]
                    loss = network.loss_from(states, history, context, targets, vectors)
                    optimizer.zero_grad()
                    torch.autograd.backward(loss)
                    torch.nn.utils.clip_grad_norm_(alone.parameters(), settings.clip)
                    optimizer.step()
                if number in settings.passes:
                    yield alone.adapter()
        finally:
            network.adaptation = own


@torch.no_grad()
def _vectors(network: Network, titles: TitleInputs) -> TitleVectors:
    return network.eval().title_vectors(titles)


@torch.no_grad()
def _read(
    network: Network, vectors: TitleVectors, batch: Batch
) -> tuple[Tensor, HistoryBatch, ContextBatch, TargetBatch]:
    """Return the trunk's states of a batch's rows, which do not change any more, and the batch."""
    history = HistoryBatch.from_arrays(batch[0])
    context, targets = pad_rows(ContextBatch.from_arrays(batch[1]), TargetBatch.from_arrays(batch[2]), PADDED_ROWS)
    return network.last_states(history, context, vectors), history, context, targets


class _OneCountry(Adaptation):
    """The weights of one country, that learn; a request from elsewhere gets none."""

    def __init__(self, every: LowRank, index: int) -> None:
        super().__init__()
        self.index = index
        for name, parameter in every.named_parameters():
            self.register_parameter(name, torch.nn.Parameter(parameter.detach()[index - 1].clone()))

    down: Tensor
    up: Tensor
    shift: Tensor

    def state(self, state_ND: Tensor, country_N: Tensor, context_ND: Tensor) -> Tensor:
        """Add the country's weights where a request is from there."""
        low = state_ND.dtype
        added_ND = (state_ND @ self.down.to(low)) @ self.up.to(low) + self.shift.to(low)
        return state_ND + country_N.eq(self.index).unsqueeze(-1) * added_ND

    def adapter(self) -> Adapter:
        """Return a copy of the weights."""
        return {name: parameter.detach().float().numpy().copy() for name, parameter in self.named_parameters()}
