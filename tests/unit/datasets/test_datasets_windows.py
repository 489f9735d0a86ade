"""Which windows of a history an epoch reads: all, the last of each member, or those and some of the others."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest

from fixtures import shown_service as service
from playbill.datasets import TrainingSet
from playbill.datasets.batching.windows import cut_windows, epoch_part, last_windows, plan_epoch, with_batches
from playbill.definitions.specs import ModelSpec

LENGTH = 8
TRAINING = {"stride": LENGTH, "batch_slots": 60, "seed": 3}


def built(windows: str, **more: object) -> TrainingSet:
    heads = {"play": {"label": "play", "loss": "softmax"}}
    resolved = service.model(heads, training=TRAINING | {"windows": windows, **more})
    return service.training_set(resolved, service.log(members=30, requests=40))


@cache
def kept(windows: str) -> TrainingSet:
    """Return one that tests share and do not change."""
    return built(windows)


def starts(data: TrainingSet, epoch: int) -> list[tuple[int, int]]:
    windows = data.windows_of(epoch)
    return sorted(zip(windows.member.tolist(), windows.start.tolist(), strict=True))


def read(data: TrainingSet, epoch: int) -> Counter:
    return Counter(row for rows, _ in data.rows_read(epoch) for row in rows.tolist())


def test_sliding_windows_read_every_row_once_an_epoch() -> None:
    data = kept("sliding")
    assert read(data, 0) == read(data, 1) == Counter(range(len(data.rows)))


def test_last_windows_read_the_newest_tokens_of_each_member() -> None:
    data, whole = kept("last"), kept("sliding")
    counts = np.bincount(whole.token_member)
    ends = np.cumsum(counts)
    assert len(data.windows) == len(np.unique(whole.windows.member))
    for start, length, member in zip(data.windows.start, data.windows.length, data.windows.member, strict=True):
        if member < len(counts) and counts[member]:
            assert start + length >= ends[member] - 1
            assert length == min(LENGTH, counts[member] - 1) or start + length == ends[member]
    assert 0 < data.epoch_tokens < whole.epoch_tokens
    assert set(read(data, 0)) < set(read(whole, 0))


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_mixed_windows_read_the_last_ones_always_and_the_others_in_turn(share: float) -> None:
    data, last, whole = built("mixed", earlier_share=share), kept("last"), kept("sliding")
    earlier = set(starts(whole, 0)) - set(starts(last, 0))
    seen: Counter = Counter()
    for epoch in range(20):
        own = starts(data, epoch)
        assert set(starts(last, 0)) <= set(own)
        seen.update(set(own) & earlier)
        assert len(list(data.epoch(epoch))) == data.steps()
    assert set(seen) == earlier
    assert max(seen.values()) - min(seen.values()) <= 1, "each as often as any other"
    assert sum(seen.values()) / 20 == pytest.approx(share * len(earlier), abs=4)
    assert starts(data, 0) != starts(data, 1)
    assert starts(data, 7) == starts(built("mixed", earlier_share=share), 7)
    assert last.epoch_tokens < data.epoch_tokens < whole.epoch_tokens


def test_ranks_share_the_windows_of_a_mixed_epoch(tmp_path) -> None:
    data = built("mixed")
    data.save(tmp_path)
    again = TrainingSet.load(tmp_path)
    titles = lambda batches: sorted(title for batch in batches for title in batch.targets.title.tolist())  # noqa: E731
    ranks = [batch for rank in range(2) for batch in again.epoch(3, rank, 2)]
    assert titles(ranks) == titles(data.epoch(3))


@pytest.mark.parametrize("count", [1, 3, 5, 9])
def test_a_plan_of_other_many_batches_has_every_window(count: int) -> None:
    windows = cut_windows(np.random.default_rng(0).integers(1, 90, 60), 30, 30)
    plan = plan_epoch(windows, 600, (1, 2), 2)
    found = with_batches(plan, count)
    assert len(found) == len(found.windows) == count
    assert sorted(np.concatenate(found.windows).tolist()) == list(range(len(windows)))
    for width, own in zip(found.widths, found.windows, strict=True):
        assert len(own) >= 2
        assert windows.length[own].max() <= width


def test_a_member_with_one_window_has_a_last_one() -> None:
    windows = cut_windows(np.array([25, 3, 1, 12]), 10, 10)
    assert last_windows(windows).tolist() == [True, False, False, True, True, True, False]
    chosen = epoch_part(windows, 0.5, 1, 0)
    assert set(np.nonzero(last_windows(windows))[0]) <= set(chosen.tolist())


def test_a_share_belongs_to_mixed_windows() -> None:
    whole = service.model({"play": {"label": "play", "loss": "softmax"}}).model.model_dump(by_alias=True)
    with pytest.raises(ValueError, match="'earlier_share' is of 'windows: mixed', and windows are 'last'"):
        ModelSpec.model_validate(whole | {"training": {"windows": "last", "earlier_share": 0.5}})
