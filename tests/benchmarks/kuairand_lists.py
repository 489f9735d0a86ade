"""Whole-catalogue lists: where each system puts what a member watched for long, surface by surface.

A request is asked at every held-out exposure of a surface that the surface's metric calls positive, in the state before
it; every title of the catalogue competes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from kuairand_models import Blend, Service, Trained

from playbill.errors import StateError
from playbill.evaluation import EvaluationReport, build_case, compare_arms
from playbill.evaluation.baselines.popularity import build_baseline
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.score_function import ScoreFunction
from playbill.evaluation.evaluate import evaluate_case
from playbill.evaluation.metric_aggregation import Judging

METRICS = ("ndcg@10", "hr@10")
BASELINES = ("popular", "popular_7d", "ease")
PROTOCOL = "global_time_successive"
ARMS = ("multi", "single")


def surface_cases(service: Service, minimum_members: int, most: int) -> Iterator[tuple[str, EvaluationCase | str]]:
    """Yield each surface with its held-out requests, or with why it cannot be measured.

    Args:
        service: Tables, split and definition.
        minimum_members: Surfaces with fewer are left out.
        most: Requests at most, whole members drawn at random.
    """
    split, log = service.split.under(PROTOCOL), None
    for surface in service.resolved.canvases:
        try:
            case = build_case(service.frames, split, service.resolved, surface, log=log)
        except StateError as error:
            yield surface, str(error)
            continue
        log = case.log
        own = _some(case, (case.frame["canvas"] == surface).to_numpy(), most)
        members = own.frame["member_id"].n_unique()
        few = f"{members} members with a positive held-out exposure, fewer than {minimum_members}"
        yield surface, own if members >= minimum_members else few


def _some(case: EvaluationCase, wanted: np.ndarray, most: int) -> EvaluationCase:
    """Keep the wanted requests of as many members as have at most so many."""
    members = case.frame.filter(wanted).group_by("member_id").len().sort("member_id")
    drawn = members.sample(fraction=1.0, shuffle=True, seed=0)
    kept = case.frame["member_id"].is_in(drawn.filter(drawn["len"].cum_sum() <= most)["member_id"].implode())
    return case.keep((wanted & kept.to_numpy())[case.rows])


def reports_of(
    service: Service,
    models: Mapping[str, Sequence[Trained]],
    cases: Mapping[str, EvaluationCase | str],
    *,
    baselines: bool,
) -> dict[str, EvaluationReport]:
    """Return surface -> what both arms of one seed reached, and the baselines, which are the same for every seed."""
    measurable = {surface: case for surface, case in cases.items() if isinstance(case, EvaluationCase)}
    # Fitted on the train fold, so one fit serves every surface.
    first = next(iter(measurable.values()), None)
    fitted = {name: build_baseline(name, first) for name in BASELINES if baselines and first is not None}
    found = {}
    for surface, case in measurable.items():
        (name, function), *others = _systems(service, surface, models).items()
        beside = {**dict(others), **fitted}
        found[surface] = evaluate_case(case, name, function, beside, judging=Judging(slices=(), resamples=500))
    return found


def _systems(service: Service, surface: str, models: Mapping[str, Sequence[Trained]]) -> dict[str, ScoreFunction]:
    """Return what is compared on a surface: its blend, and the head of it that ranks, of both arms."""
    blend = service.resolved.canvas(surface).blend
    main = max(blend, key=lambda head: blend[head])
    wanted = {"blend": blend} | ({main: {main: 1.0}} if len(blend) > 1 else {})
    return {
        f"{what} of {arm}": Blend(models[arm], service.resolved, weights)
        for what, weights in wanted.items()
        for arm in ARMS
    }


def compared_lists(seeds: Sequence[Mapping[str, EvaluationReport]], resamples: int) -> dict[str, Any]:
    """Return surface -> what every system reached, and one model minus one per head, over members and seeds.

    Args:
        seeds: [S] surface -> the report of one seed.
        resamples: Bootstrap draws of members.
    """
    found: dict[str, Any] = {}
    for surface, first in seeds[0].items():
        rows = [row for row in first.rows if row.name in BASELINES]
        found[surface] = {"requests": first.n, "members": first.members}
        found[surface] |= {row.name: {metric: list(row.metrics[metric]) for metric in METRICS} for row in rows}
        kinds = [row.name.removesuffix(" of multi") for row in first.rows if row.name.endswith(" of multi")]
        for kind in kinds:
            arms = {f"{kind} of {arm}": [_as(one[surface], f"{kind} of {arm}") for one in seeds] for arm in ARMS}
            pair = compare_arms(arms, resamples=resamples)
            (difference,) = pair.differences
            both = {row.name: {metric: list(row.metrics[metric]) for metric in METRICS} for row in pair.rows}
            minus = {metric: list(difference.metrics[metric]) for metric in METRICS}
            found[surface] |= {**both, f"{kind}: multi minus single": {**minus, "claims": list(difference.claims)}}
    return found


def _as(report: EvaluationReport, name: str) -> EvaluationReport:
    """Return the report of another of its rows, alone."""
    return replace(report, model=name, rows=tuple(row for row in report.rows if row.name == name))
