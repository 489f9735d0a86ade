"""From a split to an evaluation case: held-out events become requests with targets, and targets get their rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import polars as pl

from playbill.arrays import Floats64
from playbill.datasets import Split
from playbill.definitions.specs import CanvasSpec, LabelSpec, ResolvedModel, RewardSpec
from playbill.errors import DataError, Problem, StateError
from playbill.evaluation.cases.boundaries import assert_before_requests
from playbill.evaluation.cases.case import (
    CARRIED,
    CARRIED_COLUMNS,
    REQUEST_COLUMNS,
    CandidateRule,
    EvaluationCase,
    Fold,
)
from playbill.evaluation.cases.event_log import UNKNOWN, EvaluationTables, EventLog, TitleOrder
from playbill.evaluation.cases.slices import add_slices
from playbill.labels import extract, label_events
from playbill.rewards import reward_values

TargetRule = Literal["last", "successive", "period"]
TARGETS: dict[str, TargetRule] = {
    "leave_one_out": "last",
    "global_time": "last",
    "global_time_successive": "successive",
    "global_time_period": "period",
    "replay": "successive",
}
"""How a protocol turns held-out positives into requests. `last`: one request per member, its last one.
`successive`: one request for each. `period`: one request per member at its first one, with all as targets."""

RETURNS_MATTER = 0.1  # share of held-out plays that are of titles played before, from which on a report says so

OPENING = ("event_at", "country", "device", "language")
"""What a request says of itself when it is made: that of its first event."""


def build_case(
    tables: EvaluationTables,
    split: Split,
    resolved: ResolvedModel,
    canvas: str,
    *,
    fold: Fold = "test",
    log: EventLog | None = None,
    as_logged: bool = True,
) -> EvaluationCase:
    """Build the held-out requests of one canvas.

    Targets are the held-out events that the canvas's `metric` label calls positive: those that the log places on
    the canvas, asked with what the canvas's requests carry: their own query and source title, never the row in which
    the answer was shown. They are asked at the moment and in the state of the request's first event in the fold: what
    was opened on the page before the play came of the answer too. A canvas that the log has none of is asked at those
    of all canvases, with no more than who, when and where. Targets that the canvas could not have shown at that moment
    are left out and counted.

    `log` is of these tables and folds, where it was made before for another canvas. Without `as_logged` a canvas with a
    log of its own is asked as if it had none.

    Raises:
        UnknownNameError: The model has no such canvas.
        StateError: Nothing held out can be a target of this canvas.
        IntegrityError: Something later than a request would take part in its answer.
    """
    spec = resolved.canvas(canvas)
    label = resolved.labels[spec.metric]
    catalogue = TitleOrder.of(tables.titles["title_id"].to_list())
    log = EventLog.of(tables.interactions, split, catalogue) if log is None else log.under(split.protocol)
    positives = held_out(log, tables, label, fold)
    if positives.is_empty():
        hint = _all_returns(log, fold) or "; choose another protocol"
        raise StateError(
            f"canvas '{canvas}' has no positive event of its label '{label.name}' in the {fold} fold of protocol "
            f"'{split.protocol}'{hint}"
        )
    own = positives.filter(pl.col("canvas") == canvas)
    logged = as_logged and not own.is_empty()
    carried = carried_by(spec) if logged else ()
    rule = CandidateRule.of(spec, tables, catalogue, log)
    case = case_of(own if logged else positives, carried, rule, tables, split, canvas=canvas, fold=fold, logged=logged)
    return replace(case, notes=_on_returns(log, positives, label, fold))


def assert_measurable(resolved: ResolvedModel, split: Split, tables: EvaluationTables) -> None:
    """Check before a long training that the test fold has a positive event of what some canvas is measured by.

    Labels without any positive event in the log do not count: heads that learn them are left out, or refused.

    Raises:
        DataError: Labels have positive events, and none of them has one in the test fold.
    """
    log = EventLog.of(tables.interactions, split, TitleOrder.of(tables.titles["title_id"].to_list()))
    test = log.frame.filter(pl.col("fold") == "test")
    labels = {canvas.metric: resolved.labels[canvas.metric] for canvas in resolved.canvases.values()}
    missed = []
    for name, label in labels.items():
        positives = _positives(tables, label)
        if not test.join(positives, on="event_id", how="semi").is_empty():
            return
        missed += [name] if positives.height else []
    if missed:
        what = f"no canvas could be measured: the test fold has no positive event of label {', '.join(missed)}"
        hint = _all_returns(log, "test") or "; choose another protocol"
        raise DataError(f"protocol {split.protocol}", [Problem("interactions", f"{what}{hint}.")])


def _all_returns(log: EventLog, fold: Fold) -> str:
    """Say so where every held-out play is of a title that the member had played before, and what helps."""
    plays = log.frame.filter(pl.Series(log.plays) & (pl.col("fold") == fold))
    if plays.is_empty() or _returns(log, plays).height < plays.height:
        return ""
    return (
        f", as each of its {plays.height:,} plays is of a title that the member had played before; measure such a log "
        "on a canvas that shows watched titles and whose metric counts every play, such as next_play"
    )


def _returns(log: EventLog, plays: pl.DataFrame) -> pl.DataFrame:
    """Return those of some plays, rows of a log's frame, whose title the member had played before."""
    by = ["member_id", "title_id"]
    known = log.frame.filter(pl.Series(log.plays)).join(plays.select(by).unique(), on=by, how="semi")
    first = known.group_by(by).agg(first=pl.col("place").min())
    return plays.join(first, on=by, maintain_order="left").filter(pl.col("place") > pl.col("first"))


def _on_returns(log: EventLog, positives: pl.DataFrame, label: LabelSpec, fold: Fold) -> tuple[str, ...]:
    """Say how many held-out plays are of titles played before and no target, where they are more than a few."""
    plays = log.frame.filter(pl.Series(log.plays) & (pl.col("fold") == fold))
    missed = plays.join(positives, on="event_id", how="anti", maintain_order="left")
    returns = _returns(log, missed).height if missed.height > RETURNS_MATTER * plays.height else 0
    if returns <= RETURNS_MATTER * plays.height:
        return ()
    return (
        f"{returns:,} of {plays.height:,} held-out plays are of titles that the member had played before, which label "
        f"'{label.name}' does not count: the others are asked",
    )


def case_of(
    positives: pl.DataFrame,
    carried: tuple[str, ...],
    rule: CandidateRule,
    tables: EvaluationTables,
    split: Split,
    *,
    canvas: str,
    fold: Fold,
    logged: bool,
    subject: str = "",
) -> EvaluationCase:
    """Turn held-out positives, rows of the log as `held_out` returns them, into a case.

    `carried` are the columns that are their requests' own; see `CARRIED_COLUMNS`, and `row_id`. Log and titles of the
    case are those of `rule`. `subject` is what has no held-out title where none can be shown (default: the canvas).

    Raises:
        StateError: None of the positives was a candidate.
        IntegrityError: Something later than a request would take part in its answer.
    """
    log = rule.log
    requested = ask(positives, TARGETS[split.protocol])
    rows, columns = requested["request"].to_numpy().astype(np.int64), rule.order.codes(requested["title_id"])
    firsts = np.unique(rows, return_index=True)[1]
    opened = requested["opened"].to_numpy().astype(np.int64)[firsts]
    requests = _frame(as_opened(requested[firsts], log.frame[opened]), carried)
    frame = add_slices(requests, tables, rule.catalogue, columns[firsts], log.fitted_plays())
    case = EvaluationCase(
        protocol=split.protocol,
        split_digest=split.digest,
        fold=fold,
        canvas=canvas,
        catalogue=rule.order,
        tables=tables,
        log=log,
        frame=frame,
        positions=opened,
        rows=rows,
        columns=columns,
        targets_at=requested["place"].to_numpy(),
        rule=rule,
        logged=logged,
    )
    case = only_reachable(case, subject or f"canvas '{canvas}'")
    assert_before_requests(case)
    return case


def has_log(
    tables: EvaluationTables,
    split: Split,
    resolved: ResolvedModel,
    canvas: str,
    fold: Fold = "test",
    log: EventLog | None = None,
) -> bool:
    """Return whether a fold holds targets out that the log places on a canvas; see `build_case` for the arguments."""
    if log is None:
        log = EventLog.of(tables.interactions, split, TitleOrder.of(tables.titles["title_id"].to_list()))
    positives = held_out(log, tables, resolved.labels[resolved.canvas(canvas).metric], fold)
    return bool((positives["canvas"] == canvas).any())


def request_frame(events: pl.DataFrame) -> pl.DataFrame:
    """Return requests asked at held-out events with no more than who asks, when and from where."""
    return _frame(events, ())


def logged_frame(events: pl.DataFrame, spec: CanvasSpec) -> pl.DataFrame:
    """Return the requests of events of an `EventLog` as their canvas is asked: with their own query or source title.

    What only the answer says is withheld. `row` and `row_position` of an event are those that the played title was
    shown in, and a list for the canvas is ranked before there are rows. A source title on a canvas that reads none is
    that of such a row.
    """
    return _frame(events, carried_by(spec))


def carried_by(spec: CanvasSpec) -> tuple[str, ...]:
    """Return the columns of a held-out event that are its request's own on a canvas."""
    return tuple(name for field, name in CARRIED.items() if field in spec.context)


def _frame(events: pl.DataFrame, carried: tuple[str, ...]) -> pl.DataFrame:
    named = events.with_columns(request_id=pl.col("event_id"), at=pl.col("event_at"))
    withheld = {name: pl.lit(None, dtype=kind) for name, kind in CARRIED_COLUMNS.items() if name not in carried}
    return named.with_columns(**withheld).select(
        *REQUEST_COLUMNS,
        *(pl.col(name).cast(kind) for name, kind in CARRIED_COLUMNS.items()),
        *(name for name in carried if name not in CARRIED_COLUMNS),
    )


def as_opened(events: pl.DataFrame, opening: pl.DataFrame) -> pl.DataFrame:
    """Return events with the moment, country, device and language of the events that opened their requests."""
    return events.with_columns(opening[name] for name in OPENING)


def held_out(log: EventLog, tables: EvaluationTables, label: LabelSpec, fold: Fold) -> pl.DataFrame:
    """Return the log rows of a fold that a label calls positive and that have a title, in log order.

    `opened` is the place of the first event of the row's request in the fold; an event without a request is its own.
    Under `leave_one_out` the fold begins with the held-out play itself, so that is where its request opens.
    """
    positive = _positives(tables, label)
    known = pl.Series(log.column != UNKNOWN)
    request = pl.coalesce("request_id", "event_id")
    frame = log.frame.with_columns(opened=pl.col("place").min().over("member_id", request, "fold"))
    return frame.filter(known & (pl.col("fold") == fold)).join(
        positive, on="event_id", how="semi", maintain_order="left"
    )


def _positives(tables: EvaluationTables, label: LabelSpec) -> pl.DataFrame:
    labelled = extract(label, tables.interactions, tables.end, tables.availability)
    return labelled.filter(pl.col("value") > 0).select("event_id")


def ask(positives: pl.DataFrame, targets: TargetRule) -> pl.DataFrame:
    """Turn positives into (request, target) rows: the positives with a dense `request` number, ascending.

    With several targets of one request the first row of the request is the event it is asked at.
    """
    if targets == "last":
        positives = positives.filter(pl.col("place") == pl.col("place").max().over("member_id"))
    if targets == "period":
        kept = positives.unique(["member_id", "title_id"], keep="first", maintain_order=True)
        return kept.with_columns((pl.col("member_id").rle_id()).cast(pl.Int64).alias("request"))
    return positives.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("request"))


def only_reachable(case: EvaluationCase, subject: str = "") -> EvaluationCase:
    """Drop targets that the canvas, or what the message calls `subject`, could not have shown.

    Raises:
        StateError: It could have shown none.
    """
    reachable = case.reachable()
    if not reachable.any():
        subject = subject or f"canvas '{case.canvas}'"
        rules = case.rule.spec.written(", ".join(case.rule.spec.model_fields_set | {"available"}))
        raise StateError(
            f"{subject} has no held-out title among its candidates ({rules}): none of {reachable.size} "
            "was a candidate when it was played, so a log of plays cannot measure it"
        )
    return case.keep(reachable)


def target_rewards(case: EvaluationCase, reward: RewardSpec, labels: Mapping[str, LabelSpec]) -> Floats64:
    """Return each target's reward as known at the end of the log, [M].

    Delayed terms that are not mature by then are not predicted: such a target's reward is NaN, and it gains nothing.
    """
    tables = case.tables
    outcomes = label_events(
        list(labels.values()), tables.interactions, tables.end, tables.availability, titles=tables.titles
    )
    values = reward_values(reward, labels, outcomes, tables.interactions, tables.end, None)
    ids = case.log.frame.select("event_id")[case.targets_at]
    joined = ids.join(values.select("event_id", "value", "matured"), on="event_id", how="left", maintain_order="left")
    worth = joined.select(pl.when(pl.col("matured")).then(pl.col("value").cast(pl.Float64)))
    return worth.to_series().fill_null(float("nan")).to_numpy().astype(np.float64)
