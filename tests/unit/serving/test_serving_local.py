"""Requests that are answered in the caller's own process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fixtures import serving_world as world
from playbill.config import Workspace
from playbill.serving import ModelHandle
from playbill.serving.local import OneThread


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_a_model_ranks_with_one_thread_and_the_caller_keeps_theirs(stocked: Workspace) -> None:
    gate = OneThread(ModelHandle(world.serve_with(stocked, world.FakeScorer())))
    for _ in range(2):
        with gate:
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    handle = ModelHandle(world.serve_with(stocked, None, None))
    with OneThread(handle):
        assert torch.get_num_threads() == 3, "a fallback asks nothing of torch"
        handle.swap(world.serve_with(stocked, world.FakeScorer()))
    assert torch.get_num_threads() == 3
