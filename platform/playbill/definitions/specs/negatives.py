"""Negatives: what a head's positive rows are told apart from. Options of the policies, checked without torch."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, SerializeAsAny, model_validator

from playbill.definitions.specs.base import Spec, unknown_name
from playbill.definitions.specs.plugins import NEGATIVES


class NegativesOptions(Spec):
    """What a head learns its positives apart from. Only titles that the member could have seen there and then."""

    policy: str
    """`shown_not_played`, `uniform`, `popularity`, `in_batch`, `mixed`, or one that an outside package adds."""


class ShownOptions(NegativesOptions):
    """Titles that were shown in the request and not played."""

    count: PositiveInt | None = None
    """Of each request at most so many, drawn at random; absent is all. A `bce` head weighs them up to their number."""


class DrawnOptions(NegativesOptions):
    """Titles drawn anew for every batch. Also the options of `uniform`."""

    count: int = Field(default=256, ge=1, le=100_000)
    """Titles drawn for a batch; its rows share them."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """For `bce`: what the drawn titles of a row weigh together, where the row itself weighs 1."""


class PopularityOptions(DrawnOptions):
    """Titles drawn by how much they were played."""

    exponent: float = Field(default=0.75, ge=0, le=2)
    """A title's chance is `(plays + 1) ** exponent`; 0 is uniform."""


class MixedOptions(DrawnOptions):
    """Several policies, each with its share of `count` (Yang et al. 2020, mixed negative sampling)."""

    shares: dict[str, PositiveFloat] = Field(default={"in_batch": 0.5, "uniform": 0.5}, min_length=1)
    """Policy -> its share of `count`; they add up to 1."""
    exponent: float = Field(default=0.75, ge=0, le=2)
    """Of `popularity`."""

    @model_validator(mode="after")
    def _shares_of_others(self) -> Self:
        for name in self.shares:
            if name == "mixed":
                raise ValueError("'mixed' cannot be a share of itself")
            if name not in NEGATIVES:
                raise unknown_name(NEGATIVES.kind, name, NEGATIVES.names())
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares add up to {sum(self.shares.values()):g}, not 1")
        if few := [name for name, share in self.shares.items() if round(share * self.count) < 1]:
            raise ValueError(f"count {self.count} leaves nothing for the share of '{few[0]}'")
        return self


def read_negatives(value: Any) -> Any:
    """Check the options of a policy by the spec it registers; a bare name takes its defaults."""
    if isinstance(value, str):
        value = {"policy": value}
    if not isinstance(value, dict) or not isinstance(value.get("policy"), str):
        return value
    name = value["policy"]
    if name not in NEGATIVES:
        raise unknown_name(NEGATIVES.kind, name, NEGATIVES.names())
    options: type[NegativesOptions] | None = NEGATIVES[name].load_options()
    return (options or NegativesOptions).model_validate(value)


Negatives = Annotated[SerializeAsAny[NegativesOptions], BeforeValidator(read_negatives)]
"""A policy's options, checked by the spec it registers."""
