"""What a definition may say. Free of torch, Ray, Feast and MLflow."""

from __future__ import annotations

from playbill.specs.balance import BALANCERS
from playbill.specs.base import Definition, Duration, Percent, Spec, split_reference
from playbill.specs.candidates import CandidatesSpec, PercentileRange
from playbill.specs.canvas import CanvasSpec
from playbill.specs.context import CONTEXTS, ContextColumn, ContextsSpec
from playbill.specs.ensemble import EnsembleSpec, GuardSpec
from playbill.specs.head import HeadSpec
from playbill.specs.label import EventRule, LabelSpec, NegativesSpec
from playbill.specs.left_out import without_heads
from playbill.specs.losses import LOSSES
from playbill.specs.measures import EvaluateSpec, GateSpec
from playbill.specs.model import (
    AdaptationSpec,
    HistorySpec,
    ModelSpec,
    SamplingSpec,
    TaskSpec,
    TitlesSpec,
    TrainingSpec,
)
from playbill.specs.plugins import BASELINES, EXTRACTORS, FALLBACKS, TRUNKS, ExtractorPlugin, TrunkOptions
from playbill.specs.resolved import ResolvedModel, content_hash
from playbill.specs.reward import RewardSpec, TermSpec
from playbill.specs.reward_terms import reward_version, reward_versions
from playbill.specs.row import GeneratorSpec, RowSpec
from playbill.specs.sharing import SHARINGS
from playbill.specs.where import WhereError, parse_where

KINDS: dict[str, type[Definition]] = {
    "Label": LabelSpec,
    "Reward": RewardSpec,
    "Canvas": CanvasSpec,
    "Row": RowSpec,
    "Model": ModelSpec,
    "Ensemble": EnsembleSpec,
}
"""Every kind of definition, in the order in which they build on one another."""

__all__ = [
    "BALANCERS",
    "BASELINES",
    "CONTEXTS",
    "EXTRACTORS",
    "FALLBACKS",
    "KINDS",
    "LOSSES",
    "SHARINGS",
    "TRUNKS",
    "AdaptationSpec",
    "CandidatesSpec",
    "CanvasSpec",
    "ContextColumn",
    "ContextsSpec",
    "Definition",
    "Duration",
    "EnsembleSpec",
    "EvaluateSpec",
    "EventRule",
    "ExtractorPlugin",
    "GateSpec",
    "GeneratorSpec",
    "GuardSpec",
    "HeadSpec",
    "HistorySpec",
    "LabelSpec",
    "ModelSpec",
    "NegativesSpec",
    "Percent",
    "PercentileRange",
    "ResolvedModel",
    "RewardSpec",
    "RowSpec",
    "SamplingSpec",
    "Spec",
    "TaskSpec",
    "TermSpec",
    "TitlesSpec",
    "TrainingSpec",
    "TrunkOptions",
    "WhereError",
    "content_hash",
    "parse_where",
    "reward_version",
    "reward_versions",
    "split_reference",
    "without_heads",
]
