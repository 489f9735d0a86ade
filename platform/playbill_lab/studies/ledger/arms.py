"""One model of a ledger on one seed: trained by the loop of `playbill train`, and measured on every canvas it serves.

It may learn from a part of a training set: the rows of some canvases and heads over the same encoder, titles and
histories. So models of one canvas each can be compared with one of all: what differs is whose rows teach them. Axis
letters: N requests, T titles, n tokens, R rows, m requests.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from playbill import metrics
from playbill.arrays import Bools, Floats64, Ints64
from playbill.datasets import TrainingSet
from playbill.datasets.batching.windows import Windows, cut_windows
from playbill.datasets.examples.rows import TrainingRows
from playbill.definitions.specs import ResolvedModel
from playbill.errors import StateError, UnknownNameError
from playbill.evaluation.beside import Beside, chosen
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.canvases.row_orders import BASELINES as ROW_BASELINES
from playbill.evaluation.canvases.row_orders import RowRanker, measured_order
from playbill.evaluation.cases.score_function import AlignedScorer, ScoreFunction
from playbill.ranking.scoring.scorer import Scorer
from playbill_lab.bridge.simulated_log import Fitted, trained_on
from playbill_lab.studies.ledger.data import METRICS, LedgerService, PolicyRequest, RowCases, TitleCases


@dataclass(frozen=True)
class Costs:
    """What a model costs."""

    train_seconds: float  # Wall clock in the training loop
    cpu_seconds: float  # Processor time of the same
    steps: int
    rows: int  # Labelled rows of an epoch, made ones left out
    parameters: int
    serving_bytes: int  # Of its weights and of the titles' vectors that serving keeps


class Answerer(Protocol):
    """What answers requests that have their features in them already."""

    def titles(self, canvas: str) -> ScoreFunction:
        """Return what scores titles on a canvas."""
        ...

    def rows(self, canvas: str) -> RowRanker:
        """Return what values rows on a canvas of rows."""
        ...


@dataclass(frozen=True)
class ModelAnswerer:
    """Answers with a model's blend on each canvas."""

    scorer: Scorer
    resolved: ResolvedModel

    def titles(self, canvas: str) -> ScoreFunction:
        """Return its scores of titles on a canvas."""
        return CanvasScorer(self.scorer, self.resolved, canvas, None)

    def rows(self, canvas: str) -> RowRanker:
        """Return its values of rows on a canvas of rows."""
        return RowRanker(self.scorer, self.resolved, canvas, None)


def fitted(data: TrainingSet, resolved: ResolvedModel, folder: Path) -> tuple[Fitted, float, int]:
    """Train a model, and return it with the processor seconds and steps it took."""
    begun, steps = time.process_time(), [0]

    def count(progress: Any) -> None:
        steps[0] = progress.step

    seeded = replace(data, settings=replace(data.settings, seed=resolved.model.training.seed))
    found = trained_on(seeded, resolved, folder, count)
    return found, time.process_time() - begun, steps[0]


def scorer_of(service: LedgerService, found: Fitted, data: TrainingSet) -> Scorer:
    """Return a scorer of a trained model over the catalogue as it was known when training ended."""
    titles = service.frames.titles_at(data.watermark)
    return Scorer(found.bundle, titles, service.frames.availability, service.features, as_of=data.watermark)


def costs_of(found: Fitted, scorer: Scorer, data: TrainingSet, cpu_seconds: float, steps: int) -> Costs:
    """Gather what a trained model costs."""
    return Costs(found.seconds, cpu_seconds, steps, taught_rows(data), found.parameters, serving_bytes(scorer))


def serving_bytes(scorer: Scorer) -> int:
    """Return the bytes that a server keeps for a model: its weights, and a float32 vector of each title."""
    weights = sum(int(tensor.nbytes) for tensor in scorer.network.state_dict().values())
    return weights + 4 * len(scorer.title_ids) * scorer.network.config.trunk.dim


def answers(answerer: Answerer, cases: Mapping[str, Sequence[PolicyRequest]], k: int) -> pl.DataFrame:
    """Return canvas, fold, place (of each held-out request in the canvas) and a column for each of `METRICS` at k."""
    nothing = {"canvas": pl.String, "fold": pl.String, **dict.fromkeys(METRICS, pl.Float64), "place": pl.Int64}
    parts = [pl.DataFrame(schema=nothing)]
    for canvas, folds in cases.items():
        values = np.concatenate([_values(answerer, one, k) for one in folds])
        named = {name: values[:, place] for place, name in enumerate(METRICS)}
        named["place"] = np.arange(len(values))
        fold = [one.case.fold for one in folds for _ in range(len(one.case))]
        parts.append(pl.DataFrame({"canvas": [canvas] * len(values), "fold": fold, **named}))
    return pl.concat(parts)


def baseline_values(
    cases: Sequence[PolicyRequest], resolved: ResolvedModel, beside: Beside, k: int
) -> dict[str, Floats64]:
    """Return what baselines reach on a canvas's requests: name -> [N, metrics], fold after fold."""
    found: dict[str, list[Floats64]] = {}
    for one in cases:
        if isinstance(one, RowCases):
            values = {name: _row_values(one, order.values(one.case), k) for name, order in ROW_BASELINES.items()}
        else:
            fitted = beside.of(chosen(None, one.case, resolved)[0], one.case, resolved)
            values = {name: _title_values(one, function, k) for name, function in fitted.items()}
        for name, own in values.items():
            found.setdefault(name, []).append(own)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _values(answerer: Answerer, cases: PolicyRequest, k: int) -> Floats64:
    """Return [N, metrics] of one fold's requests."""
    if isinstance(cases, RowCases):
        return _row_values(cases, answerer.rows(cases.canvas).of_requests(cases.case, cases.requests), k)
    return _title_values(cases, answerer.titles(cases.canvas), k)


def _row_values(cases: RowCases, values: Floats64, k: int) -> Floats64:
    measured = measured_order(cases.case, values, (k,)).values
    return np.stack([measured[f"{name}@{k}"] for name in METRICS], axis=1)


def _title_values(cases: TitleCases, function: ScoreFunction, k: int) -> Floats64:
    aligned = AlignedScorer(cases.canvas, function, cases.case.catalogue)
    found = np.zeros((len(cases.case), len(METRICS)))
    counts = cases.case.target_counts
    for chunk in cases.chunks:
        scores, mask = aligned.score(chunk.requests, chunk.candidates)
        size = len(chunk.requests)
        ranks = metrics.target_ranks(scores, chunk.rows, chunk.columns, mask)
        relevance = metrics.relevance_from_ranks(ranks, chunk.rows, size, k)
        part = slice(chunk.start, chunk.start + size)
        lists = (metrics.ndcg(relevance, counts[part], k), metrics.mrr(relevance, k), metrics.hit_rate(relevance, k))
        found[part] = np.stack(lists, axis=1)
    return found


def canvas_rows(
    data: TrainingSet, resolved: ResolvedModel, canvases: Collection[str], heads: Collection[str]
) -> TrainingSet:
    """Return the part of a training set, built for the model `resolved`, that teaches some heads about some canvases.

    Rows of other canvases are kept only where rows of these are made from them, and then teach nothing themselves.

    Raises:
        UnknownNameError: The training set has no such head.
        StateError: No row is left.
    """
    for head in heads:
        if head not in data.rows.labels:
            raise UnknownNameError("head", head, data.rows.labels)
    codes = data.encoder.vocabulary("canvas").encode(sorted(canvases)).astype(np.int64)
    own = np.isin(np.asarray(data.context.canvas)[data.rows.request], codes[codes > 0])
    own &= _teaches(data, heads)
    tasks = tuple(task for task in data.settings.tasks if task.canvas in codes)
    ranking = [head for head in heads if head in data.settings.softmax]
    sources = data.rows.next & _positive(data.rows, ranking) if tasks else np.zeros(len(own), np.bool_)
    if not (own | sources).any():
        raise StateError(f"no labelled row of the training part is on canvas {', '.join(sorted(canvases))}")
    kept = np.nonzero(own | sources)[0]
    rows = _rows(data.rows, own, kept, heads)
    pages = replace(data.pages, entry=data.pages.entry[kept]) if len(data.pages.entry) else data.pages
    settings = replace(
        data.settings,
        tasks=tasks,
        softmax=tuple(head for head in data.settings.softmax if head in heads),
        negatives={head: options for head, options in data.settings.negatives.items() if head in heads},
    )
    rewards = {head: version for head, version in data.rewards.items() if head in heads}
    windows = _windows(data, rows, resolved)
    return replace(data, rows=rows, pages=pages, windows=windows, settings=settings, rewards=rewards, left_out={})


def rows_by_canvas(data: TrainingSet, heads: Collection[str]) -> dict[str, int]:
    """Return canvas -> rows that teach some of the heads; those on canvases the encoder does not know are left out."""
    names = data.encoder.vocabulary("canvas").entries
    known = np.asarray(data.context.canvas)[data.rows.request][_teaches(data, heads)]
    counts = np.bincount(known, minlength=len(names) + 1)
    return {name: int(counts[place + 1]) for place, name in enumerate(names)}


def taught_rows(data: TrainingSet) -> int:
    """Return how many logged rows teach something."""
    taught = _teaches(data, tuple(data.rows.labels))
    return int((taught & ~data.rows.silent).sum()) if len(data.rows.silent) else int(taught.sum())


def _teaches(data: TrainingSet, heads: Collection[str]) -> Bools:
    """[R] whether a row teaches some head: by any label, or for a head that ranks by one above 0."""
    found = np.zeros(len(data.rows), np.bool_)
    for head in heads:
        labels = data.rows.labels[head]
        found |= labels > 0 if head in data.settings.softmax else ~np.isnan(labels)
    return found


def _positive(rows: TrainingRows, heads: Collection[str]) -> Bools:
    """[R] whether a row is a target of some head."""
    found = np.zeros(len(rows), np.bool_)
    for head in heads:
        found |= rows.labels[head] > 0
    return found


def _rows(rows: TrainingRows, own: Bools, place: Ints64, heads: Collection[str]) -> TrainingRows:
    slate, offsets = rows.slate, rows.slate_offsets
    if len(offsets):
        slate, offsets = _slates(rows, place)
    return replace(
        rows,
        slot=rows.slot[place],
        title=rows.title[place],
        request=rows.request[place],
        next=rows.next[place],
        labels={head: rows.labels[head][place] for head in heads},
        weights={head: values[place] for head, values in rows.weights.items() if head in heads},
        copies=rows.copies[place] if len(rows.copies) else rows.copies,
        slate=slate,
        slate_offsets=offsets,
        silent=np.zeros(0, np.bool_) if own[place].all() else ~own[place],
    )


def _slates(rows: TrainingRows, place: Ints64) -> tuple[Ints64, Ints64]:
    size = np.diff(rows.slate_offsets)[place]
    offsets = np.zeros(len(place) + 1, np.int64)
    offsets[1:] = np.cumsum(size)
    flat = np.arange(offsets[-1]) + np.repeat(rows.slate_offsets[place] - offsets[:-1], size)
    return rows.slate[flat], offsets


def _windows(data: TrainingSet, rows: TrainingRows, resolved: ResolvedModel) -> Windows:
    """Cut windows that end where the last kept row of each member is; members without one have none."""
    members = max(int(data.token_member.max(initial=-1)), int(data.windows.member.max(initial=-1))) + 1
    counts = np.bincount(data.token_member, minlength=members)
    first = np.cumsum(counts) - counts + np.arange(members)
    member = np.searchsorted(first, rows.slot, side="right") - 1
    reach = np.full(members, -1, np.int64)
    np.maximum.at(reach, member, rows.slot - first[member])
    # Tokens after the last row are no inputs: they would be read for nothing.
    cut = np.minimum(counts, reach + 1)
    windows = cut_windows(cut, resolved.model.history.length, resolved.model.training.stride, reach)
    offset = np.cumsum(counts) - counts - (np.cumsum(cut) - cut)
    return replace(windows, start=windows.start + offset[windows.member])
