"""Figures of one row: everybody ranks the row's own candidates, and is asked at what members chose from it.

A held-out play of a canvas does not tell in which row it was shown: that would be the answer. Of one row everybody
knows it, the model and every baseline, and the titles that compete are those that the row may show. So a figure says
how well the row is ordered, and nothing of how well the row was chosen.
Axis letters: N requests, T titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from playbill.datasets import Request, Split
from playbill.datasets.examples.labelled import NAME_END
from playbill.definitions.specs import CanvasSpec, LabelSpec, ResolvedModel, RowSpec
from playbill.errors import ConfigError, StateError, UnknownNameError
from playbill.evaluation.beside import Beside, chosen
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import case_of, held_out
from playbill.evaluation.cases.case import CandidateRule, EvaluationCase, Fold, RowRule
from playbill.evaluation.cases.event_log import TRAIN, EvaluationTables, EventLog, TitleOrder, as_frames
from playbill.evaluation.cases.score_function import AlignedScorer, MemberFeatures, ScoreFunction, Scores
from playbill.evaluation.evaluate import REPLAY, evaluate_case, tied
from playbill.evaluation.measure import Progress
from playbill.evaluation.metric_aggregation import Judging
from playbill.evaluation.report import EvaluationReport
from playbill.ranking.fallbacks import fallback_scores
from playbill.ranking.page_builder import AS_WRITTEN
from playbill.tables import Tables

if TYPE_CHECKING:  # it imports torch
    from playbill.ranking.scoring.scorer import Scorer

CARRIED = ("row", "row_position", "source_title_id", "row_id")
"""What a request of a row carries: everybody knows which row it is, where it is, and what it is about."""
ABOUT = {"genre": "genre", "character": "character", "watched_title": "title id", "combination": "combination"}
"""What the ids of generated rows say after the row's name."""

NO_REPLAY = "a replay goes through a canvas: measure a row under global_time_successive, which asks the same requests"


@dataclass(frozen=True)
class RowFigure:
    """One row of a model, and what it is judged by."""

    row: RowSpec  # its definition
    label: LabelSpec  # what it calls positive is what should have been listed first
    only: str | None  # `row_id` of the one generated row that is meant; None = all rows of the name
    resolved: ResolvedModel  # the model with the row's candidates and blend on the canvas that the row is scored as
    # ask at what was played anywhere on the canvas, not in the row alone: where the log shows it seldom
    anywhere: bool = False

    @property
    def name(self) -> str:
        """What the row is called in reports."""
        return self.only or self.row.name

    @property
    def requested_as(self) -> str:
        """The canvas that its requests are asked on."""
        return self.row.scored_as or self.row.canvas

    @classmethod
    def of(
        cls, resolved: ResolvedModel, name: str, *, canvas: str | None = None, label: str | None = None
    ) -> RowFigure:
        """Look up a row, such as `top_picks`, `genre_rows`, or `genre_rows:Drama` for one of the rows generated.

        By default it is judged by the label of the head that weighs most in its blend, and where a policy orders it by
        the metric of its canvas.

        Raises:
            UnknownNameError: The model has no such row or label.
            ConfigError: The row is not on that canvas, or this version of the model does not show it.
        """
        plain, _, stated = name.partition(NAME_END)
        for on, rows in resolved.left_out.rows.items():
            if plain in rows:
                raise ConfigError(f"row '{plain}' is not shown on '{on}' by this version of the model: {rows[plain]}")
        if plain not in resolved.rows:
            raise UnknownNameError("row", plain, resolved.rows)
        row = resolved.rows[plain]
        if canvas is not None and canvas != row.canvas:
            raise ConfigError(f"row '{plain}' is on canvas '{row.canvas}', not on '{canvas}'")
        if stated and row.generator is None:
            raise ConfigError(f"row '{plain}' is one row, not one for each of something; leave ':{stated}' out")
        wanted = label or _judged_by(row, resolved)
        if wanted not in resolved.labels:
            raise UnknownNameError("label", wanted, resolved.labels)
        return cls(row, resolved.labels[wanted], name if stated else None, _as_canvas(row, wanted, resolved))

    def case(
        self, tables: EvaluationTables, split: Split, *, fold: Fold = "test", log: EventLog | None = None
    ) -> EvaluationCase:
        """Build the held-out requests of the row.

        Targets are held-out events that the log attributes to the row on its canvas and that the label calls positive.
        Each is asked before the first event of its request, also under `leave_one_out`: what was opened in the row
        before the play would name the answer among a few candidates.

        Raises:
            StateError: Nothing held out can be a target of the row.
            IntegrityError: Something later than a request would take part in its answer.
        """
        titles = TitleOrder.of(tables.titles["title_id"].to_list())
        log = EventLog.of(tables.interactions, split, titles) if log is None else log.under(split.protocol)
        held = held_out(log, tables, self.label, fold)
        own = self._as_if(held) if self.anywhere else self._attributed(held)
        if own.is_empty():
            raise StateError(self._why_nothing(log, split, fold))
        own = _with_source(_as_shown(own, log), self.row)
        page = self.resolved.canvases[self.row.canvas].page or AS_WRITTEN
        requested = self.resolved.canvas(self.requested_as)
        plain = CandidateRule.of(requested, tables, titles, log)
        parts = (plain.spec, plain.catalogue, plain.order, plain.log, plain.profiles)
        rule = RowRule(*parts, row=self.row, genre_consistency=page.genre_consistency)
        return case_of(
            own,
            CARRIED,
            rule,
            tables,
            split,
            canvas=self.requested_as,
            fold=fold,
            logged=True,
            subject=f"row '{self.name}'",
        )

    def _attributed(self, events: pl.DataFrame) -> pl.DataFrame:
        which = pl.col("row") == self.row.name if self.only is None else pl.col("row_id") == self.only
        return events.filter(pl.col("canvas") == self.row.canvas, which.fill_null(False))

    def _as_if(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return the events of the canvas as if they had happened in the row, at a place that nobody knows.

        Raises:
            ConfigError: The row is generated: which one it would be is not known.
        """
        if self.row.generator is not None and self.only is None:
            raise ConfigError(f"row '{self.name}' is generated: name one, such as {self.name}{NAME_END}Drama")
        here = events.filter(pl.col("canvas") == self.row.canvas)
        return here.with_columns(
            row=pl.lit(self.row.name), row_id=pl.lit(self.name), row_position=pl.lit(None, pl.Int32)
        )

    def _why_nothing(self, log: EventLog, split: Split, fold: Fold) -> str:
        where = f"in the {fold} fold of protocol '{split.protocol}'"
        held = log.frame.filter(pl.col("fold") == fold, pl.col("canvas") == self.row.canvas)
        known, acted = sorted(held["row"].drop_nulls().unique()), self._attributed(held)["action"].value_counts()
        if acted.is_empty():
            named = f"it names {', '.join(known)}" if known else "it names none, so no row can be measured on it"
            return f"the log attributes no event on '{self.row.canvas}' to row '{self.name}' {where}; {named}"
        counts = ", ".join(f"{count} {action}" for action, count in acted.sort("action").iter_rows())
        others = ", ".join(name for name in self.resolved.labels if name != self.label.name)
        return (
            f"row '{self.name}' has no positive event of label '{self.label.name}' {where}, among {counts}; judge it "
            f"by another label with --label: {others}"
        )


def evaluate_row(
    figure: RowFigure,
    scorer: Scorer,
    split: Split,
    tables: Tables | EvaluationTables,
    resolved: ResolvedModel,
    features: MemberFeatures | None,
    *,
    baselines: Sequence[str] | None = None,
    fold: Fold = "test",
    judging: Judging | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Measure one row: the model by the row's blend or policy, and baselines, over the row's candidates.

    Options are those of `evaluate`; slices and their minimum are by default the model's.

    Raises:
        ConfigError: The protocol is a replay, which goes through the requests of a canvas.
        StateError: The log cannot measure this row.
    """
    if split.protocol == REPLAY:
        raise ConfigError(NO_REPLAY)
    frames, wanted = as_frames(tables), resolved.model.evaluate
    judging = judging or Judging(slices=wanted.slices, minimum_members=wanted.minimum_members)
    case = figure.case(frames, split, fold=fold)
    names, left_out = chosen(baselines, case, figure.resolved)
    others = Beside().of(names, case, figure.resolved)
    report = evaluate_case(
        case,
        name or resolved.model.name,
        _ranked_by(figure, case, scorer, resolved, features),
        others,
        k=wanted.k,
        judging=judging,
        progress=progress,
        notes=(*tied(case, frames, split), *left_out),
    )
    notes = (*_about(figure, case, judging), *report.notes)
    return replace(report, canvas=figure.row.canvas, row=figure.name, label=figure.label.name, notes=notes)


class RowPolicy:
    """A row that a policy orders, as it is served: what the policy scores alike stands in the model's own order.

    `ties` is the model on `canvas`, that of the row; None = equal scores stay equal, as in a chart.
    """

    def __init__(self, case: EvaluationCase, policy: str, ties: ScoreFunction | None, canvas: str) -> None:
        self.title_ids: Sequence[str] = case.catalogue.title_ids
        self._case, self._policy, self._canvas = case, policy, canvas
        self._ties = None if ties is None else AlignedScorer(policy, ties, case.catalogue)
        requested = case.frame.select("member_id", "at", "source_title_id").iter_rows()
        self._places = {key: place for place, key in enumerate(requested)}

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T] scores of requests of the case."""
        case = self._case
        places = [self._places[one.member_id, one.at, one.source_title_id] for one in requests]
        viewers = case.rule.viewers(case.frame[places], case.positions[places])
        scores = np.array([fallback_scores(self._policy, case.rule.plays, viewer) for viewer in viewers])
        if self._ties is None:
            return scores
        plain = [replace(one, canvas=self._canvas, row=None, row_position=None) for one in requests]
        own, known = self._ties.score(plain, np.ones(scores.shape, np.bool_))
        return np.stack(list(map(_in_turn, scores, np.where(known, own, -np.inf))))


def _in_turn(first: Scores, then: Scores) -> Scores:
    """Return [T] scores that rank by the first, and what that scores alike by the second."""
    level, place = (np.unique(scores, return_inverse=True)[1] for scores in (first, then))
    ordered: Scores = level + place / place.size
    return ordered


def _judged_by(row: RowSpec, resolved: ResolvedModel) -> str:
    for head in sorted(row.blend or {}, key=lambda head: -(row.blend or {})[head]):
        spec = resolved.model.heads.get(head)
        if spec is not None and spec.label is not None:
            return spec.label
    return resolved.canvases[row.canvas].metric


def _as_canvas(row: RowSpec, label: str, resolved: ResolvedModel) -> ResolvedModel:
    name = row.scored_as or row.canvas
    shown, requested = resolved.canvases[row.canvas], resolved.canvases[name]
    kids = shown.candidates.kids is True
    rules = row.candidates.model_copy(update={"kids": True}) if kids else row.candidates
    own: CanvasSpec = requested.model_copy(
        update={"candidates": rules, "blend": row.blend or requested.blend, "metric": label}
    )
    return resolved.model_copy(update={"canvases": {**resolved.canvases, name: own}})


def _as_shown(events: pl.DataFrame, log: EventLog) -> pl.DataFrame:
    """Return events whose `opened` is the place of the first event of their request that nothing was learnt from."""
    later = log.frame.filter((pl.col("fold") != TRAIN).fill_null(False), pl.col("request_id").is_not_null())
    began = later.group_by("member_id", "request_id").agg(began=pl.col("place").min())
    joined = events.join(began, on=["member_id", "request_id"], how="left", maintain_order="left")
    return joined.with_columns(opened=pl.coalesce("began", "opened")).drop("began")


def _with_source(events: pl.DataFrame, row: RowSpec) -> pl.DataFrame:
    """Return events with the source title of their row, where it is generated for one; any other row has none.

    Raises:
        StateError: The row is generated, and the log never says what it was generated for.
    """
    stated = pl.col("row_id").str.splitn(NAME_END, 2).struct.field("field_1")
    source = stated if row.generator is not None and row.generator.each == "watched_title" else pl.lit(None, pl.String)
    if row.generator is not None and events.select(stated.is_null().all()).item():
        about = ABOUT[row.generator.each]
        raise StateError(
            f"row '{row.name}' is one for each {about}, and the log does not say which, so nobody knows what it could "
            f"show: its row_id is '{row.name}' and should be '{row.name}{NAME_END}' with the {about} behind it"
        )
    return events.with_columns(source_title_id=source)


def _ranked_by(
    figure: RowFigure, case: EvaluationCase, scorer: Scorer, resolved: ResolvedModel, features: MemberFeatures | None
) -> ScoreFunction:
    row = figure.row
    if row.policy is None:
        return CanvasScorer(scorer, figure.resolved, figure.requested_as, features)
    ties = None if row.chart else CanvasScorer(scorer, resolved, row.canvas, features)
    return RowPolicy(case, row.policy, ties, row.canvas)


def _about(figure: RowFigure, case: EvaluationCase, judging: Judging) -> tuple[str, ...]:
    row, members = figure.row, case.frame["member_id"].n_unique()
    by = f"the policy {row.policy}" if row.policy is not None else "the row's blend"
    what = f"row '{figure.name}': ranked by {by}, judged by label '{figure.label.name}', all over the row's candidates"
    left = f"; {case.left_out} held-out titles were no candidates of it and are left out" if case.left_out else ""
    if members >= judging.minimum_members:
        return (what + left,)
    few = f"only {len(case)} requests of {members} members: read the interval, not the number"
    return (what + left, few)
