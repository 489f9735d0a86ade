"""Candidate rules: which titles may be shown."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from playbill.specs.base import Duration, Spec


class PercentileRange(Spec):
    """A range of popularity percentiles at request time; 100 is the most played title."""

    below: float | None = Field(default=None, gt=0, le=100)
    """Only titles under this percentile."""
    above: float | None = Field(default=None, ge=0, lt=100)
    """Only titles over this percentile."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.below is None and self.above is None:
            raise ValueError("needs 'below', 'above' or both")
        if self.below is not None and self.above is not None and self.above >= self.below:
            raise ValueError(f"nothing is above {self.above:g} and below {self.below:g}")
        return self


class CandidatesSpec(Spec):
    """Which titles may be shown. Every rule must hold."""

    available: Literal["now", "upcoming"] = "now"
    """`now`: in the request's country at the request's time. `upcoming`: launching there later."""
    watched: bool | None = None
    """false hides what the member has played, true shows nothing else, absent does not ask."""
    kids: bool | None = None
    """true shows only titles marked for kids, false none of them, absent does not ask."""
    exclude_source: bool = False
    """Hide the request's source title."""
    popularity_percentile: PercentileRange | None = None
    """Only titles within this range of popularity."""
    launched_within: Duration | None = None
    """Only titles whose launch in the country is at most this long ago."""
