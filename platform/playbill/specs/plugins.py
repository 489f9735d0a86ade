"""The registered names a definition may use, and the options each takes.

Nothing here imports an implementation: a definition is checked without torch, Feast, Ray or MLflow. Outside
packages add names through the entry-point groups below.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt, SerializeAsAny

from playbill.registry import Plugin, Registry
from playbill.specs.base import Spec, registered, unknown_name


class TrunkOptions(Spec):
    """The causal network over a member's events: its registered type and its sizes."""

    type: str = "gated_transformer"
    """Registered trunk: `gated_transformer`, or one that an outside package adds."""
    dim: PositiveInt = 64
    """Width D of every vector in the model."""
    layers: PositiveInt = 2
    """Blocks, one after the other."""
    heads: PositiveInt = 2
    """Attention heads; `dim` must be a multiple of it."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of activations dropped in training."""


class GatedTransformerOptions(TrunkOptions):
    """Pre-norm attention with gated residuals, a learned relative bias and a short causal mixing."""

    def model_post_init(self, context: Any, /) -> None:
        """Check that the width divides into the attention heads."""
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is no multiple of heads {self.heads}")


TRUNKS = Registry(
    "trunk",
    "playbill.trunks",
    {
        "gated_transformer": Plugin(
            "playbill.models.trunk:GatedTransformer", "playbill.specs.plugins:GatedTransformerOptions"
        )
    },
)
LOSSES = Registry(
    "loss",
    "playbill.losses",
    {"softmax": Plugin("playbill.models.loss:softmax_loss"), "bce": Plugin("playbill.models.loss:binary_loss")},
)
FALLBACKS = Registry(
    "fallback",
    "playbill.fallbacks",
    {
        "popular": Plugin("playbill.ranking.fallback:popular"),
        "popular_7d": Plugin("playbill.ranking.fallback:popular_7d"),
    },
)
BASELINES = Registry(
    "baseline",
    "playbill.baselines",
    {
        "popular": Plugin("playbill.evaluation.baselines:popular"),
        "popular_7d": Plugin("playbill.evaluation.baselines:popular_7d"),
        "ease": Plugin("playbill.evaluation.baselines:ease"),
    },
)
EXTRACTORS = Registry("label extractor", "playbill.labels", {})
"""Outside label extractors, called as `extract(options, interactions, as_of, availability)`."""

LossName = Annotated[str, registered(LOSSES)]
FallbackName = Annotated[str, registered(FALLBACKS)]
BaselineName = Annotated[str, registered(BASELINES)]
ExtractorName = Annotated[str, registered(EXTRACTORS)]


def _trunk(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    name = value.get("type", "gated_transformer")
    if not isinstance(name, str):
        return value
    if name not in TRUNKS:
        raise unknown_name(TRUNKS.kind, name, TRUNKS.names())
    options: type[TrunkOptions] | None = TRUNKS[name].load_options()
    return (options or TrunkOptions).model_validate(value)


Trunk = Annotated[
    SerializeAsAny[TrunkOptions],
    BeforeValidator(_trunk),
]
"""A trunk's options, checked by the spec its type registers."""
