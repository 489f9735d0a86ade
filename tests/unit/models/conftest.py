"""A tiny catalogue and a tiny network: five titles, two members."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from playbill.models import (
    ContextBatch,
    ContextConfig,
    EventConfig,
    HeadConfig,
    HistoryBatch,
    Network,
    NetworkConfig,
    TargetBatch,
    TextConfig,
    TitleConfig,
    TitleInputs,
    TrunkConfig,
)

TITLES = 6
LENGTH = 7


@pytest.fixture
def config() -> NetworkConfig:
    return NetworkConfig(
        length=LENGTH,
        trunk=TrunkConfig(dim=16, layers=2, heads=2, dropout=0.0),
        titles=TitleConfig(
            titles=TITLES, genres=4, kinds=3, languages=3, release_years=4, numeric=1, categorical=(3,), snapshot=2
        ),
        events=EventConfig(actions=3, canvases=5, countries=4, devices=3, languages=3, gaps=6, durations=4),
        context=ContextConfig(numeric=2, categorical=(4,), title_crossing=True),
        text=TextConfig(buckets=64, dim=128),
        heads=(
            HeadConfig(name="play", loss="softmax"),
            HeadConfig(name="thumb", loss="bce", weight=0.5),
        ),
    )


@pytest.fixture
def network(config: NetworkConfig) -> Network:
    torch.manual_seed(3)
    return Network(config).eval()


@pytest.fixture
def trained(network: Network) -> Network:
    """The network with every parameter moved away from its start, as training would."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        network.titles.id.weight[0] = 0
    return network


@pytest.fixture
def title_arrays() -> SimpleNamespace:
    rng = np.random.default_rng(0)
    return SimpleNamespace(
        index=np.arange(TITLES),
        genres=np.array([1, 2, 3, 1, 2]),
        genre_offsets=np.array([0, 0, 1, 2, 3, 4]),
        kind=np.array([0, 1, 1, 2, 1, 2]),
        language=np.array([0, 1, 2, 1, 1, 2]),
        release_year=np.array([0, 1, 2, 3, 1, 2]),
        name_grams=np.array([10, 11, 12, 20, 21, 30, 31, 40, 50]),
        name_offsets=np.array([0, 0, 3, 5, 7, 8]),
        synopsis_grams=np.array([7, 8]),
        synopsis_offsets=np.array([0, 0, 1, 2, 2, 2]),
        age_days=np.array([np.nan, 30.0, 300.0, np.nan, -5.0, 3.0], np.float32),
        plays=np.array([0, 50, 20, 5, 0, 1], np.float32),
        has_id=np.array([False, True, True, True, False, True]),
        numeric=np.array([[np.nan], [90.0], [120.0], [np.nan], [80.0], [100.0]], np.float32),
        categorical=np.array([[0], [1], [2], [1], [0], [2]]),
        snapshots=rng.uniform(0, 50, (4, TITLES, 2)).astype(np.float32),
    )


@pytest.fixture
def titles(title_arrays: SimpleNamespace) -> TitleInputs:
    return TitleInputs.from_arrays(title_arrays)


@pytest.fixture
def history_arrays() -> SimpleNamespace:
    return SimpleNamespace(
        title=np.array([[1, 2, 3, 5, 4], [3, 1, 0, 0, 0]]),
        actions=np.array([[1, 3, 1, 5, 1], [1, 1, 0, 0, 0]]),
        canvas=np.array([[1, 1, 2, 1, 1], [1, 3, 0, 0, 0]]),
        device=np.array([[1, 2, 1, 1, 1], [2, 2, 0, 0, 0]]),
        language=np.array([[1, 1, 1, 2, 1], [2, 2, 0, 0, 0]]),
        gap=np.array([[0, 1, 2, 5, 4], [0, 3, 0, 0, 0]]),
        duration=np.array([[1, 2, 3, 1, 1], [3, 2, 0, 0, 0]]),
        length=np.array([5, 2]),
    )


def make_context(states: list[int], **changes: Any) -> ContextBatch:
    """Requests on canvas 1, with the given fields changed."""
    count = len(states)
    ones = np.ones(count, np.int64)
    fields = {
        "state": states,
        "canvas": ones,
        "country": ones,
        "device": ones,
        "language": ones,
        "hour_of_week": ones * 20,
        "source_title": ones * 0,
        "query_grams": np.zeros(0, np.int64),
        "query_offsets": ones * 0,
        "numeric": np.tile(np.array([[3.0, np.nan]], np.float32), (count, 1)),
        "categorical": ones[:, None] * 2,
        "snapshot": ones,
    }
    return ContextBatch.from_arrays(SimpleNamespace(**{**fields, **changes}))


@pytest.fixture
def context_of() -> Callable[..., ContextBatch]:
    return make_context


@pytest.fixture
def history(history_arrays: SimpleNamespace) -> HistoryBatch:
    return HistoryBatch.from_arrays(history_arrays)


@pytest.fixture
def batch(history: HistoryBatch) -> tuple[HistoryBatch, ContextBatch, TargetBatch]:
    """Every event of both members predicted from the events before it."""
    states = [0, 1, 2, 3, 4, 6, 7]
    nan = np.float32(np.nan)
    targets = TargetBatch.from_arrays(
        SimpleNamespace(
            title=np.array([1, 2, 3, 5, 4, 3, 1]),
            labels={
                "play": np.array([1, 1, 0, 1, 1, 1, nan], np.float32),
                "thumb": np.array([nan, 1, 0, nan, 1, nan, 0], np.float32),
            },
            weight=np.array([1, 1, 1, 2, 1, 1, 0.5], np.float32),
        )
    )
    return history, make_context(states), targets
