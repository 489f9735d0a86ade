"""Off-policy estimates from random exposures, beside what a plain mean over the standard log would say.

Some exposures of KuaiRand were drawn alike from a pool of videos and put into the feed (`is_rand`), so their
propensity is known. Every policy here shows any of its best `top` titles, evenly. Its value is the mean outcome of
random exposures, weighed by how much likelier the policy shows the title than the draw did (IPS, SNIPS). The standard
log was chosen by the service's own recommender with chances nobody knows: the same mean over it is printed beside,
as an answer to another question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from kuairand_models import Service

from playbill.arrays import Mask
from playbill.errors import EffectiveSampleError, OverlapError, StateError
from playbill.evaluation import EvaluationTables
from playbill.evaluation.cases.event_log import EventLog, TitleOrder
from playbill.evaluation.cases.score_function import ScoreFunction
from playbill.evaluation.off_policy.estimate import Rules, estimate
from playbill.evaluation.off_policy.evaluate import LogContext, LoggedSlates, OutcomeRule, logged_slates, weigh
from playbill.evaluation.off_policy.terms import OffPolicyData
from playbill.metrics import MemberBootstrap

ESTIMATORS = ("ips", "snips")
STANDARD, RANDOM = "standard log", "random exposures"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AnyOfTop:
    """Shows any of the best titles, evenly.

    Args:
        top: How many.
    """

    top: int

    @property
    def name(self) -> str:
        """`any of top(N)`."""
        return f"any of top({self.top})"

    def distribution(self, scores: Floats, left: Mask) -> Floats:
        """Return 1 / top for the best titles left; of equals the first columns are best."""
        ranked = np.argsort(np.where(left, -scores, np.inf), axis=1, kind="stable")[:, : self.top]
        chosen = np.zeros(scores.shape)
        np.put_along_axis(chosen, ranked, 1.0, axis=1)
        chosen *= left
        total = chosen.sum(axis=1, keepdims=True)
        return np.divide(chosen, total, out=np.zeros_like(chosen), where=total > 0)


def off_policy(
    service: Service,
    surface: str,
    policies: Mapping[str, ScoreFunction],
    outcomes: Mapping[str, OutcomeRule],
    *,
    since: datetime,
    top: int,
    most: int,
    floor: float,
) -> dict[str, Any]:
    """Return outcome -> policy -> estimates on a surface, from exposures that no model was trained on.

    Args:
        service: Tables and definition.
        surface: The canvas.
        policies: Name -> what ranks the titles.
        outcomes: Name -> what an exposure was worth.
        since: Only later exposures.
        top: Titles that a policy chooses among.
        most: Exposures at most, whole members drawn.
        floor: Effective sample size under which nothing is estimated.
    """
    frames = service.frames
    catalogue = TitleOrder.of(frames.titles["title_id"].to_list())
    scene = LogContext(frames, EventLog.of(frames.interactions, service.split, catalogue), catalogue)
    shown = frames.interactions.filter(
        (pl.col("action") == "impression") & (pl.col("canvas") == surface) & (pl.col("event_at") >= since)
    )
    found: dict[str, Any] = {
        "surface": surface,
        "random_exposures": shown["propensity"].count(),
        "standard_exposures": shown["propensity"].null_count(),
        "outcomes": {},
    }
    sources = {RANDOM: (frames, partial(_estimates, floor=floor)), STANDARD: (_as_if_drawn(service), _plain_means)}
    for outcome, rule in outcomes.items():
        own: dict[str, Any] = {}
        for source, (tables, judge) in sources.items():
            try:
                logged = logged_slates(tables, surface, rule, since=since, most=most, without_propensity="drop")
            except StateError as error:
                own[source] = {"refused": str(error)}
                continue
            own[source] = _judged(service, surface, scene, logged, policies, top, judge)
        found["outcomes"][outcome] = own
    return found


def _as_if_drawn(service: Service) -> EvaluationTables:
    """Return the tables with one propensity for every standard exposure and none for the random ones."""
    swapped = pl.when(pl.col("propensity").is_null()).then(pl.lit(1.0, dtype=pl.Float32))
    return replace(service.frames, interactions=service.frames.interactions.with_columns(propensity=swapped))


def _judged(
    service: Service,
    surface: str,
    scene: LogContext,
    logged: LoggedSlates,
    policies: Mapping[str, ScoreFunction],
    top: int,
    judge: Callable[[OffPolicyData], dict[str, Any]],
) -> dict[str, Any]:
    """Return what was earned, and what is said of each policy."""
    canvas = service.resolved.canvas(surface)
    found: dict[str, Any] = {"exposures": len(logged), "policies": {}}
    for name, function in policies.items():
        log = weigh(logged, function, AnyOfTop(top), scene, canvas, name=name, direct=None)
        found["mean"] = float(log.data.reward.mean())
        found["policies"][name] = judge(log.data)
    return found


def _estimates(data: OffPolicyData, floor: float) -> dict[str, Any]:
    return {estimator: _estimate(estimator, data, floor) for estimator in ESTIMATORS}


def _estimate(estimator: str, data: OffPolicyData, floor: float) -> dict[str, Any]:
    try:
        one = estimate(estimator, data, rules=Rules(floor=floor))
    except (EffectiveSampleError, OverlapError) as error:
        return {"refused": str(error), "effective_sample_size": error.effective}
    return {
        "value": one.value,
        "interval": [one.low, one.high],
        "effective_sample_size": one.effective_sample_size,
        "weight_max": one.weight_max,
    }


def _plain_means(data: OffPolicyData) -> dict[str, Any]:
    """Return the mean outcome of exposures whose title the policy would show: no estimate of its value."""
    shown = data.target > 0
    (mean,) = MemberBootstrap(data.members).intervals(data.reward[:, None], data.target[:, None])
    return {"plain_mean": {"value": mean.value, "interval": [mean.low, mean.high], "exposures": int(shown.sum())}}
