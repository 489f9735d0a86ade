"""How long and how fast a run learns."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from playbill.definitions.specs.balance import read_balance
from playbill.models.config import NetworkConfig


class LoopSettings(BaseModel):
    """Settings of the training loop. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    epochs: PositiveInt = 6
    """Passes over the data."""
    min_steps: NonNegativeInt = 0
    """At least so many optimizer steps: small data gets more passes than `epochs`."""
    max_epochs: PositiveInt = 1000
    """Passes that `min_steps` brings at most."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak of the one-cycle schedule."""
    head_rate: float = Field(default=1.0, gt=0)
    """Learning rate of the heads' own parameters, over that of what they share."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of matrices of linear maps; embeddings, biases and norms never decay."""
    warm_up: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    ema: float = Field(default=0.998, ge=0, lt=1)
    """Decay of the running average of the weights, which is what is kept; 0 keeps the last weights."""
    balance: dict[str, Any] = Field(default={"type": "static"}, validate_default=True)
    """Options of how heads' losses are weighed: see `playbill.definitions.specs.balance`."""
    seed: NonNegativeInt = 0
    keep: Literal["last", "best"] = "last"
    """Which epoch's weights are the result. `best` needs a validation callback and `metric`."""
    metric: str | None = None
    """Validation metric that `best` maximises."""
    low_precision: bool | None = None
    """bfloat16 products; None = where the processor is fast at them."""

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
