"""What a definition may say. Free of torch, Ray, Feast and MLflow."""

from __future__ import annotations

from playbill.definitions.specs.base import Definition, Duration, Percent, Spec, split_reference
from playbill.definitions.specs.candidates import CandidatesSpec, PercentileRange
from playbill.definitions.specs.canvas import FALLBACKS, CanvasSpec
from playbill.definitions.specs.context import CONTEXTS, ContextColumn, ContextsSpec
from playbill.definitions.specs.ensemble import EnsembleSpec, GuardSpec, MemberSpec
from playbill.definitions.specs.head import LOSSES, HeadSpec
from playbill.definitions.specs.label import EXTRACTORS, EventRule, ExtractorPlugin, LabelSpec, NegativesSpec
from playbill.definitions.specs.measures import BASELINES, EvaluateSpec, GateSpec
from playbill.definitions.specs.model import (
    AdaptationSpec,
    HistorySpec,
    ModelSpec,
    OnlySpec,
    SamplingSpec,
    StartSpec,
    TaskSpec,
    TitlesSpec,
    TrainingSpec,
    UpdateSpec,
)
from playbill.definitions.specs.network import BALANCERS, SHARINGS, TRUNKS, TrunkOptions
from playbill.definitions.specs.prune_heads import prune_heads
from playbill.definitions.specs.resolved import ResolvedModel, content_hash, reward_version, reward_versions
from playbill.definitions.specs.reward import RewardSpec, TermSpec
from playbill.definitions.specs.row import GeneratorSpec, RowSpec
from playbill.definitions.specs.where import WhereError, parse_where

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
    "MemberSpec",
    "ModelSpec",
    "NegativesSpec",
    "OnlySpec",
    "Percent",
    "PercentileRange",
    "ResolvedModel",
    "RewardSpec",
    "RowSpec",
    "SamplingSpec",
    "Spec",
    "StartSpec",
    "TaskSpec",
    "TermSpec",
    "TitlesSpec",
    "TrainingSpec",
    "TrunkOptions",
    "UpdateSpec",
    "WhereError",
    "content_hash",
    "parse_where",
    "prune_heads",
    "reward_version",
    "reward_versions",
    "split_reference",
]
