"""One model of a ledger on one seed: trained by the loop of `playbill train`, and asked on every canvas it serves.

Axis letters: N requests, T titles.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from playbill import metrics
from playbill.datasets import TrainingSet
from playbill.evaluation.beside import Beside, chosen
from playbill.evaluation.model import CanvasScorer
from playbill.evaluation.row_order import BASELINES as ROW_BASELINES
from playbill.evaluation.row_order import RowRanker, measured_order
from playbill.evaluation.scoring import AlignedScorer, ScoreFunction
from playbill.metrics.bootstrap import Matrix
from playbill.metrics.ranking import Values
from playbill.ranking.scorer import Scorer
from playbill.specs import ResolvedModel
from playbill_lab.bridge.training import Fitted, trained_on
from playbill_lab.studies.ledger.canvas_rows import taught_rows
from playbill_lab.studies.ledger.data import Asked, AskedRows, AskedTitles, LedgerService
from playbill_lab.studies.ledger.options import METRICS


@dataclass(frozen=True)
class Costs:
    """What a model costs.

    Args:
        train_seconds: Wall clock in the training loop.
        cpu_seconds: Processor time of the same.
        steps: Optimizer steps.
        rows: Labelled rows of an epoch, made ones left out.
        parameters: Weights of the network.
        serving_bytes: Of its weights and of the titles' vectors that serving keeps.
    """

    train_seconds: float
    cpu_seconds: float
    steps: int
    rows: int
    parameters: int
    serving_bytes: int


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


def answers(answerer: Answerer, asked: Mapping[str, Sequence[Asked]], k: int) -> pl.DataFrame:
    """Ask a model every held-out request of some canvases.

    Returns:
        canvas, fold, place (of the request among the canvas's), and a column for each of `METRICS` at k.
    """
    nothing = {"canvas": pl.String, "fold": pl.String, **dict.fromkeys(METRICS, pl.Float64), "place": pl.Int64}
    parts = [pl.DataFrame(schema=nothing)]
    for canvas, folds in asked.items():
        values = np.concatenate([_values(answerer, one, k) for one in folds])
        named = {name: values[:, place] for place, name in enumerate(METRICS)}
        named["place"] = np.arange(len(values))
        fold = [one.case.fold for one in folds for _ in range(len(one.case))]
        parts.append(pl.DataFrame({"canvas": [canvas] * len(values), "fold": fold, **named}))
    return pl.concat(parts)


def baseline_values(asked: Sequence[Asked], resolved: ResolvedModel, beside: Beside, k: int) -> dict[str, Matrix]:
    """Return what baselines reach on a canvas's requests: name -> [N, metrics], fold after fold.

    Args:
        asked: The canvas's folds.
        resolved: The model that they stand beside.
        beside: Baselines of the log that were fitted for other canvases.
        k: Places of a list.
    """
    found: dict[str, list[Matrix]] = {}
    for one in asked:
        if isinstance(one, AskedRows):
            values = {name: _row_values(one, order.values(one.case), k) for name, order in ROW_BASELINES.items()}
        else:
            fitted = beside.of(chosen(None, one.case, resolved)[0], one.case, resolved)
            values = {name: _title_values(one, function, k) for name, function in fitted.items()}
        for name, own in values.items():
            found.setdefault(name, []).append(own)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _values(answerer: Answerer, asked: Asked, k: int) -> Matrix:
    """Return [N, metrics] of one fold's requests."""
    if isinstance(asked, AskedRows):
        return _row_values(asked, answerer.rows(asked.canvas).of_requests(asked.case, asked.requests), k)
    return _title_values(asked, answerer.titles(asked.canvas), k)


def _row_values(asked: AskedRows, values: Values, k: int) -> Matrix:
    measured = measured_order(asked.case, values, (k,)).values
    return np.stack([measured[f"{name}@{k}"] for name in METRICS], axis=1)


def _title_values(asked: AskedTitles, function: ScoreFunction, k: int) -> Matrix:
    aligned = AlignedScorer(asked.canvas, function, asked.case.catalogue)
    found = np.zeros((len(asked.case), len(METRICS)))
    counts = asked.case.target_counts
    for chunk in asked.chunks:
        scores, mask = aligned.score(chunk.requests, chunk.candidates)
        size = len(chunk.requests)
        ranks = metrics.target_ranks(scores, chunk.rows, chunk.columns, mask)
        relevance = metrics.relevance_from_ranks(ranks, chunk.rows, size, k)
        part = slice(chunk.start, chunk.start + size)
        lists = (metrics.ndcg(relevance, counts[part], k), metrics.mrr(relevance, k), metrics.hit_rate(relevance, k))
        found[part] = np.stack(lists, axis=1)
    return found
