"""The registered names a definition may use, and the options each takes.

Nothing here imports an implementation: a definition is checked without torch, Feast, Ray or MLflow. Outside
packages add names through the entry-point groups below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, SerializeAsAny

from playbill.definitions.specs.base import Size, Spec, registered, unknown_name
from playbill.definitions.specs.losses import LOSSES
from playbill.definitions.specs.sharing import Sharing, SharingOptions
from playbill.registry import Plugin, Registry


class TrunkOptions(Spec):
    """The causal network over a member's events: its registered type and its sizes."""

    type: str = "gated_transformer"
    """Registered trunk: `gated_transformer`, or one that an outside package adds."""
    dim: Size = 64
    """Width D of every vector in the model."""
    layers: int = Field(default=2, ge=1, le=64)
    """Blocks, one after the other."""
    heads: int = Field(default=2, ge=1, le=64)
    """Attention heads; `dim` must be a multiple of it."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of activations dropped in training."""
    sharing: Sharing = SharingOptions()
    """How heads share the state of a request: `shared`, or experts that each head mixes for itself."""


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
            "playbill.models.trunks.gated_transformer:GatedTransformer",
            "playbill.definitions.specs.plugins:GatedTransformerOptions",
        )
    },
)
NEGATIVES = Registry(
    "negatives policy",
    "playbill.negatives",
    {
        "shown_not_played": Plugin(
            "playbill.datasets.examples.negatives:Shown", "playbill.definitions.specs.negatives:ShownOptions"
        ),
        "uniform": Plugin(
            "playbill.datasets.examples.negatives:Uniform", "playbill.definitions.specs.negatives:DrawnOptions"
        ),
        "popularity": Plugin(
            "playbill.datasets.examples.negatives:Popularity", "playbill.definitions.specs.negatives:PopularityOptions"
        ),
        "in_batch": Plugin(
            "playbill.datasets.examples.negatives:InBatch", "playbill.definitions.specs.negatives:DrawnOptions"
        ),
        "mixed": Plugin(
            "playbill.datasets.examples.negatives:Mixed", "playbill.definitions.specs.negatives:MixedOptions"
        ),
    },
)
"""How a head's negatives are chosen; see `playbill.datasets.examples.negatives.Policy`."""
FALLBACKS = Registry(
    "fallback",
    "playbill.fallbacks",
    {
        "popular": Plugin("playbill.ranking.fallbacks:popular"),
        "popular_7d": Plugin("playbill.ranking.fallbacks:popular_7d"),
        "top_10": Plugin("playbill.ranking.fallbacks:top_10"),
        "trending": Plugin("playbill.ranking.fallbacks:trending"),
        "newest": Plugin("playbill.ranking.fallbacks:newest"),
        "next_launch": Plugin("playbill.ranking.fallbacks:next_launch"),
        "recently_added_to_my_list": Plugin("playbill.ranking.fallbacks:recently_added_to_my_list"),
        "last_watched": Plugin("playbill.ranking.fallbacks:last_watched"),
    },
)
"""Orders of titles that no model makes, called as `policy(plays, viewer)`; see `playbill.ranking.fallbacks`."""
BASELINES = Registry(
    "baseline",
    "playbill.baselines",
    {
        "popular": Plugin("playbill.evaluation.baselines.popularity:popular"),
        "popular_7d": Plugin("playbill.evaluation.baselines.popularity:popular_7d"),
        "ease": Plugin("playbill.evaluation.baselines.popularity:ease"),
        "item_knn": Plugin("playbill.evaluation.baselines.item_knn:item_knn"),
        "ials": Plugin("playbill.evaluation.baselines.ials:ials"),
        "sasrec": Plugin("playbill.evaluation.baselines.sasrec:sasrec"),
    },
)


Level = Literal["title", "row", "page"]
"""What a label speaks about: a title, a row of a page, a page."""


@dataclass(frozen=True, slots=True)
class ExtractorPlugin(Plugin):
    """A registered label extractor: what it needs, and how it is called (`playbill.labels.label_extractor`)."""

    version: int = 1
    """Raised when it gives other values than before."""
    inputs: tuple[str, ...] = ()
    """Columns of `interactions` it reads beside those every label reads."""
    tables: tuple[str, ...] = ()
    """Which of `titles` and `availability` it reads."""
    window: timedelta | None = None
    """How long after an event its outcome counts, where the label does not say."""
    levels: tuple[Level, ...] = ("title", "row", "page")
    """What its values may be about."""
    actions: tuple[str, ...] = ()
    """Actions of the events it gives values to, for counts of those it leaves out; none is any."""
    function: Callable[..., Any] | None = None
    """The implementation, where a decorator has it at hand."""
    spec: type[Spec] | None = None
    """The options spec, likewise."""

    def load(self) -> Any:
        """Return the implementation, imported where it is not at hand."""
        return self.function or Plugin.load(self)

    def load_options(self) -> Any | None:
        """Return the options spec, or None when the extractor takes none."""
        return self.spec or Plugin.load_options(self)

    def __call__(self, *arguments: Any) -> Any:
        """Call the implementation, so that a decorated function can still be used as one."""
        return self.load()(*arguments)


EXTRACTORS = Registry(
    "label extractor",
    "playbill.labels",
    {
        "acted_on": ExtractorPlugin(
            "playbill.labels.built_in_extractors:acted_on",
            options="playbill.definitions.specs.label:ActedOnOptions",
            inputs=("request_id",),
            window=timedelta(days=1),
            levels=("title",),
            actions=("impression",),
        ),
        "measured": ExtractorPlugin(
            "playbill.labels.built_in_extractors:measured",
            options="playbill.definitions.specs.label:MeasuredOptions",
            inputs=("progress", "duration_s"),
            levels=("title",),
        ),
        "played_from": ExtractorPlugin(
            "playbill.labels.built_in_extractors:played_from",
            inputs=("request_id",),
            window=timedelta(days=1),
            levels=("row", "page"),
            actions=("impression",),
        ),
        "visit_continues": ExtractorPlugin(
            "playbill.labels.built_in_extractors:visit_continues",
            inputs=("request_id", "session_id"),
            window=timedelta(days=1),
            levels=("page",),
            actions=("impression",),
        ),
    },
)
"""Label extractors, called as `extract(events, context)`; see `playbill.labels.extractors`."""


class ThresholdOptions(Spec):
    """Where an off-policy estimator stops to believe importance weights."""

    threshold: PositiveFloat | None = None
    """Largest weight that is taken as it is; None = the one with the least estimated squared error."""


_ROWS, _SLATES = "playbill.evaluation.off_policy.estimators", "playbill.evaluation.off_policy.estimators"
_THRESHOLD = "playbill.definitions.specs.plugins:ThresholdOptions"
ESTIMATORS = Registry(
    "off-policy estimator",
    "playbill.estimators",
    {
        "direct": Plugin(f"{_ROWS}:direct"),
        "ips": Plugin(f"{_ROWS}:ips"),
        "clipped_ips": Plugin(f"{_ROWS}:clipped_ips", _THRESHOLD),
        "snips": Plugin(f"{_ROWS}:snips"),
        "doubly_robust": Plugin(f"{_ROWS}:doubly_robust"),
        "self_normalised_dr": Plugin(f"{_ROWS}:self_normalised_dr"),
        "switch_dr": Plugin(f"{_ROWS}:switch_dr", _THRESHOLD),
        "slate": Plugin(f"{_SLATES}:reward_interaction"),
        "slate_snips": Plugin(f"{_SLATES}:self_normalised"),
        "slate_independent": Plugin(f"{_SLATES}:independent"),
        "slate_whole": Plugin(f"{_SLATES}:whole"),
        "slate_dr": Plugin(f"{_SLATES}:cascade_dr"),
    },
)
"""Off-policy estimators, called as `estimator(data, options)`; they return `evaluation.off_policy.terms.Terms`.
The name of one whose units are slates starts with `slate`."""

LossName = Annotated[str, registered(LOSSES)]
FallbackName = Annotated[str, registered(FALLBACKS)]
BaselineName = Annotated[str, registered(BASELINES)]
EstimatorName = Annotated[str, registered(ESTIMATORS)]
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
