"""A trained model under evaluation: features looked up, heads blended, every canvas measured in turn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from playbill.arrays import Floats32
from playbill.datasets import Request, Split
from playbill.definitions.specs import ResolvedModel
from playbill.errors import ConfigError, StateError
from playbill.evaluation.beside import Beside
from playbill.evaluation.canvases.head_probabilities import HeldOutLabels, head_rows, held_out_labels
from playbill.evaluation.canvases.row_orders import RowFunction, RowRanker, evaluate_rows
from playbill.evaluation.canvases.synthetic_queries import MadeOptions, evaluate_more_like_this, evaluate_search
from playbill.evaluation.cases.build import has_log
from playbill.evaluation.cases.case import Fold
from playbill.evaluation.cases.event_log import EvaluationTables, EventLog, as_frames
from playbill.evaluation.cases.score_function import MemberFeatures, ScoreFunction, Scores, with_features
from playbill.evaluation.ceiling import KnownTruth
from playbill.evaluation.evaluate import Replay, evaluate
from playbill.evaluation.measure import Progress
from playbill.evaluation.metric_aggregation import Judging
from playbill.evaluation.report import FIGURES, EvaluationReport
from playbill.ranking.blend import blend_rows, head_losses
from playbill.tables import Tables

if TYPE_CHECKING:  # it imports torch
    from playbill.ranking.scoring.scorer import Scorer

REQUESTS_AT_ONCE = 512
"""Requests handed to the scorer at a time; bounds the [N, T] scores of all heads. It sorts them by length."""

CanvasProgress = Callable[[str, int, int], None]  # called with (canvas, requests done, requests in all)
Measured = Callable[[str, Callable[[], EvaluationReport]], EvaluationReport]
"""Called with a canvas and what measures it; returns its report."""


class CanvasScorer:
    """A model's blended scores on one canvas, with features as of each request's moment, where it has any."""

    def __init__(self, scorer: Scorer, resolved: ResolvedModel, canvas: str, features: MemberFeatures | None) -> None:
        self.scorer, self.canvas, self.features = scorer, resolved.canvas(canvas), features
        self._service, self._losses = resolved.model.features, head_losses(resolved)

    @property
    def title_ids(self) -> Sequence[str]:
        """The titles the model scores."""
        return self.scorer.title_ids

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T] blended scores."""
        scores = np.empty((len(requests), len(self.title_ids)))
        start = 0
        for heads in self._parts(requests, self.canvas.blend):
            # Over every title instead of over candidates: that shifts a request's scores by one constant per head.
            blended = blend_rows(heads, self._losses, self.canvas.blend)
            scores[start : start + len(blended)] = blended
            start += len(blended)
        return scores

    def heads(self, requests: Sequence[Request], names: Collection[str] | None = None) -> dict[str, Floats32]:
        """Return the [N, T] logits of the heads that are named, or of each."""
        parts = list(self._parts(requests, names))
        return {head: np.concatenate([part[head] for part in parts]) for head in parts[0]} if parts else {}

    def _parts(
        self, requests: Sequence[Request], heads: Collection[str] | None = None
    ) -> Iterator[Mapping[str, Floats32]]:
        requested = self.with_features(requests)
        for start in range(0, len(requested), REQUESTS_AT_ONCE):
            part = requested[start : start + REQUESTS_AT_ONCE]
            self.scorer.remember([request.at for request in part])
            yield self.scorer.score(part, heads)

    def with_features(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests with what was known of member and request strictly before each moment."""
        return with_features(requests, self._service, self.features)


def canvas_function(
    scorer: Scorer, resolved: ResolvedModel, canvas: str, features: MemberFeatures | None
) -> ScoreFunction | RowFunction:
    """Return what a model answers with on a canvas: scores of titles, or values of rows where it ranks rows."""
    if resolved.canvas(canvas).target == "row":
        return RowRanker(scorer, resolved, canvas, features)
    return CanvasScorer(scorer, resolved, canvas, features)


@dataclass(frozen=True)
class ModelEvaluation:
    """Every canvas of one model."""

    reports: dict[str, EvaluationReport]  # canvas -> its report
    skipped: dict[str, str] = field(default_factory=dict)  # canvas -> why the log cannot measure it

    def to_polars(self) -> pl.DataFrame:
        """Return the frames of all reports, one below the other, see `EvaluationReport.to_polars`."""
        return pl.concat([pl.DataFrame(schema=FIGURES), *(report.to_polars() for report in self.reports.values())])

    def gate_metrics(self) -> dict[str, float]:
        """Return the flat numbers of every canvas, see `EvaluationReport.gate_metrics`."""
        return {name: value for report in self.reports.values() for name, value in report.gate_metrics().items()}


def evaluate_canvas(
    function: ScoreFunction | RowFunction,
    split: Split,
    tables: Tables | EvaluationTables,
    resolved: ResolvedModel,
    canvas: str,
    *,
    baselines: Sequence[str] | None = None,
    fold: Fold = "test",
    replay: Replay | None = None,
    judging: Judging | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    labels: HeldOutLabels | None = None,
    beside: Beside | None = None,
    truth: KnownTruth | None = None,
) -> EvaluationReport:
    """Measure one canvas in the way its requests call for, with the options of the model's `evaluate`.

    A canvas that the log has held-out targets of is measured under the split's own protocol, asked as it was logged.
    Of those that it has none of, one that reads queries is measured under `made_queries`, one that starts from a
    source title under `co_play_pairs`, and any other at the targets of all canvases. A canvas of rows is measured by
    the rows of held-out pages.

    `function` is that of `canvas_function`; the other arguments are those of `evaluate`. Slices and their minimum are
    by default the model's. `labels` are the heads' in this fold, where they were gathered before for another canvas.

    Raises:
        UnknownNameError: An unknown canvas, baseline or slice.
        ConfigError: Baselines were chosen for a canvas of rows, which has its own.
        StateError: The log cannot measure this canvas.
    """
    wanted = resolved.model.evaluate
    context = resolved.canvas(canvas).context
    judging = judging or Judging(slices=wanted.slices, minimum_members=wanted.minimum_members)
    made: MadeOptions = {"k": wanted.k, "fold": fold, "judging": judging, "name": name, "progress": progress}
    made["log"] = None if labels is None else labels.log
    frames, log = as_frames(tables), made["log"]
    if isinstance(function, RowFunction):
        if baselines is not None:
            raise ConfigError(f"canvas '{canvas}' ranks rows, which have their own baselines; leave baselines out")
        return evaluate_rows(function, split, frames, resolved, canvas, judging=judging, name=name, fold=fold, log=log)
    made["beside"], made["baselines"] = beside, baselines
    if {"query", "source_title"} & set(context) and not has_log(frames, split, resolved, canvas, fold, log):
        measured = evaluate_search if "query" in context else evaluate_more_like_this
        return measured(function, split, frames, resolved, canvas, **made)
    report = evaluate(function, split, frames, resolved, canvas, replay=replay, truth=truth, **made)
    if not isinstance(function, CanvasScorer):
        return report
    found, notes = head_rows(function, split, frames, resolved, canvas, fold=fold, judging=judging, labels=labels)
    return replace(report, heads=found, notes=(*report.notes, *notes))


def evaluate_model(
    scorer: Scorer,
    split: Split,
    tables: Tables | EvaluationTables,
    resolved: ResolvedModel,
    features: MemberFeatures | None,
    *,
    canvases: Sequence[str] | None = None,
    baselines: Sequence[str] | None = None,
    replay: Replay | None = None,
    judging: Judging | None = None,
    name: str | None = None,
    progress: CanvasProgress | None = None,
    truth: KnownTruth | None = None,
    measured: Measured | None = None,
) -> ModelEvaluation:
    """Measure a model on every canvas that the log can say something about.

    Options are those of `evaluate`, `baselines` only for canvases of titles. `measured` is called with each canvas and
    what measures it; it returns the report, from an earlier attempt or anew.

    Raises:
        UnknownNameError: An unknown canvas.
        StateError: The log can measure none of them.
    """
    frames = as_frames(tables)
    labels, beside = held_out_labels(split, frames, resolved, "test"), Beside()
    if truth is not None:
        truth.gather(_acted_in(labels.log))
    reports: dict[str, EvaluationReport] = {}
    skipped: dict[str, str] = {}
    for canvas in canvases or tuple(resolved.canvases):
        spec, function = resolved.canvas(canvas), canvas_function(scorer, resolved, canvas, features)
        measure = partial(
            evaluate_canvas,
            function,
            split,
            frames,
            resolved,
            canvas,
            baselines=None if spec.target == "row" else baselines,
            replay=replay,
            judging=judging,
            name=name,
            progress=_of_canvas(progress, canvas),
            labels=labels,
            beside=beside,
            truth=truth,
        )
        try:
            report = measure() if measured is None else measured(canvas, measure)
            reports[canvas] = replace(report, notes=(*resolved.notes, *report.notes))
        except StateError as error:
            skipped[canvas] = str(error)
    if not reports:
        raise StateError("\n  ".join(["no canvas could be measured", *skipped.values()]))
    return ModelEvaluation(reports, skipped)


def _acted_in(log: EventLog) -> list[str]:
    """Return the held-out requests in which something was done."""
    done = (pl.col("fold") == "test") & (pl.col("action") != "impression") & pl.col("request_id").is_not_null()
    return log.frame.filter(done)["request_id"].unique(maintain_order=True).to_list()


def _of_canvas(progress: CanvasProgress | None, canvas: str) -> Progress | None:
    return None if progress is None else lambda done, total: progress(canvas, done, total)
