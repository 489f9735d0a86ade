"""From values per request to a report: means, differences and slices with intervals from the same draws of members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from playbill import metrics
from playbill.arrays import Floats64, Ints64, Mask
from playbill.definitions.specs.measures import lower_is_better
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.slices import MADE_SLICES, SLICES, readable_slices
from playbill.evaluation.measure import Measured
from playbill.evaluation.report import CEILING, Difference, EvaluationReport, ScoredRow, SliceRow, WindowRow
from playbill.metrics import Interval, MemberBootstrap
from playbill.metrics.bootstrap import DEFAULT_RESAMPLES
from playbill.metrics.comparisons import Method

if TYPE_CHECKING:  # row cases are measured with this module
    from playbill.evaluation.canvases.row_cases import RowCase

MINIMUM_MEMBERS = 30  # members below which a group has a size and no numbers
_MINUS = "minus"
_Key = tuple[str, str, str]


class Judging(NamedTuple):
    """How intervals and slices are made."""

    slices: tuple[str, ...] = SLICES  # groups that are measured apart
    minimum_members: int = MINIMUM_MEMBERS  # members that a group needs to be read
    resamples: int = DEFAULT_RESAMPLES  # bootstrap draws
    seed: int = 0  # of the draws
    strict: bool = False  # a slice that cannot be read is an error instead of a note in the report


class _MetricColumn(NamedTuple):
    values: Floats64
    weights: Floats64


class Judge:
    """Judges the first of some measured functions against the others.

    `members` [N] are dense codes from 0, `measured` has the model first; slices are ordered by `main_metric`.
    """

    def __init__(self, members: Ints64, measured: Mapping[str, Measured], judging: Judging, main_metric: str) -> None:
        self.bootstrap = MemberBootstrap(members, judging.resamples, judging.seed)
        self.measured, self.judging, self.main_metric = measured, judging, main_metric
        self.model, *self.baselines = measured
        names = [set(found.values) for found in measured.values()]
        self.metrics = [name for name in measured[self.model].values if all(name in known for known in names)]

    def rows(self) -> tuple[ScoredRow, ...]:
        """Return the model and every baseline over all requests."""
        columns = {("", name, metric): self._own(name, metric) for name in self.measured for metric in self.metrics}
        found, _ = self._judged(columns)
        return tuple(
            ScoredRow(name, {metric: found["", name, metric] for metric in self.metrics}, measured.coverage)
            for name, measured in self.measured.items()
        )

    def differences(self) -> tuple[Difference, ...]:
        """Return the model minus each baseline, with p-values that know how many baselines there are."""
        keys = [(_MINUS, name, metric) for name in self.baselines for metric in self.metrics]
        found, p = self._judged({key: self._minus(*key[1:]) for key in keys})
        adjusted: dict[_Key, float] = {}
        for metric in self.metrics:
            adjusted |= _adjusted({key: p[key] for key in keys if key[2] == metric}, "holm")
        return tuple(
            Difference(
                name,
                {metric: found[_MINUS, name, metric] for metric in self.metrics},
                {metric: adjusted[_MINUS, name, metric] for metric in self.metrics},
            )
            for name in self.baselines
        )

    def slices(self, frame: pl.DataFrame, names: Sequence[str]) -> tuple[SliceRow, ...]:
        """Return every group of some slices, worst first; behind them those that are too small, without numbers."""
        sign = -1.0 if lower_is_better(self.main_metric) else 1.0
        rows = self._with_adjusted_p([row for name in names for row in self._groups(frame, name)])
        large = sorted(
            (row for row in rows if not row.small), key=lambda row: sign * row.metrics[self.main_metric].value
        )
        small = sorted((row for row in rows if row.small), key=lambda row: -row.members)
        return (*large, *small)

    def _with_adjusted_p(self, rows: Sequence[SliceRow]) -> list[SliceRow]:
        """Correct the p-values of all groups for their number: looking at many, some would stand out by chance."""
        p = {("", str(place), name): one for place, row in enumerate(rows) for name, one in row.adjusted_p.items()}
        found = _adjusted(p, "benjamini_hochberg")
        return [
            replace(row, adjusted_p={name: found["", str(place), name] for name in row.adjusted_p})
            for place, row in enumerate(rows)
        ]

    def _own(self, name: str, metric: str) -> _MetricColumn:
        found = self.measured[name]
        values = found.values[metric]
        return _MetricColumn(values, found.weights.get(metric, np.ones(values.size)))

    def _minus(self, baseline: str, metric: str) -> _MetricColumn:
        ours = self._own(self.model, metric)
        return _MetricColumn(ours.values - self.measured[baseline].values[metric], ours.weights)

    def _judged(self, columns: Mapping[_Key, _MetricColumn]) -> tuple[dict[_Key, Interval], dict[_Key, float]]:
        if not columns:
            return {}, {}
        intervals, p = self.bootstrap.judged(*_stacked(list(columns.values())))
        return dict(zip(columns, intervals, strict=True)), dict(zip(columns, p.tolist(), strict=True))

    def _groups(self, frame: pl.DataFrame, name: str) -> list[SliceRow]:
        labels = frame[name].fill_null("unknown").to_numpy()
        masks = {str(group): labels == group for group in np.unique(labels.astype(str))}
        keyed = {("", metric): self._own(self.model, metric) for metric in self.metrics}
        keyed |= {(_MINUS, baseline): self._minus(baseline, self.main_metric) for baseline in self.baselines}
        sizes = {group: int(np.unique(self.bootstrap.members[mask]).size) for group, mask in masks.items()}
        found, p = self._judged(
            {
                (group, *key): _MetricColumn(np.where(mask, column.values, np.nan), column.weights)
                for group, mask in masks.items()
                if sizes[group] >= self.judging.minimum_members
                for key, column in keyed.items()
            }
        )
        return [self._slice_row(name, group, mask, sizes[group], found, p) for group, mask in masks.items()]

    def _slice_row(
        self, name: str, group: str, mask: Mask, members: int, found: Mapping[_Key, Interval], p: Mapping[_Key, float]
    ) -> SliceRow:
        """Return one group; here `adjusted_p` is still the p-value of each difference alone."""
        small = members < self.judging.minimum_members
        own = {} if small else {metric: found[group, "", metric] for metric in self.metrics}
        against = {} if small else {baseline: found[group, _MINUS, baseline] for baseline in self.baselines}
        return SliceRow(
            slice=name,
            group=group,
            requests=int(mask.sum()),
            members=members,
            small=small,
            metrics={metric: one for metric, one in own.items() if not np.isnan(one.value)},
            differences=against,
            adjusted_p={baseline: p[group, _MINUS, baseline] for baseline in against},
        )


def _stacked(columns: Sequence[_MetricColumn]) -> tuple[Floats64, Floats64]:
    values = np.stack([column.values for column in columns], axis=1)
    return values, np.stack([column.weights for column in columns], axis=1)


def _adjusted(p: Mapping[_Key, float], method: Method) -> dict[_Key, float]:
    return dict(zip(p, metrics.adjust_p(list(p.values()), method).tolist(), strict=True))


class ReportContext(NamedTuple):
    """What a report says beside its numbers."""

    slices: tuple[str, ...]  # those that can be read
    notes: tuple[str, ...]  # what cannot be measured, and why
    windows: tuple[WindowRow, ...] = ()  # of a replay
    reward: str | None = None  # version of the reward behind `reward_ndcg`; None without one


def report_context(frame: pl.DataFrame, judging: Judging) -> ReportContext:
    """Find out which slices can be read, before anything long is begun.

    Raises:
        UnknownNameError: A name is no slice.
        StateError: A slice that must be read cannot be.
    """
    return ReportContext(*readable_slices(frame, judging.slices, judging.minimum_members, strict=judging.strict))


def report_of(
    case: EvaluationCase | RowCase,
    measured: Mapping[str, Measured],
    k: Sequence[int],
    judging: Judging,
    context: ReportContext,
) -> EvaluationReport:
    """Judge the first of some measured functions against the others; one called `CEILING` is compared with nothing."""
    members = case.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    judged = {name: found for name, found in measured.items() if name != CEILING}
    judge = Judge(members, judged, judging, f"ndcg@{k[0]}")
    truth = {CEILING: measured[CEILING]} if CEILING in measured else {}
    return EvaluationReport(
        model=judge.model,
        protocol=case.protocol,
        split_digest=case.split_digest,
        case_digest=case.digest,
        canvas=case.canvas,
        fold=case.fold,
        main_metric=judge.main_metric,
        n=case.frame.height,
        members=int(members.max()) + 1,
        catalogue=len(case.catalogue),
        left_out=case.left_out,
        minimum_members=judging.minimum_members,
        resamples=judging.resamples,
        seed=judging.seed,
        level=judge.bootstrap.level,
        reward=context.reward,
        rows=judge.rows(),
        differences=judge.differences(),
        slices=judge.slices(case.frame, context.slices),
        windows=context.windows,
        notes=context.notes,
        ceiling=Judge(members, truth, judging, judge.main_metric).rows()[0] if truth else None,
        requests=_requests(case.frame, measured),
    )


def _requests(frame: pl.DataFrame, measured: Mapping[str, Measured]) -> pl.DataFrame:
    kept = [
        column
        for column in ("request_id", "member_id", *SLICES, *MADE_SLICES, "query")
        if column in frame.columns and frame[column].null_count() < frame.height
    ]
    model = next(iter(measured.values()))
    weights = pl.DataFrame({f"weight/{name}": weight for name, weight in model.weights.items()})
    frames = [frame.select(kept), weights, *(found.frame(name) for name, found in measured.items())]
    return pl.concat([one for one in frames if one.width], how="horizontal")
