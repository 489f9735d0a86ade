"""Off-policy evaluation of a model from the log of the policy that was served.

The steps: `logged_slates` reads what a canvas showed and what came of it, `weigh` gives every logged title its
probability under the model, `off_policy_report` estimates. See docs/guide/off_policy.md for which estimator to trust.

Of a trained model: its canvas or rows, and only requests that its training did not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from playbill.definitions.specs import RowSpec
from playbill.definitions.specs.measures import ESTIMATORS
from playbill.errors import ComparisonError, ConfigError, EffectiveSampleError, OverlapError, UnknownNameError
from playbill.evaluation.canvases.loaded_version import OpenModel
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.event_log import EvaluationTables, EventLog, TitleOrder
from playbill.evaluation.cases.score_function import MemberFeatures
from playbill.evaluation.measure import Progress
from playbill.evaluation.off_policy.direct_models import DirectKind
from playbill.evaluation.off_policy.estimate import Rules, estimate
from playbill.evaluation.off_policy.importance_log import GROUPS, ImportanceLog, LogContext, combine, weigh
from playbill.evaluation.off_policy.logged_slates import (
    LoggedSlates,
    Outcome,
    OutcomeRule,
    WithoutPropensity,
    logged_slates,
    played_outcome,
    reward_outcome,
)
from playbill.evaluation.off_policy.report import Estimated, GroupEstimate, OffPolicyReport
from playbill.evaluation.off_policy.target_policies import SoftmaxPolicy, TargetPolicy, TopPolicy, place_by_place
from playbill.evaluation.off_policy.terms import OffPolicyData
from playbill.metrics import Interval

__all__ = [
    "GROUPS",
    "GroupEstimate",
    "ImportanceLog",
    "LogContext",
    "LoggedSlates",
    "OffPolicyReport",
    "Outcome",
    "OutcomeRule",
    "SoftmaxPolicy",
    "TargetPolicy",
    "TopPolicy",
    "check_names",
    "combine",
    "logged_slates",
    "off_policy_report",
    "place_by_place",
    "played_outcome",
    "reward_outcome",
    "suited_estimators",
    "weigh",
]

ROW_ESTIMATORS = ("ips", "clipped_ips", "snips")
SLATE_ESTIMATORS = ("slate", "slate_snips", "slate_independent")
_WITH_DIRECT = {"rows": ("doubly_robust", "self_normalised_dr", "switch_dr"), "slates": ("slate_dr",)}
MINIMUM_MEMBERS = 30


def suited_estimators(log: ImportanceLog) -> tuple[str, ...]:
    """Return the estimators that suit a log: over rows where every slate has one title, else over slates."""
    several = bool((log.data.positions > 0).any())
    names, more = (SLATE_ESTIMATORS, _WITH_DIRECT["slates"]) if several else (ROW_ESTIMATORS, _WITH_DIRECT["rows"])
    return (*names, *more) if log.data.predicted is not None else names


def off_policy_report(
    log: ImportanceLog,
    *,
    estimators: Sequence[str] | None = None,
    main: str | None = None,
    slices: Sequence[str] = ("country", "canvas"),
    rules: Rules | None = None,
    minimum_members: int = MINIMUM_MEMBERS,
) -> OffPolicyReport:
    """Estimate what a model's policy would have earned, on the whole and by group.

    An estimator under the floor, or of a policy that the log hardly tried, is refused and says so in the report;
    groups are refused in the same way.

    `estimators` are all over rows or all over slates (None = those that suit the log); slices, of `GROUPS`, are read by
    `main` (None = `snips` or `slate_snips`). A slice with one group, and groups of fewer members, are left out.

    Raises:
        UnknownNameError: No such estimator or slice.
        ConfigError: Estimators over rows and over slates in one report.
        DataError: The rows cannot be used.
    """
    names = tuple(estimators or suited_estimators(log))
    chosen = main or next((name for name in ("snips", "slate_snips") if name in names), names[0])
    names = names if chosen in names else (*names, chosen)
    check_names(names, slices)
    judged = rules or Rules()
    by_slate = names[0].startswith("slate")
    return OffPolicyReport(
        model=log.model,
        policy=log.policy,
        canvases=tuple(log.groups["canvas"].unique(maintain_order=True).to_list()),
        outcome=log.outcome,
        version=log.version,
        unit="slate" if by_slate else "title shown",
        main=chosen,
        slates=int(np.unique(log.data.slates).size),
        rows=len(log.data),
        members=int(np.unique(log.data.members).size),
        immature=log.data.immature,
        without_propensity=log.without_propensity,
        outside=log.outside,
        direct_fit=log.direct_fit,
        floor=judged.floor,
        logged=_logged(log.data, by_slate, judged),
        estimates=tuple(_one(name, log.data, judged) for name in names),
        groups=_by_group(log, chosen, slices, judged, minimum_members),
    )


def check_names(names: Sequence[str], slices: Sequence[str] = ()) -> None:
    """Check estimators and slices before anything is read.

    Raises:
        UnknownNameError: No such estimator or slice.
        ConfigError: Estimators over rows and over slates in one report.
    """
    for name in names:
        if name not in ESTIMATORS:
            raise UnknownNameError(ESTIMATORS.kind, name, ESTIMATORS.names())
    for name in slices:
        if name not in GROUPS:
            raise UnknownNameError("slice", name, GROUPS)
    if len({name.startswith("slate") for name in names}) > 1:
        raise ConfigError(
            f"{', '.join(names)}: some estimate a slate's value and some a single title's; ask for one kind at a time"
        )


def _one(name: str, data: OffPolicyData, rules: Rules) -> Estimated:
    try:
        found = estimate(name, data, rules=rules)
        against = estimate(name, data, rules=rules, against_logged=True)
    except (EffectiveSampleError, OverlapError) as error:
        return Estimated(name, None, None, error.effective, str(error))
    return Estimated(name, found, against.interval, found.effective_sample_size)


def _logged(data: OffPolicyData, by_slate: bool, rules: Rules) -> Interval:
    """What the logging policy earned: the same estimators with every weight 1."""
    same = replace(data, target=data.logged, predicted=None, expected=None)
    found = estimate("slate" if by_slate else "ips", same, rules=replace(rules, floor=0.0, coverage=0.0))
    return found.interval


def _by_group(
    log: ImportanceLog, main: str, slices: Sequence[str], rules: Rules, minimum: int
) -> tuple[GroupEstimate, ...]:
    found = []
    for name in slices:
        values = log.groups[name]
        groups = sorted(values.unique().to_list())
        for group in groups if len(groups) > 1 else ():
            part = log.keep((values == group).to_numpy())
            members = int(np.unique(part.data.members).size)
            if members >= minimum:
                logged = _logged(part.data, main.startswith("slate"), rules)
                found.append(GroupEstimate(name, group, members, logged, _one(main, part.data, rules)))
    return tuple(sorted(found, key=_order))


def _order(row: GroupEstimate) -> tuple[bool, float]:
    difference = row.estimated.difference
    return (difference is None, 0.0 if difference is None else difference.value)


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of a log is weighed."""

    # Only these rows of the page. One row that the model knows is judged by its own rule and blend.
    rows: tuple[str, ...] = ()
    places: int | None = None  # only the first places of each list; None = all
    most: int | None = None  # lists at most, whole members drawn; None = all
    since: datetime | None = None  # only later requests; None = what training held out
    # `refuse` a log with missing propensities, or `drop` those requests
    without_propensity: WithoutPropensity = "refuse"
    direct: DirectKind | None = "ridge"  # direct model for the doubly robust estimators; None = none


def log_context(model: OpenModel, frames: EvaluationTables) -> LogContext:
    """Return tables, events and titles as the model's split sees them."""
    catalogue = TitleOrder.of(frames.titles["title_id"].to_list())
    return LogContext(frames, EventLog.of(frames.interactions, model.trained, catalogue), catalogue)


def weigh_model(
    model: OpenModel,
    scene: LogContext,
    features: MemberFeatures | None,
    canvas: str,
    policy: TargetPolicy,
    outcome: OutcomeRule,
    options: LogOptions | None = None,
    *,
    progress: Progress | None = None,
) -> ImportanceLog:
    """Weigh what a canvas showed for a trained model; see `log_context` for the scene, and `weigh`.

    Raises:
        UnknownNameError: The model does not serve the canvas.
        ComparisonError: The model has seen what came of the requests asked for.
        ConfigError: Several rows with rules of their own at once.
        StateError: Nothing was logged there.
        DataError: Propensities that cannot be used.
    """
    wanted = options or LogOptions()
    spec = model.resolved.canvas(canvas)
    if spec.target == "row":
        raise ConfigError(f"canvas '{canvas}' ranks rows; off-policy estimates are about lists of titles")
    scorer = CanvasScorer(model.scorer, model.resolved, canvas, features)
    row = _row(model, wanted.rows)
    if row is not None and row.blend is not None:
        scorer.canvas = spec.model_copy(update={"blend": row.blend})
    logged = logged_slates(
        scene.tables,
        canvas,
        outcome,
        rows=wanted.rows or None,
        places=wanted.places,
        since=held_out_since(model, wanted.since),
        most=wanted.most,
        without_propensity=wanted.without_propensity,
    )
    return weigh(
        logged,
        scorer,
        policy,
        scene,
        spec,
        name=model.resolved.model.name,
        candidates=None if row is None else row.candidates,
        direct=wanted.direct,
        progress=progress,
    )


def held_out_since(model: OpenModel, requested: datetime | None = None) -> datetime:
    """Return the moment from which the log was not in the model's training data, or a later one that is asked for.

    Raises:
        ComparisonError: It was trained under a protocol that holds out no period, or on a part of what is asked for.
    """
    name, cutoff = model.resolved.model.name, model.trained.cutoff
    if cutoff is None:
        raise ComparisonError(
            f"'{name}' was trained under '{model.trained.protocol}', which holds out no period: it has seen what came "
            "of these requests. Train it with evaluate: {protocol: global_time}"
        )
    if requested is not None and requested < cutoff:
        raise ComparisonError(
            f"'{name}' was trained on events up to {cutoff.isoformat()}; {requested.isoformat()} is before that, and "
            "it has seen what came of those requests"
        )
    return requested or cutoff


def _row(model: OpenModel, rows: tuple[str, ...]) -> RowSpec | None:
    known = [model.resolved.rows[row] for row in rows if row in model.resolved.rows]
    if len(known) > 1:
        names = ", ".join(row.name for row in known)
        raise ConfigError(f"rows {names} have rules of their own; weigh one at a time")
    return known[0] if known else None
