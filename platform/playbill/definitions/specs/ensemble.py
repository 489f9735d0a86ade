"""Ensembles: several models and a gate that learns which to trust where."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from playbill.definitions.specs.base import Definition, ModelReference, Name, Percent, Spec
from playbill.errors import nearest


class GuardSpec(Spec):
    """What the ensemble must never do worse than one of its members."""

    slice: Literal["country", "tenure", "title_age"]
    """Hold it in every group of this slice."""
    against: Name = "global"
    """The member it is compared with."""
    worst: Percent
    """Relative change allowed in the worst group."""


class EnsembleSpec(Definition):
    """An ensemble: member models by role, the context its gate reads, and its guard."""

    kind: Literal["Ensemble"] = "Ensemble"
    members: dict[Name, ModelReference] = Field(min_length=2)
    """Role -> model, such as `global: everycanvas@champion`."""
    gate: tuple[Literal["country", "tenure", "title_age"], ...] = Field(min_length=1)
    """Context the gate reads to weigh the members."""
    guard: GuardSpec | None = None
    """Limit on the harm to any group."""

    @model_validator(mode="after")
    def _guard_names_a_member(self) -> Self:
        if self.guard is not None and self.guard.against not in self.members:
            close = nearest(self.guard.against, self.members)
            hint = f" Did you mean '{close}'?" if close else ""
            raise ValueError(f"guard.against '{self.guard.against}' is no member.{hint}")
        return self
