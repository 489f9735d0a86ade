"""Measures a score function and its baselines on a case, with intervals and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from playbill.datasets import Split
from playbill.definitions.specs import ResolvedModel, reward_version
from playbill.evaluation.beside import Beside, chosen
from playbill.evaluation.cases.build import TARGETS, build_case
from playbill.evaluation.cases.case import EvaluationCase, Fold
from playbill.evaluation.cases.data import EvaluationTables, as_frames
from playbill.evaluation.cases.event_log import EventLog
from playbill.evaluation.cases.rewarding import target_rewards
from playbill.evaluation.cases.score_function import ScoreFunction
from playbill.evaluation.ceiling import KnownTruth, ceiling_of
from playbill.evaluation.facts import case_facts
from playbill.evaluation.measure import Progress, check_cutoffs, measure
from playbill.evaluation.metric_aggregation import MINIMUM_MEMBERS, Judging
from playbill.evaluation.replay import REPLAY, Replay, replayed
from playbill.evaluation.report import CEILING, EvaluationReport
from playbill.evaluation.reporting import report_of, told_of
from playbill.metrics.ranking import Values
from playbill.tables import Tables

__all__ = ["MINIMUM_MEMBERS", "Judging", "evaluate", "evaluate_case", "tied"]

TIES_MATTER = 0.1
"""Share of the held-out plays in a tie from which on a report warns."""


def evaluate(
    function: ScoreFunction,
    split: Split,
    tables: Tables | EvaluationTables,
    resolved: ResolvedModel,
    canvas: str,
    *,
    k: Sequence[int] = (10,),
    baselines: Sequence[str] | None = None,
    fold: Fold = "test",
    replay: Replay | None = None,
    judging: Judging | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    log: EventLog | None = None,
    beside: Beside | None = None,
    truth: KnownTruth | None = None,
) -> EvaluationReport:
    """Measure a model on one canvas of a protocol's held-out fold.

    Args:
        function: The model's blended scores for this canvas.
        split: Folds of events, frozen; its protocol decides what is asked.
        tables: The canonical tables, or their frames when several canvases are measured in turn.
        resolved: The model's definition.
        canvas: Canvas to ask.
        k: Cut-offs; the first one is that of the main metric.
        baselines: Registered baselines to stand beside it (default: those of every model, and the model's own).
        fold: Fold that is held out.
        replay: Windows of the protocol `replay`, and how the model learns between them.
        judging: Slices, their minimum, and the bootstrap.
        name: What the model is called in the report (default: its name in the zoo).
        progress: Called after every chunk of requests.
        log: Of these tables and folds, where it was made before for another canvas.
        beside: Baselines of this log that were fitted before for another canvas.
        truth: Of a simulated log: the ceiling is measured beside the others, and compared with none of them. A replay
            has none.

    Raises:
        UnknownNameError: An unknown canvas, baseline or slice.
        StateError: Nothing held out can be a target of the canvas.
        IntegrityError: The function returned something that is no score, or something later than a request takes
            part in its answer.
    """
    check_cutoffs(k)
    case = build_case(as_frames(tables), split, resolved, canvas, fold=fold, log=log)
    called, judging = name or resolved.model.name, judging or Judging()
    told, worth = told_of(case.frame, judging), _rewards(case, resolved)
    names, left_out = chosen(baselines, case, resolved)
    notes = (*_asked(case), *tied(case, as_frames(tables), split), *told.notes, *worth.notes, *left_out)
    told = told._replace(notes=notes, reward=worth.version)
    if split.protocol == REPLAY:
        case, measured, windows = replayed(
            case,
            split,
            called,
            function,
            lambda part: Beside().of(names, part, resolved),
            k,
            replay or Replay(),
            worth.values,
            progress,
        )
        return report_of(case, measured, k, judging, told._replace(windows=windows))
    others = (beside or Beside()).of(names, case, resolved)
    facts = case_facts(case, worth.values)
    known = ceiling_of(case, truth)
    if known is None and truth is not None and truth.note:
        told = told._replace(notes=(*told.notes, truth.note))
    functions = {called: function, **others} | ({} if known is None else {CEILING: known})
    measured = measure(case, functions, k, progress, facts=facts)
    return report_of(case, measured, k, judging, told)


def evaluate_case(
    case: EvaluationCase,
    name: str,
    function: ScoreFunction,
    baselines: Mapping[str, ScoreFunction],
    *,
    k: Sequence[int] = (10,),
    judging: Judging | None = None,
    progress: Progress | None = None,
    notes: tuple[str, ...] = (),
) -> EvaluationReport:
    """Measure a score function beside fitted baselines on a case that is already built.

    Args:
        case: Requests, targets, candidates.
        name: What the function is called in the report.
        function: The scores to judge.
        baselines: Name -> score function.
        k: Cut-offs; the first one is that of the main metric.
        judging: Slices, their minimum, and the bootstrap.
        progress: Called after every chunk of requests.
        notes: What the report says beside its numbers.
    """
    check_cutoffs(k)
    judging = judging or Judging()
    told, facts = told_of(case.frame, judging), case_facts(case)
    told = told._replace(notes=(*told.notes, *notes))
    measured = measure(case, {name: function, **baselines}, k, progress, facts=facts)
    return report_of(case, measured, k, judging, told)


def _asked(case: EvaluationCase) -> tuple[str, ...]:
    """Say so where a canvas is asked at what was logged elsewhere."""
    elsewhere = sorted(set(case.frame["canvas"].drop_nulls()) - {case.canvas})
    if case.logged or not elsewhere:
        return ()
    return (f"no held-out target on '{case.canvas}' in the log; measured at the requests of {', '.join(elsewhere)}",)


def tied(case: EvaluationCase, tables: EvaluationTables, split: Split) -> tuple[str, ...]:
    """Warn where a protocol holds out each member's last play, and which one is the last is often arbitrary."""
    if TARGETS[split.protocol] != "last":
        return ()
    plays = tables.interactions.filter(pl.col("action") == "play").group_by("member_id", at="event_at").len()
    tied = case.frame.join(plays.filter(pl.col("len") > 1), on=["member_id", "at"], how="semi").height
    if tied <= TIES_MATTER * len(case):
        return ()
    share = f"{tied:,} of {len(case):,} held-out plays ({tied / len(case):.0%})"
    return (
        f"{share} share their moment with another play of the member; unless the data gave their order, which of "
        "them is the last is arbitrary, and popularity can fall to chance: the protocol global_time_period does not "
        "depend on it",
    )


class _Worth(NamedTuple):
    values: Values | None = None
    version: str | None = None
    notes: tuple[str, ...] = ()


def _rewards(case: EvaluationCase, resolved: ResolvedModel) -> _Worth:
    wanted = resolved.model.evaluate.reward
    if wanted is None:
        return _Worth()
    reward = resolved.rewards[wanted]
    labels = {name: resolved.labels[name] for name in reward.terms}
    values, version = target_rewards(case, reward, labels), reward_version(reward, labels)
    unknown = int(np.isnan(values).sum())
    note = f"reward {version}: {unknown} of {values.size} targets have none yet, and gain nothing"
    return _Worth(values, version, (note,) if unknown else ())
