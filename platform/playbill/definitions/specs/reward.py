"""Rewards: weighted sums of labels, what a recommendation is worth."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from playbill.definitions.specs.base import Definition, Duration, Reference, Spec, Weight
from playbill.errors import did_you_mean

Attribution = Literal["event", "same_title"]

REWARDED = ("play", "impression")
"""Actions of the events that have a reward. Everything else that happens counts for one of these."""


class TermSpec(Spec):
    """How one label counts. Written as a bare number it is the weight."""

    weight: Weight
    """Worth of an event whose label says 1; negative for what should not happen."""
    otherwise: Weight = 0.0
    """Worth of an event whose label says 0, such as an impression that was not played."""
    attribute: Attribution | None = None
    """`event`: the label speaks of the play or impression itself. `same_title`: it speaks of another event of the
    member on the same title, and counts for the latest play before it, or else the latest impression. Absent, the
    actions of the label's rule decide."""
    within: Duration | None = None
    """`same_title` only: how long after the play it still counts; absent means the label's window, and without one
    however long."""


Term = Annotated[
    TermSpec,
    BeforeValidator(lambda value: value if isinstance(value, dict | TermSpec) else {"weight": value}),
    WithJsonSchema({"anyOf": [{"type": "number"}, TermSpec.model_json_schema()]}),
]
"""A weight, or a weight and more."""


class RewardSpec(Definition):
    """A reward: labels and how much each counts."""

    kind: Literal["Reward"] = "Reward"
    terms: dict[Reference, Term] = Field(min_length=1)
    """Label -> its weight, negative for what should not happen; or a mapping with more than the weight."""
    delayed: tuple[Reference, ...] = ()
    """Terms that are predicted until they are mature. Serving never sees the predictor."""
    clip: tuple[float, float] | None = None
    """Lowest and highest value of the sum."""
    matures_after: Duration | None = None
    """How old a play or impression is when its reward is final. A term that takes longer is a mistake; absent means
    as long as the slowest term takes."""

    @model_validator(mode="after")
    def _delayed_are_terms(self) -> Self:
        for name in self.delayed:
            if name not in self.terms:
                hint = did_you_mean(name, self.terms)
                raise ValueError(f"delayed '{name}' is not among the terms. {hint}".rstrip())
        return self

    @model_validator(mode="after")
    def _clip_has_room(self) -> Self:
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip goes from low to high, not from {self.clip[0]:g} to {self.clip[1]:g}")
        return self

    @model_validator(mode="after")
    def _every_term_counts(self) -> Self:
        if idle := [name for name, term in self.terms.items() if term.weight == term.otherwise == 0]:
            named = ", ".join(f"'{name}'" for name in idle)
            raise ValueError(f"term {named} counts for nothing: give it a weight or an 'otherwise', or take it out")
        return self

    @model_validator(mode="after")
    def _within_is_of_another_event(self) -> Self:
        for name, term in self.terms.items():
            if term.within is not None and term.attribute == "event":
                raise ValueError(f"term '{name}' has 'within', which is for `attribute: same_title`")
        return self
