"""Each head's own probabilities on labelled events of the held-out fold: do they order, and are they calibrated?

A canvas's list says how the blend ranks titles. A head may still be useless in it, or sure of what it does not know.
Rows are the labelled events that the log places on the canvas: plays, thumbs, and impressions that were shown and not
played where the label says so. The whole state before the event is given, nothing at or after it.
Axis letters: R labelled rows, G states (rows asked at one moment share one), T titles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from playbill import metrics
from playbill.arrays import Floats64, Ints64
from playbill.datasets import Request, Split
from playbill.datasets.examples.labelled import assert_held_out_later
from playbill.definitions.specs import CanvasSpec, HeadSpec, ResolvedModel
from playbill.definitions.specs.head import loss_options, loss_plugin
from playbill.evaluation.cases.build import logged_frame
from playbill.evaluation.cases.case import REQUEST_FIELDS, Fold
from playbill.evaluation.cases.event_log import UNKNOWN, EvaluationTables, EventLog, TitleOrder
from playbill.evaluation.metric_aggregation import Judging
from playbill.evaluation.report import HeadRow
from playbill.labels import label_events
from playbill.metrics import Interval
from playbill.ranking.blend import COMPETING

if TYPE_CHECKING:  # it measures heads with this module
    from playbill.evaluation.canvases.model import CanvasScorer

MOST_STATES = 20_000  # states at most: beyond it members are drawn at random, whole
RESAMPLES = 200  # bootstrap draws of members: each sorts every row once more
_AT_ONCE = 512


@dataclass(frozen=True)
class HeldOutLabels:
    """The labelled events of a fold."""

    log: EventLog  # the events
    # head -> its rows of the log, with `value`, and `state`: the place before which its history ends
    rows: dict[str, pl.DataFrame]


def held_out_labels(split: Split, tables: EvaluationTables, resolved: ResolvedModel, fold: Fold) -> HeldOutLabels:
    """Gather what a fold says of every labelled head.

    Raises:
        IntegrityError: What is held out does not come after what was trained on.
    """
    assert_held_out_later(tables.interactions, split)
    log = EventLog.of(tables.interactions, split, TitleOrder.of(tables.titles["title_id"].to_list()))
    held = log.frame.filter((pl.col("fold") == fold) & pl.col("title_id").is_not_null())
    # What one request showed was shown in one state: that before its first event
    key = pl.coalesce(pl.col("request_id"), pl.col("event_id"))
    held = held.with_columns(pl.col("place").min().over("member_id", key).alias("state"))
    heads = {name: head.label for name, head in resolved.model.heads.items() if head.label is not None}
    wanted = [label for name, label in resolved.labels.items() if name in heads.values() and label.level == "title"]
    found = label_events(wanted, tables.interactions, tables.end, tables.availability, tables.titles)
    known = held.join(found.select("event_id", *(label.name for label in wanted)), on="event_id", maintain_order="left")
    named = {label.name for label in wanted}
    rows = {
        name: known.with_columns(pl.col(label).alias("value")).drop_nulls("value")
        for name, label in heads.items()
        if label in named
    }
    return HeldOutLabels(log, rows)


def head_rows(
    function: CanvasScorer,
    split: Split,
    tables: EvaluationTables,
    resolved: ResolvedModel,
    canvas: str,
    *,
    fold: Fold = "test",
    judging: Judging | None = None,
    labels: HeldOutLabels | None = None,
) -> tuple[tuple[HeadRow, ...], tuple[str, ...]]:
    """Measure every labelled head on a canvas's events of the held-out fold.

    `auc` needs both kinds of rows. `ece` is of heads that say yes or no of each title apart; a softmax head spreads
    one probability over all titles, so its level means nothing for a single one and it has an `auc` alone. A head whose
    label is a number has the `auc` of labels above their median, and `mae`, the mean error in the label's own unit.

    Events are those logged on the canvas; `labels` are of this fold, if they were gathered before for another canvas.

    Returns a row per head that can be measured, and why the others cannot.
    """
    judging = judging or Judging()
    labels = labels or held_out_labels(split, tables, resolved, fold)
    labelled = labelled_on(function, labels, resolved, canvas)
    notes = tuple(reason for name, rows in labelled.items() if (reason := _unmeasurable(name, rows, canvas, judging)))
    wanted = {name: rows for name, rows in labelled.items() if not _unmeasurable(name, rows, canvas, judging)}
    if not wanted:
        return (), notes
    scored = scored_rows(function, labels.log, canvas, wanted, resolved, judging.seed)
    return tuple(_row(name, rows, resolved, judging) for name, rows in scored.items()), notes


def labelled_on(
    function: CanvasScorer, labels: HeldOutLabels, resolved: ResolvedModel, canvas: str
) -> dict[str, pl.DataFrame]:
    """Return head -> its rows on a canvas, of titles that the function scores, with `positive`."""
    places = TitleOrder(tuple(function.title_ids))
    found = {}
    for name, rows in labels.rows.items():
        here = rows.filter(pl.col("canvas") == canvas)
        here = here.filter(pl.Series(places.codes(here["title_id"]) != UNKNOWN))
        found[name] = _known(here, resolved.model.heads[name])
    return found


def _known(rows: pl.DataFrame, head: HeadSpec) -> pl.DataFrame:
    """Add `positive`: a label above 0, or for a number one above the median."""
    if head.loss is None or loss_plugin(head.loss).meaning != "value":
        return rows.with_columns(positive=pl.col("value") > 0)
    options = loss_options(head.loss, head.options)
    cut = rows.with_columns(pl.col("value").clip(upper_bound=getattr(options, "cap", None)))
    return cut.with_columns(positive=pl.col("value") > pl.col("value").median())


def _unmeasurable(name: str, rows: pl.DataFrame, canvas: str, judging: Judging) -> str:
    members = rows["member_id"].n_unique()
    positives = int(rows["positive"].sum())
    if members < judging.minimum_members:
        return f"head '{name}': labelled held-out events of {members} members on '{canvas}', fewer than needed"
    if positives in (0, rows.height):
        kind = "positive" if positives else "negative"
        return f"head '{name}': all {rows.height} labelled held-out events on '{canvas}' are {kind}"
    return ""


def _states(wanted: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    columns = ("member_id", "state")
    return pl.concat([rows.select(columns) for rows in wanted.values()]).unique(maintain_order=True).sort("state")


def _drawn(states: pl.DataFrame, seed: int) -> pl.DataFrame:
    if states.height <= MOST_STATES:
        return states
    members = states.group_by("member_id", maintain_order=True).len().sample(fraction=1.0, shuffle=True, seed=seed)
    kept = members.filter(pl.col("len").cum_sum() <= MOST_STATES)
    return states.join(kept, on="member_id", how="semi", maintain_order="left")


def scored_rows(
    function: CanvasScorer,
    log: EventLog,
    canvas: str,
    wanted: Mapping[str, pl.DataFrame],
    resolved: ResolvedModel,
    seed: int = 0,
) -> dict[str, pl.DataFrame]:
    """Return what each head says of its rows: their `logit`, beside place, member_id, value and positive.

    `wanted` has each head's rows of `log`, about titles that the function scores. Where they have more than
    `MOST_STATES` states, members are drawn.
    """
    # In pieces, so that [G, T] stays small
    states, places = _drawn(_states(wanted), seed), TitleOrder(tuple(function.title_ids))
    softmax = {name for name in wanted if resolved.model.heads[name].loss in COMPETING}
    parts: dict[str, list[pl.DataFrame]] = {name: [] for name in wanted}
    for start in range(0, states.height, _AT_ONCE):
        part = states[start : start + _AT_ONCE].with_row_index("asked")
        logits = function.heads(_requests(log, resolved.canvas(canvas), part["state"].to_numpy()))
        for name, rows in wanted.items():
            own = rows.join(part.select("state", "asked"), on="state", maintain_order="left")
            values = logits[name].astype(np.float64)
            if name in softmax:
                top = values.max(axis=1, keepdims=True)
                values = values - top - np.log(np.exp(values - top).sum(axis=1, keepdims=True))
            found = values[own["asked"].to_numpy(), places.codes(own["title_id"])]
            parts[name].append(
                own.select("place", "member_id", "value", "positive").with_columns(pl.Series("logit", found))
            )
    return {name: pl.concat(found) for name, found in parts.items()}


def _requests(log: EventLog, canvas: CanvasSpec, positions: Ints64) -> list[Request]:
    rows = logged_frame(log.frame[positions], canvas).select(REQUEST_FIELDS).iter_rows(named=True)
    return [
        Request(canvas=canvas.name, history=log.past(position), features={}, **row)
        for position, row in zip(positions.tolist(), rows, strict=True)
    ]


def _row(name: str, rows: pl.DataFrame, resolved: ResolvedModel, judging: Judging) -> HeadRow:
    logit, label = rows["logit"].to_numpy(), rows["positive"].to_numpy().astype(np.float64)
    members = rows["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    orders = [metrics.auc(logit, label, weight) for weight in drawn_weights(members, judging.seed)]
    found = {"auc": interval_of(metrics.auc(logit, label), orders)}
    bins: list[dict[str, Any]] = []
    head = resolved.model.heads[name]
    meaning = loss_plugin(head.loss).meaning if head.loss is not None else "competing"
    if meaning == "value":
        scale = float(getattr(loss_options(str(head.loss), head.options), "scale", 1.0))
        error = np.abs(logit * scale - rows["value"].to_numpy())
        means = [float(np.average(error, weights=weight)) for weight in drawn_weights(members, judging.seed)]
        found["mae"] = interval_of(float(error.mean()), means)
    if meaning == "probability":
        probability = 1.0 / (1.0 + np.exp(-logit))
        spread = [metrics.ece(probability, label, weights=weight) for weight in drawn_weights(members, judging.seed)]
        found["ece"] = interval_of(metrics.ece(probability, label), spread)
        bins = metrics.reliability(probability, label).to_rows()
    return HeadRow(
        head=name,
        rows=rows.height,
        positives=int(label.sum()),
        members=int(members.max()) + 1,
        metrics={metric: one for metric, one in found.items() if not np.isnan(one.value)},
        reliability=bins,
    )


def drawn_weights(members: Ints64, seed: int, draws: int = RESAMPLES) -> Iterator[Floats64]:
    """Yield [R] weights of rows: how often each row's member was drawn."""
    generator = np.random.default_rng(seed)
    size = int(members.max()) + 1
    for _ in range(draws):
        yield np.bincount(generator.integers(0, size, size), minlength=size)[members].astype(np.float64)


def interval_of(value: float, draws: Sequence[float]) -> Interval:
    """Return a value with the 95 % interval of its draws; draws that are NaN say nothing."""
    known = np.array(draws)
    known = known[~np.isnan(known)]
    if known.size == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(value, float(low), float(high))
