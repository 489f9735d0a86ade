"""How a model is measured, and what a version must hold before it may be champion."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from playbill.errors import nearest
from playbill.specs.base import Percent, Spec
from playbill.specs.plugins import BaselineName

METRICS = ("coverage", "hr", "mrr", "ndcg")
"""Ranking metrics, named with a cut-off: `ndcg@10`."""

SliceName = Literal["canvas", "country", "tenure", "title_age"]
ProtocolName = Literal["leave_one_out", "global_time"]


def _known_metric(text: str) -> str:
    name, _, cutoff = text.partition("@")
    if name not in METRICS or not cutoff.isdigit() or int(cutoff) == 0:
        close = nearest(name, METRICS) or "ndcg"
        hint = f"Did you mean '{close}@{cutoff if cutoff.isdigit() and int(cutoff) else 10}'?"
        raise PydanticCustomError("unknown_name", "unknown metric '{name}'", {"name": text, "hint": hint})
    return text


MetricName = Annotated[str, AfterValidator(_known_metric)]
"""A metric and its cut-off, such as `ndcg@10`."""


class EvaluateSpec(Spec):
    """How a version is measured after training."""

    protocol: ProtocolName = "leave_one_out"
    """`leave_one_out`: each member's last event. `global_time`: everything after one moment."""
    baselines: tuple[BaselineName, ...] = ("popular", "popular_7d", "ease")
    """What it is compared with."""
    slices: tuple[SliceName, ...] = ("country", "tenure", "title_age")
    """Groups that are measured apart."""
    k: tuple[PositiveInt, ...] = Field(default=(10,), min_length=1)
    """Cut-offs of the metrics."""


class GateSpec(Spec):
    """What a version must hold before it may be champion."""

    metric: MetricName
    """Metric and cut-off, such as `ndcg@10`."""
    canvas: str = "all"
    """One canvas, or `all` of them."""
    slice: SliceName | None = None
    """Hold it in every group of this slice."""
    against: str = "champion"
    """`champion`, or a baseline of `evaluate`."""
    tolerance: Percent | None = None
    """Relative change allowed on the whole: -0.5% may be half a per cent worse."""
    worst: Percent | None = None
    """Relative change allowed in the worst group of `slice`."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.slice is None and (self.tolerance is None or self.worst is not None):
            raise ValueError("a gate without 'slice' needs 'tolerance' and no 'worst'")
        if self.slice is not None and (self.worst is None or self.tolerance is not None):
            raise ValueError("a gate with 'slice' needs 'worst' and no 'tolerance'")
        return self
