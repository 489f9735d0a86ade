"""Measures a score function and its baselines on a case, with intervals and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from playbill.datasets import Split
from playbill.evaluation.baselines import build_baseline
from playbill.evaluation.build import build_case
from playbill.evaluation.cases import EvaluationCase, Fold, TargetRule
from playbill.evaluation.data import EvaluationTables, as_frames
from playbill.evaluation.measure import Measured, Progress, measure
from playbill.evaluation.report import Difference, EvaluationReport, ScoredRow, SliceRow
from playbill.evaluation.scoring import ScoreFunction
from playbill.evaluation.slices import SLICES, check_slices
from playbill.metrics import Interval, MemberBootstrap
from playbill.metrics.bootstrap import DEFAULT_RESAMPLES
from playbill.metrics.ranking import Values
from playbill.metrics.topk import Mask
from playbill.specs import ResolvedModel
from playbill.tables import Tables

DEFAULT_BASELINES = ("popular", "popular_7d", "ease")
MINIMUM_MEMBERS = 30
"""Members below which a slice is shown but never judged."""
_MINUS = "minus"
_Key = tuple[str, str, str]


class Judging(NamedTuple):
    """How intervals and slices are made."""

    slices: tuple[str, ...] = SLICES
    minimum_members: int = MINIMUM_MEMBERS
    resamples: int = DEFAULT_RESAMPLES
    seed: int = 0


def evaluate(
    function: ScoreFunction,
    split: Split,
    tables: Tables | EvaluationTables,
    resolved: ResolvedModel,
    canvas: str,
    *,
    k: Sequence[int] = (10,),
    baselines: Sequence[str] = DEFAULT_BASELINES,
    fold: Fold = "test",
    targets: TargetRule = "last",
    judging: Judging | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Measure a model on one canvas of a protocol's held-out fold.

    Args:
        function: The model's blended scores for this canvas.
        split: Folds of events, frozen.
        tables: The canonical tables, or their frames when several canvases are measured in turn.
        resolved: The model's definition.
        canvas: Canvas to ask.
        k: Cut-offs; the first one is that of the main metric.
        baselines: Registered baselines to stand beside it.
        fold: Fold that is held out.
        targets: How held-out positives become requests.
        judging: Slices, their minimum, and the bootstrap.
        name: What the model is called in the report (default: its name in the zoo).
        progress: Told after every chunk of requests.

    Raises:
        UnknownNameError: An unknown canvas, baseline, slice or target rule.
        StateError: Nothing held out can be a target of the canvas.
        IntegrityError: The function returned something that is no score.
    """
    case = build_case(as_frames(tables), split, resolved, canvas, fold=fold, targets=targets)
    others = {baseline: build_baseline(baseline, case) for baseline in dict.fromkeys(baselines)}
    return evaluate_case(case, name or resolved.model.name, function, others, k=k, judging=judging, progress=progress)


def evaluate_case(
    case: EvaluationCase,
    name: str,
    function: ScoreFunction,
    baselines: Mapping[str, ScoreFunction],
    *,
    k: Sequence[int] = (10,),
    judging: Judging | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Measure a score function beside fitted baselines on a case that is already built.

    Args:
        case: Requests, targets, candidates.
        name: What the function is called in the report.
        function: The scores to judge.
        baselines: Name -> score function.
        k: Cut-offs; the first one is that of the main metric.
        judging: Slices, their minimum, and the bootstrap.
        progress: Told after every chunk of requests.
    """
    judging = judging or Judging()
    slices = check_slices(case.frame, judging.slices)
    measured = measure(case, {name: function, **baselines}, k, progress)
    members = case.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    judge = _Judge(case, measured, MemberBootstrap(members, judging.resamples, judging.seed), f"ndcg@{k[0]}")
    rows, differences = judge.whole()
    return EvaluationReport(
        model=name,
        protocol=case.protocol,
        split_digest=case.split_digest,
        case_digest=case.digest,
        canvas=case.canvas,
        fold=case.fold,
        target_rule=case.target_rule,
        main_metric=judge.main_metric,
        n=len(case),
        members=int(members.max()) + 1,
        catalogue=len(case.catalogue),
        left_out=case.left_out,
        minimum_members=judging.minimum_members,
        resamples=judging.resamples,
        seed=judging.seed,
        level=judge.bootstrap.level,
        rows=rows,
        differences=differences,
        slices=judge.slices(slices, judging.minimum_members),
        requests=_requests(case, measured),
    )


class _Judge:
    """Turns values per request into means, differences and slices with intervals, all from the same draws."""

    def __init__(
        self, case: EvaluationCase, measured: Mapping[str, Measured], bootstrap: MemberBootstrap, main_metric: str
    ) -> None:
        self.case, self.measured, self.bootstrap, self.main_metric = case, measured, bootstrap, main_metric
        self.model, *self.baselines = measured

    def _intervals(self, columns: Mapping[_Key, Values]) -> dict[_Key, Interval]:
        found = self.bootstrap.intervals(np.stack(list(columns.values()), axis=1))
        return dict(zip(columns, found, strict=True))

    def _minus(self, baseline: str) -> dict[str, Values]:
        ours, theirs = self.measured[self.model].values, self.measured[baseline].values
        return {metric: ours[metric] - theirs[metric] for metric in ours}

    def whole(self) -> tuple[tuple[ScoredRow, ...], tuple[Difference, ...]]:
        """Return every row and every difference over all requests."""
        metrics = list(self.measured[self.model].values)
        columns = {
            (kind, name, metric): values[metric]
            for kind, name, values in [
                *(("", name, found.values) for name, found in self.measured.items()),
                *((_MINUS, name, self._minus(name)) for name in self.baselines),
            ]
            for metric in metrics
        }
        found = self._intervals(columns)
        rows = [
            ScoredRow(name, {metric: found["", name, metric] for metric in metrics}, measured.coverage)
            for name, measured in self.measured.items()
        ]
        differences = [
            Difference(name, {metric: found[_MINUS, name, metric] for metric in metrics}) for name in self.baselines
        ]
        return tuple(rows), tuple(differences)

    def slices(self, names: Sequence[str], minimum: int) -> tuple[SliceRow, ...]:
        rows = [row for name in names for row in self._groups(name, minimum)]
        return tuple(sorted(rows, key=lambda row: (row.small, row.metrics[self.main_metric].value)))

    def _groups(self, name: str, minimum: int) -> list[SliceRow]:
        labels = self.case.frame[name].fill_null("unknown").to_numpy()
        masks = {str(group): labels == group for group in np.unique(labels.astype(str))}
        values = self.measured[self.model].values
        keyed = {("", metric): column for metric, column in values.items()}
        keyed |= {(_MINUS, name): self._minus(name)[self.main_metric] for name in self.baselines}
        found = self._intervals(
            {
                (group, kind, key): np.where(mask, column, np.nan)
                for group, mask in masks.items()
                for (kind, key), column in keyed.items()
            }
        )
        return [self._slice_row(name, group, mask, minimum, found) for group, mask in masks.items()]

    def _slice_row(self, name: str, group: str, mask: Mask, minimum: int, found: Mapping[_Key, Interval]) -> SliceRow:
        size = int(np.unique(self.bootstrap.members[mask]).size)
        return SliceRow(
            slice=name,
            group=group,
            requests=int(mask.sum()),
            members=size,
            small=size < minimum,
            metrics={metric: found[group, "", metric] for metric in self.measured[self.model].values},
            differences={baseline: found[group, _MINUS, baseline] for baseline in self.baselines},
        )


def _requests(case: EvaluationCase, measured: Mapping[str, Measured]) -> pl.DataFrame:
    kept = [
        column
        for column in ("request_id", "member_id", "country", "tenure", "title_age", "query_length", "query")
        if column in case.frame.columns and case.frame[column].null_count() < len(case)
    ]
    return pl.concat(
        [case.frame.select(kept), *(found.frame(name) for name, found in measured.items())], how="horizontal"
    )
