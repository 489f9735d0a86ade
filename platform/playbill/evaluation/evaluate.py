"""Measures a score function and its baselines on a case, with intervals and slices.

`replay` goes through the held-out period in time order: each window is scored, then learnt from. Baselines are fitted
anew after every window; a model learns through `Replay.update`, and without it only its histories and features move on.
Replays are compared only with replays of the same window. It is prequential evaluation: Gama, Sebastião and Rodrigues,
Machine Learning 2013; for recommenders Vinagre, Jorge and Gama, arXiv 1504.08175.
Axis letters: N requests, W windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from playbill.arrays import Floats64
from playbill.datasets import Split
from playbill.datasets.protocol_choice import TIES_MATTER
from playbill.definitions.specs import ResolvedModel, reward_version
from playbill.definitions.specs.base import format_duration
from playbill.errors import ConfigError, StateError
from playbill.evaluation.beside import Beside, chosen
from playbill.evaluation.cases.boundaries import assert_before_requests
from playbill.evaluation.cases.build import TARGETS, build_case, target_rewards
from playbill.evaluation.cases.case import EvaluationCase, Fold
from playbill.evaluation.cases.event_log import EvaluationTables, EventLog, as_frames, microseconds
from playbill.evaluation.cases.score_function import ScoreFunction
from playbill.evaluation.ceiling import KnownTruth, ceiling_of
from playbill.evaluation.measure import Collector, Measured, Progress, case_facts, check_cutoffs, measure
from playbill.evaluation.metric_aggregation import MINIMUM_MEMBERS, Judging, report_context, report_of
from playbill.evaluation.report import CEILING, EvaluationReport, WindowRow
from playbill.metrics import MemberBootstrap
from playbill.tables import Tables

__all__ = ["MINIMUM_MEMBERS", "Judging", "evaluate", "evaluate_case", "tied"]


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

    The split's protocol decides what is asked; the first cut-off `k` is that of the main metric. Baselines are by
    default those of every model and the model's own. `replay` is for the protocol of that name. Several canvases of one
    log share its frames, `log` and `beside`. With the `truth` of a simulated log the ceiling is measured too; a replay
    has none.

    Raises:
        UnknownNameError: An unknown canvas, baseline or slice.
        StateError: Nothing held out can be a target of the canvas.
        IntegrityError: No score came back, or something later than a request takes part in its answer.
    """
    check_cutoffs(k)
    case = build_case(as_frames(tables), split, resolved, canvas, fold=fold, log=log)
    called, judging = name or resolved.model.name, judging or Judging()
    context, worth = report_context(case.frame, judging), _rewards(case, resolved)
    names, left_out = chosen(baselines, case, resolved)
    notes = (
        *_requested(case),
        *case.notes,
        *tied(case, as_frames(tables), split),
        *context.notes,
        *worth.notes,
        *left_out,
    )
    context = context._replace(notes=notes, reward=worth.version)
    if split.protocol == REPLAY:

        def fit(part: EvaluationCase) -> Mapping[str, ScoreFunction]:
            return Beside().of(names, part, resolved)

        steps = replay or Replay()
        case, measured, windows = replayed(case, split, called, function, fit, k, steps, worth.values, progress)
        return report_of(case, measured, k, judging, context._replace(windows=windows))
    others = (beside or Beside()).of(names, case, resolved)
    facts = case_facts(case, worth.values)
    known = ceiling_of(case, truth)
    if known is None and truth is not None and truth.note:
        context = context._replace(notes=(*context.notes, truth.note))
    functions = {called: function, **others} | ({} if known is None else {CEILING: known})
    measured = measure(case, functions, k, progress, facts=facts)
    return report_of(case, measured, k, judging, context)


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
    """Measure a score function beside fitted baselines on a case that is already built; arguments as for `evaluate`."""
    check_cutoffs(k)
    judging = judging or Judging()
    context, facts = report_context(case.frame, judging), case_facts(case)
    context = context._replace(notes=(*context.notes, *case.notes, *notes))
    measured = measure(case, {name: function, **baselines}, k, progress, facts=facts)
    return report_of(case, measured, k, judging, context)


def _requested(case: EvaluationCase) -> tuple[str, ...]:
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
    return (
        f"{tied:,} of {len(case):,} held-out plays ({tied / len(case):.0%}) share their moment with another play of "
        "the member; unless the data gave their order, which of them is the last is arbitrary, and popularity can fall "
        "to chance: the protocol global_time_period does not depend on it",
    )


class _Worth(NamedTuple):
    values: Floats64 | None = None
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


REPLAY = "replay"
DAY = timedelta(days=1)
MOST_WINDOWS = 2_000  # windows at most: each costs every baseline a new fit

Update = Callable[[pl.DataFrame], None]  # called with the events a model has not learnt from yet, in log order


class Replay(NamedTuple):
    """How a held-out period is gone through."""

    window: timedelta = DAY  # length of a window; the first one begins with the fold
    # Tells the model what happened, after each window; the first call brings the validation fold too. None = the model
    # stays as it was trained.
    update: Update | None = None

    @property
    def protocol(self) -> str:
        """The protocol's name with the window and what learns: replays that differ in it are not compared."""
        return f"{REPLAY}/{format_duration(self.window)}" + ("" if self.update is None else "/updated")


class _Window(NamedTuple):
    start: datetime
    end: datetime
    first: int
    stop: int


def replayed(
    case: EvaluationCase,
    split: Split,
    name: str,
    function: ScoreFunction,
    fit: Callable[[EvaluationCase], Mapping[str, ScoreFunction]],
    k: Sequence[int],
    replay: Replay,
    rewards: Floats64 | None,
    progress: Progress | None,
) -> tuple[EvaluationCase, dict[str, Measured], tuple[WindowRow, ...]]:
    """Go through a case in time order and learn after every window.

    `fit` fits the baselines of a part of the case, anew after every window; `rewards` [M] is the worth of each target.

    Returns:
        The case in time order, what every function did, and a row per window with requests.

    Raises:
        ConfigError: The window is not positive, or there would be more than `MOST_WINDOWS` of them.
    """
    begun = split.cutoff if case.fold == "test" else split.validation_cutoff
    if begun is None:
        raise StateError(f"split '{split.protocol}' has no moment at which its {case.fold} fold begins")
    ordered, _, order = replace(case, protocol=replay.protocol).in_time_order()
    windows = _windows(ordered, begun, replay.window)
    collector: Collector | None = None
    learnt = ordered.log.frame["fold"].eq_missing("train").to_numpy()
    for number, window in enumerate(windows):
        part = ordered.part(window.first, window.stop)
        if number:
            part = replace(part, log=part.log.until(windows[number - 1].end))
        assert_before_requests(part)
        fitted = fit(part)
        collector = collector or Collector(ordered, [name, *fitted], max(k))
        collector.add(part, {name: function, **fitted}, progress)
        if replay.update is not None:
            happened = (ordered.log.frame["event_at"] < window.end).to_numpy() & ~learnt
            replay.update(ordered.log.events.filter(pl.Series(happened)))
            learnt |= happened
    assert collector is not None  # a case has requests, so there is a window
    facts = case_facts(ordered, None if rewards is None else rewards[order])
    measured = collector.measured(facts, k)
    return ordered, measured, _rows(ordered, windows, measured, f"ndcg@{k[0]}")


def _windows(case: EvaluationCase, begun: datetime, length: timedelta) -> list[_Window]:
    if length <= timedelta(0):
        raise ConfigError(f"a replay needs windows longer than nothing, got {length}")
    at = microseconds(case.frame["at"])
    origin = microseconds(pl.Series([begun], dtype=pl.Datetime("us", "UTC")))[0]
    width = length // timedelta(microseconds=1)
    number = (at - origin) // width
    found, first = np.unique(number, return_index=True)
    if found.size > MOST_WINDOWS:
        raise ConfigError(
            f"windows of {length} make {found.size} windows with requests, each with new fits; choose longer ones "
            f"(at most {MOST_WINDOWS})"
        )
    stops = [*first[1:].tolist(), len(case)]
    edges = [datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(origin + one * width)) for one in found]
    return [
        _Window(start, start + length, begin, stop)
        for start, begin, stop in zip(edges, first.tolist(), stops, strict=True)
    ]


def _rows(
    case: EvaluationCase, windows: Sequence[_Window], measured: dict[str, Measured], metric: str
) -> tuple[WindowRow, ...]:
    found = []
    for window in windows:
        span = slice(window.first, window.stop)
        members = case.frame["member_id"][span].rank("dense").to_numpy().astype(np.int64) - 1
        values = np.stack([one.values[metric][span] for one in measured.values()], axis=1)
        intervals = MemberBootstrap(members, resamples=500).intervals(values)
        start, end = window.start.isoformat(), window.end.isoformat()
        metrics = dict(zip(measured, intervals, strict=True))
        found.append(WindowRow(start, end, window.stop - window.first, int(members.max()) + 1, metrics))
    return tuple(found)
