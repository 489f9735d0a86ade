"""A tiny training problem that a right loop solves: members who go round a ring of eight titles."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from playbill.models import (
    EventConfig,
    HeadConfig,
    Network,
    NetworkConfig,
    TextConfig,
    TitleConfig,
    TitleInputs,
    TrunkConfig,
)
from playbill.training import LoopSettings, fit

RING, LENGTH, MEMBERS, SHARED = 8, 6, 24, 4

CONFIG = NetworkConfig(
    length=LENGTH,
    trunk=TrunkConfig(dim=16, layers=1, heads=2, dropout=0.0),
    titles=TitleConfig(titles=RING + 1, genres=3, kinds=2, id_mask=0.0),
    events=EventConfig(actions=2, canvases=2),
    text=TextConfig(buckets=32, dim=64),
    heads=(HeadConfig(name="play", loss="softmax"), HeadConfig(name="thumb", loss="bce", weight=0.3)),
)
SETTINGS = LoopSettings(epochs=4, learning_rate=0.02, ema=0.9, low_precision=False, seed=7)


def ring_titles() -> SimpleNamespace:
    """Return the ring's titles as arrays; odd ones are of genre 1, even ones of genre 2."""
    count = RING + 1
    zeros = np.zeros(count, np.int64)
    return SimpleNamespace(
        index=np.arange(count),
        genres=np.arange(1, count) % 2 + 1,
        genre_offsets=np.maximum(np.arange(count) - 1, 0),
        kind=np.minimum(np.arange(count), 1),
        language=zeros,
        release_year=zeros,
        name_grams=np.arange(1, count),
        name_offsets=np.maximum(np.arange(count) - 1, 0),
        synopsis_grams=np.zeros(0, np.int64),
        synopsis_offsets=zeros,
        age_days=np.full(count, 10, np.float32),
        plays=np.full(count, 9, np.float32),
        has_id=np.arange(count) > 0,
        numeric=np.zeros((count, 0), np.float32),
        categorical=np.zeros((count, 0), np.int64),
        snapshots=np.zeros((1, count, 0), np.float32),
    )


class RingBatches:
    """Six shared batches of four members per epoch; a rank takes every `world`-th member of each."""

    def __init__(self, pause: int | None = None) -> None:
        self.titles = ring_titles()
        self.batch_weights: dict[str, float] = {}
        self.pause = pause
        """Epoch in which this process kills itself after the first batch."""

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "pause.json").write_text(json.dumps(self.pause))

    @classmethod
    def load(cls, folder: Path) -> RingBatches:
        return cls(json.loads((folder / "pause.json").read_text()))

    def steps(self, world: int) -> int:
        return MEMBERS // SHARED

    def epoch(self, epoch: int, rank: int, world: int) -> Iterator[tuple[Any, Any, Any]]:
        starts = np.random.default_rng(epoch).permutation(np.arange(MEMBERS) % RING)
        for number, first in enumerate(range(0, MEMBERS, SHARED)):
            if self.pause == epoch and number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield ring_batch(starts[first : first + SHARED][rank::world])


def ring_batch(starts: np.ndarray) -> tuple[SimpleNamespace, SimpleNamespace, SimpleNamespace]:
    """Return history, context and targets of members that begin after `starts`."""
    members = len(starts)
    ring = (starts[:, None] + np.arange(LENGTH + 1)) % RING + 1
    empty = np.zeros((members, LENGTH), np.int64)
    history = SimpleNamespace(
        title=ring[:, :-1],
        actions=empty + 1,
        canvas=empty + 1,
        device=empty,
        language=empty,
        gap=empty,
        duration=empty,
        length=np.full(members, LENGTH),
    )
    rows = members * (LENGTH + 1)
    zeros = np.zeros(rows, np.int64)
    context = SimpleNamespace(
        state=np.arange(rows),
        canvas=zeros + 1,
        country=zeros,
        device=zeros,
        language=zeros,
        hour_of_week=zeros,
        source_title=zeros,
        query_grams=np.zeros(0, np.int64),
        query_offsets=zeros,
        numeric=np.zeros((rows, 0), np.float32),
        categorical=np.zeros((rows, 0), np.int64),
        snapshot=zeros,
    )
    title = ring.reshape(-1)
    thumb = np.where(title % 3 == 0, np.nan, title % 2).astype(np.float32)
    labels = {"play": np.ones(rows, np.float32), "thumb": thumb}
    return history, context, SimpleNamespace(title=title, labels=labels, weight=np.ones(rows, np.float32))


def ring_network() -> Network:
    """Return the same untrained network every time."""
    torch.manual_seed(1)
    network = Network(CONFIG)
    network.calibrate(torch.zeros(0, 0), TitleInputs.from_arrays(ring_titles()))
    return network


if __name__ == "__main__":
    fit(ring_network(), RingBatches(pause=int(sys.argv[2])), SETTINGS, folder=Path(sys.argv[1]))
