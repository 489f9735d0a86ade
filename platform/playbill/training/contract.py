"""What the loop takes and gives: batches, a place to compute, progress, reports, and the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from playbill.models import Network

Batch = tuple[Any, Any, Any]
"""History, context and targets: the dataclasses of `models.batch`, or numpy ones with the same field names."""


class BatchSource(Protocol):
    """Where batches come from."""

    @property
    def titles(self) -> Any:
        """`TitleInputs`, or numpy arrays with the same field names."""
        ...

    @property
    def batch_weights(self) -> Mapping[str, float]:
        """Head -> what a step divides the head's sum of losses by; the batch's own weight for heads without one.

        Needed where rows weigh differently: only one divisor for all batches leaves each row the weight it has.
        """
        ...

    def steps(self, world: int) -> int:
        """Return the batches per epoch, the same number on every rank."""
        ...

    def epoch(self, epoch: int, rank: int, world: int) -> Iterator[Batch]:
        """Yield one epoch's batches for one rank.

        Together the ranks yield what a single process would (`world = 1`) step by step, and the order depends on
        nothing but the source and `epoch`.
        """
        ...


class StoredBatches(BatchSource, Protocol):
    """Batches that reach workers as files: nothing of them goes through Ray's object store."""

    def save(self, folder: Path) -> None:
        """Write everything into a folder, which is made."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; arrays stay on disk until they are read."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Which worker this is, and where it computes."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, after every step."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float


Report = Callable[[dict[str, float], Path | None], None]
Validate = Callable[[Network], Mapping[str, float]]


@dataclass(frozen=True)
class FitResult:
    """A finished run. `network` carries the kept weights and is in evaluation mode."""

    network: Network
    reports: list[dict[str, float]]
    best_epoch: int
    resumed_from: int | None
    """Finished epochs of the checkpoint the run went on from, None for a fresh run."""
    seconds: float
