"""What the loop takes and gives: batches, a place to compute, progress, reports, the result; how long a run learns."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from playbill.definitions.specs.network import read_balance
from playbill.models import Network
from playbill.models.config import NetworkConfig

Batch = tuple[Any, Any, Any]
"""History, context and targets: the dataclasses of `models.batch`, or numpy ones with the same field names."""


class BatchSource(Protocol):
    """Where batches come from."""

    @property
    def titles(self) -> Any:
        """`TitleInputs`, or numpy arrays with the same field names."""

    @property
    def batch_weights(self) -> Mapping[str, float]:
        """Head -> what a step divides the head's sum of losses by; the batch's own weight for heads without one.

        Needed where rows weigh differently: only one divisor for all batches leaves each row the weight it has.
        """

    def steps(self, world: int) -> int:
        """Return the batches per epoch, the same number on every rank."""

    def epoch(self, epoch: int, rank: int, world: int) -> Iterator[Batch]:
        """Yield one epoch's batches for one rank.

        Together the ranks yield what a single process would (`world = 1`) step by step, and the order depends on
        nothing but the source and `epoch`.
        """


class StoredBatches(BatchSource, Protocol):
    """Batches that reach workers as files: nothing of them goes through Ray's object store."""

    def save(self, folder: Path) -> None:
        """Write everything into a folder, which is made."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; arrays stay on disk until they are read."""


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which worker this is, and where it computes."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    sharded: bool = False  # whether it holds a part of the tables of titles and of the trunk; see `training.shards`


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
    """A finished run. `network` carries the kept weights and is in evaluation mode.

    Where workers held a part each, it is whole on the first of them alone.
    """

    network: Network
    reports: list[dict[str, float]]
    best_epoch: int
    resumed_from: int | None  # finished epochs of the checkpoint the run went on from, None for a fresh run
    seconds: float

    def summary(self) -> dict[str, float]:
        """Return seconds in the loop, the median speed of an epoch, and the loss of the last one."""
        speeds = sorted(report["tokens_per_second"] for report in self.reports)
        return {
            "train_seconds": sum(report["seconds"] for report in self.reports),
            "tokens_per_second": speeds[len(speeds) // 2],
            "final_loss": self.reports[-1]["loss"],
        }


class LoopSettings(BaseModel):
    """Settings of the training loop. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveInt = 6  # passes over the data
    min_steps: NonNegativeInt = 0  # at least so many optimizer steps: small data gets more passes than `epochs`
    max_epochs: PositiveInt = 1000  # passes that `min_steps` brings at most
    learning_rate: float = Field(default=2e-3, gt=0)  # peak of the one-cycle schedule
    head_rate: float = Field(default=1.0, gt=0)
    """Learning rate of the heads' own parameters, over that of what they share."""
    head_rates: dict[str, float] = Field(default={}, exclude_if=lambda value: not value)
    """Head -> a rate of its own, in place of `head_rate`."""
    title_rate: float = Field(default=1.0, ge=1, exclude_if=lambda value: value == 1.0)
    """Learning rate of the biases of titles, over that of what heads share, if that is more than `head_rate`; they then
    move less where a step says little of a title, see `optimizer.LITTLE`."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of matrices of linear maps; embeddings, biases and norms never decay."""
    warm_up: float = Field(default=0.1, ge=0, lt=1)  # share of the steps in which the learning rate rises
    clip: float = Field(default=1.0, gt=0)  # largest gradient norm
    ema: float = Field(default=0.998, ge=0, lt=1)
    """Decay of the running average of the weights, which is what is kept; 0 keeps the last weights."""
    balance: dict[str, Any] = Field(default={"type": "static"}, validate_default=True)
    """Options of how heads' losses are weighed: see `playbill.definitions.specs.network`."""
    seed: NonNegativeInt = 0
    keep: Literal["last", "best"] = "last"
    """Which epoch's weights are the result. `best` needs a validation callback and `metric`."""
    metric: str | None = None  # validation metric that `best` maximises
    low_precision: bool | None = None  # bfloat16 products; None = where the processor is fast at them

    @field_validator("balance")
    @classmethod
    def _known_balance(cls, value: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = read_balance(value).model_dump()
        return found

    @model_validator(mode="after")
    def _best_needs_metric(self) -> LoopSettings:
        if self.keep == "best" and self.metric is None:
            raise ValueError("keep: best needs a metric")
        return self

    def total_epochs(self, steps_per_epoch: int) -> int:
        """Return `epochs`, or as many passes as `min_steps` needs, up to `max_epochs`."""
        return max(self.epochs, min(self.max_epochs, math.ceil(self.min_steps / steps_per_epoch)))

    def digest(self, network: NetworkConfig) -> str:
        """Return what a checkpoint must agree on to be resumed."""
        text = self.model_dump_json() + network.model_dump_json()
        return hashlib.sha256(text.encode("utf-8")).hexdigest()
