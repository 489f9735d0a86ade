"""Rewards: weighted sums of labels, what a recommendation is worth."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from playbill.errors import nearest
from playbill.specs.base import Definition, Reference


class RewardSpec(Definition):
    """A reward: labels and how much each counts."""

    kind: Literal["Reward"] = "Reward"
    terms: dict[Reference, float] = Field(min_length=1)
    """Label -> its weight, negative for what should not happen."""
    delayed: tuple[Reference, ...] = ()
    """Terms that are predicted until they are mature. Serving never sees the predictor."""

    @model_validator(mode="after")
    def _delayed_are_terms(self) -> Self:
        for name in self.delayed:
            if name not in self.terms:
                close = nearest(name, self.terms)
                hint = f" Did you mean '{close}'?" if close else ""
                raise ValueError(f"delayed '{name}' is not among the terms.{hint}")
        return self
