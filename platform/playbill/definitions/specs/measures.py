"""How a model is measured, and what a version must hold before it may be champion."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, model_validator
from pydantic_core import PydanticCustomError

from playbill.definitions.specs.base import Name, Percent, Reference, Spec, registered
from playbill.errors import nearest
from playbill.registry import Plugin, Registry

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
BaselineName = Annotated[str, registered(BASELINES)]


class ThresholdOptions(Spec):
    """Where an off-policy estimator stops to believe importance weights."""

    threshold: PositiveFloat | None = None
    """Largest weight that is taken as it is; None = the one with the least estimated squared error."""


_ESTIMATORS = "playbill.evaluation.off_policy.estimators"
_THRESHOLD = "playbill.definitions.specs.measures:ThresholdOptions"
ESTIMATORS = Registry(
    "off-policy estimator",
    "playbill.estimators",
    {
        "direct": Plugin(f"{_ESTIMATORS}:direct"),
        "ips": Plugin(f"{_ESTIMATORS}:ips"),
        "clipped_ips": Plugin(f"{_ESTIMATORS}:clipped_ips", _THRESHOLD),
        "snips": Plugin(f"{_ESTIMATORS}:snips"),
        "doubly_robust": Plugin(f"{_ESTIMATORS}:doubly_robust"),
        "self_normalised_dr": Plugin(f"{_ESTIMATORS}:self_normalised_dr"),
        "switch_dr": Plugin(f"{_ESTIMATORS}:switch_dr", _THRESHOLD),
        "slate": Plugin(f"{_ESTIMATORS}:reward_interaction"),
        "slate_snips": Plugin(f"{_ESTIMATORS}:self_normalised"),
        "slate_independent": Plugin(f"{_ESTIMATORS}:independent"),
        "slate_whole": Plugin(f"{_ESTIMATORS}:whole"),
        "slate_dr": Plugin(f"{_ESTIMATORS}:cascade_dr"),
    },
)
"""Off-policy estimators, called as `estimator(data, options)`; they return `evaluation.off_policy.terms.Terms`.
The name of one whose units are slates starts with `slate`."""


# Krichene and Rendle, "On sampled metrics for item recommendation", KDD 2020: they order models differently from the
# metrics whose names they carry. ML-1M prints NDCG@10 near 0.59 against 100 random negatives and 0.13 to 0.19 against
# the catalogue. So they are refused by name, wherever a metric can be named.
SAMPLED_REASON = (
    "a metric against a sample of titles orders models differently from the one over the whole catalogue, and prints "
    "numbers several times too high; Playbill ranks everything that a canvas may show"
)

_SAMPLED = re.compile(
    r"(^|[_\-.@])(sampled?|samples|sampling|subsampled?)([_\-.@\d]|$)"  # sampled_ndcg, ndcg@10_sampled, hr_sample100
    r"|negatives?|(^|[_\-.@])neg_?\d+"  # hr_99_negatives, ndcg_neg100
    r"|\d+_?(vs|in|plus|\+)_?\d+",  # ndcg_1vs100, hr_1_plus_99
    re.IGNORECASE,
)


def sampled_reason(metric: str) -> str | None:
    """Say why a metric's name, such as `sampled_ndcg@10`, is refused; None when it speaks of no sample of titles."""
    return f"metric '{metric}' is not offered: {SAMPLED_REASON}" if _SAMPLED.search(metric) else None


METRICS = ("calibration", "coverage", "debiased_ndcg", "hr", "map", "mrr", "ndcg", "novelty", "recall", "reward_ndcg")
"""Metrics of lists, named with a cut-off: `ndcg@10`."""
HEAD_METRICS = ("auc", "ece")
"""Metrics of a head's own probabilities, named without a cut-off."""
LOGGED, PLAYED = "logged", "played"
"""What off-policy estimates are held against, and the outcome they estimate when no reward is named."""
LOWER_IS_BETTER = ("calibration", "ece")
"""Metrics that measure a distance: a version that lowers them is better."""

SliceName = Literal["canvas", "country", "device", "language", "popularity", "tenure", "title_age"]
AUTO = "auto"
ProtocolName = Literal["auto", "leave_one_out", "global_time", "global_time_successive", "global_time_period", "replay"]
PROTOCOLS = {
    "leave_one_out": "each member's last play is held out",
    "global_time": "what follows one moment; asked at the last play",
    "global_time_successive": "the same events; asked at every play in turn",
    "global_time_period": "the same events; asked once for all plays",
    "replay": "the same events; each window is asked, then learnt",
}
"""Every protocol with what it holds out and what it asks a member: `--help` and the key reference read it here."""
CHOSEN_BY_THE_LOG = "global_time_period or leave_one_out, by the log"


def lower_is_better(metric: str) -> bool:
    """Say whether a metric, with or without its cut-off, is better when it is lower."""
    return metric.partition("@")[0] in LOWER_IS_BETTER


def _known_metric(text: str) -> str:
    if sampled_reason(text):
        what = "sampled metric '{name}'"
        raise PydanticCustomError("sampled_metric", what, {"name": text, "hint": f"Not offered: {SAMPLED_REASON}."})
    name, _, cutoff = text.partition("@")
    plain = text in HEAD_METRICS or text in ESTIMATORS
    if not plain and (name not in METRICS or not cutoff.isdigit() or int(cutoff) == 0):
        raise PydanticCustomError(
            "unknown_name", "unknown metric '{name}'", {"name": text, "hint": _hint(name, cutoff)}
        )
    return text


def _hint(name: str, cutoff: str) -> str:
    close = nearest(name, (*METRICS, *HEAD_METRICS, *ESTIMATORS.names())) or "ndcg"
    if close not in METRICS:
        return f"Did you mean '{close}'?"
    return f"Did you mean '{close}@{cutoff if cutoff.isdigit() and int(cutoff) else 10}'?"


MetricName = Annotated[str, AfterValidator(_known_metric)]
"""A metric and its cut-off, such as `ndcg@10`; `auc`, `ece` and off-policy estimators have none."""


BESIDE: tuple[str, ...] = ("popular", "popular_7d", "item_knn", "ease")
"""Baselines that stand beside every model, on every canvas of titles."""


def _protocols_described() -> str:
    named = {AUTO: CHOSEN_BY_THE_LOG, **PROTOCOLS}
    return " ".join(f"`{name}`: {line}." for name, line in named.items())


class EvaluateSpec(Spec):
    """How a version is measured after training."""

    protocol: ProtocolName = Field(default="auto", description=_protocols_described())
    baselines: tuple[BaselineName, ...] = BESIDE
    """What it is compared with; popular, popular_7d, item_knn and ease always are."""
    slices: tuple[SliceName, ...] = ("country", "tenure", "title_age")
    """Groups that are measured apart."""
    minimum_members: int = Field(default=30, ge=1, le=1_000_000)
    """Members that a group needs before it is read, ranked or held by a gate."""
    k: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(default=(10,), min_length=1)
    """Cut-offs of the metrics."""
    reward: Reference | None = None
    """Reward that `reward_ndcg` weighs targets by; without one there is no such metric."""


class GateSpec(Spec):
    """What a version must hold before it may be champion."""

    metric: MetricName
    """Metric and cut-off, such as `ndcg@10`; `auc` and `ece` of a head have no cut-off, nor have off-policy estimators
    such as `slate_snips`."""
    canvas: str = "all"
    """One canvas, or `all` of them."""
    slice: SliceName | None = None
    """Hold it in every group of this slice."""
    head: str | None = None
    """`auc` and `ece` only: one head, else every head that was measured."""
    reward: Name | None = None
    """Off-policy estimators only: the reward that is estimated, else `played`."""
    against: str = "champion"
    """`champion`, a baseline of `evaluate`, or for off-policy estimators `logged`: the policy that was served."""
    tolerance: Percent | None = None
    """Relative change allowed on the whole, with its sign: -0.5% may be half a per cent worse, +5% must be five per
    cent better. Worse is higher for `ece` and `calibration`."""
    worst: Percent | None = None
    """Relative change allowed in the worst group of `slice`."""
    significant: bool = False
    """Let the 95 % interval of the paired difference decide. A limit of 0 % or below refuses only what is significantly
    beyond it, a limit above 0 % passes only what is significantly above it."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.slice is None and (self.tolerance is None or self.worst is not None):
            raise ValueError("a gate without 'slice' needs 'tolerance' and no 'worst'")
        if self.slice is not None and (self.worst is None or self.tolerance is not None):
            raise ValueError("a gate with 'slice' needs 'worst' and no 'tolerance'")
        return self

    @model_validator(mode="after")
    def _estimates_are_held_against_the_log(self) -> Self:
        estimated = self.metric in ESTIMATORS
        if estimated and (self.against != LOGGED or self.slice is not None):
            raise ValueError(f"'{self.metric}' is held against '{LOGGED}', without 'slice'")
        if not estimated and (self.against == LOGGED or self.reward is not None):
            what = f"'against: {LOGGED}'" if self.against == LOGGED else "'reward'"
            raise ValueError(f"{what} is for off-policy estimators such as slate_snips, not for {self.metric}")
        return self

    @model_validator(mode="after")
    def _heads_have_their_metrics(self) -> Self:
        of_head = self.metric in HEAD_METRICS
        if self.head is not None and not of_head:
            raise ValueError(f"'head' is for the metrics {' and '.join(HEAD_METRICS)}, not for {self.metric}")
        if of_head and (self.slice is not None or self.against != "champion"):
            raise ValueError(f"'{self.metric}' of a head is held against the champion, without 'slice'")
        if self.slice is not None and self.metric.startswith("coverage"):
            raise ValueError("coverage has no slices")
        return self

    @model_validator(mode="after")
    def _significance_needs_requests(self) -> Self:
        whole = self.metric in HEAD_METRICS or self.metric in ESTIMATORS or self.metric.startswith("coverage")
        if self.significant and whole:
            raise ValueError(f"'significant' needs a metric that every request has, such as ndcg@10, not {self.metric}")
        return self
