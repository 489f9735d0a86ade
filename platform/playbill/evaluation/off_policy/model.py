"""Off-policy evaluation of a trained model: its canvas or rows, and only requests that its training did not see."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from playbill.definitions.specs import CandidatesSpec, RowSpec
from playbill.errors import ComparisonError, ConfigError
from playbill.evaluation.canvases.loaded_version import OpenModel
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.data import EvaluationTables
from playbill.evaluation.cases.event_log import EventLog
from playbill.evaluation.cases.member_features import MemberFeatures
from playbill.evaluation.cases.order import TitleOrder
from playbill.evaluation.measure import Progress
from playbill.evaluation.off_policy.direct_models import DirectKind
from playbill.evaluation.off_policy.importance_log import Scene, weigh
from playbill.evaluation.off_policy.logged_slates import WithoutPropensity, logged_slates
from playbill.evaluation.off_policy.outcome import OutcomeRule
from playbill.evaluation.off_policy.target_policies import TargetPolicy
from playbill.evaluation.off_policy.weighed import PolicyLog


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of a log is weighed.

    Args:
        rows: Only these rows of the page. One row that the model knows is judged by its own rule and blend.
        places: Only the first places of each list; None = all.
        most: Lists at most, whole members drawn; None = all.
        since: Only later requests; None = what training held out.
        without_propensity: `refuse` a log with missing propensities, or `drop` those requests.
        direct: Direct model for the doubly robust estimators; None = none.
    """

    rows: tuple[str, ...] = ()
    places: int | None = None
    most: int | None = None
    since: datetime | None = None
    without_propensity: WithoutPropensity = "refuse"
    direct: DirectKind | None = "ridge"


def scene_of(model: OpenModel, frames: EvaluationTables) -> Scene:
    """Return tables, events and titles as the model's split sees them."""
    catalogue = TitleOrder.of(frames.titles["title_id"].to_list())
    return Scene(frames, EventLog.of(frames.interactions, model.trained, catalogue), catalogue)


def weigh_model(
    model: OpenModel,
    scene: Scene,
    features: MemberFeatures | None,
    canvas: str,
    policy: TargetPolicy,
    outcome: OutcomeRule,
    options: LogOptions | None = None,
    *,
    progress: Progress | None = None,
) -> PolicyLog:
    """Weigh what a canvas showed for a trained model.

    Args:
        model: The model.
        scene: See `scene_of`.
        features: The feature door; None = every feature is missing.
        canvas: A canvas of the model.
        policy: How scores become what is shown.
        outcome: What impressions were worth.
        options: Which part of the log.
        progress: Called after every chunk of slates.

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
    candidates: CandidatesSpec | None = None
    if row is not None:
        candidates = row.candidates
        if row.blend is not None:
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
    name = model.resolved.model.name
    return weigh(
        logged,
        scorer,
        policy,
        scene,
        spec,
        name=name,
        candidates=candidates,
        direct=wanted.direct,
        progress=progress,
    )


def held_out_since(model: OpenModel, asked: datetime | None = None) -> datetime:
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
    if asked is not None and asked < cutoff:
        raise ComparisonError(
            f"'{name}' was trained on events up to {cutoff.isoformat()}; {asked.isoformat()} is before that, and it "
            "has seen what came of those requests"
        )
    return asked or cutoff


def _row(model: OpenModel, rows: tuple[str, ...]) -> RowSpec | None:
    known = [model.resolved.rows[row] for row in rows if row in model.resolved.rows]
    if len(known) > 1:
        names = ", ".join(row.name for row in known)
        raise ConfigError(f"rows {names} have rules of their own; weigh one at a time")
    return known[0] if known else None
