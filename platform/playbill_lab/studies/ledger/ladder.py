"""The personalization ladder: what a model may know of its member, one rung after the other.

The rungs are UniCoRn's (Bhattacharya et al., RecSys 2024): nothing, the cluster a member belongs to, the scores of
another recommender, and a member's own history over title vectors that another model has learnt and this one tunes.
Axis letters: N requests, T titles, M members, C clusters, D factors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from playbill.datasets import Request
from playbill.evaluation.baselines import build_baseline
from playbill.evaluation.row_order import RowRanker
from playbill.evaluation.scoring import ScoreFunction, Scores
from playbill.specs import ResolvedModel
from playbill_lab.studies.ledger.arms import Answerer, ModelAnswerer, answers, costs_of, fitted, scorer_of
from playbill_lab.studies.ledger.cells import LedgerCell
from playbill_lab.studies.ledger.clusters import ClusterFeatures
from playbill_lab.studies.ledger.data import AskedTitles, LedgerService
from playbill_lab.studies.ledger.models import with_recipe
from playbill_lab.studies.ledger.options import METRICS
from playbill_lab.studies.ledger.run import LedgerRun, renamed

RUNGS = ("none", "cluster", "scores", "history", "vectors")
"""Rungs, the lowest first.

`none`: canvases without a member. `cluster`: the member's cluster as a feature. `scores`: beside it the scores of
EASE, with the weight that does best on the validation fold. `history`: the member's events, over title vectors that
start from noise. `vectors`: the same over vectors that start from a factorisation of the log.
"""
OTHER = "ease"
"""The other recommender of the rung `scores`."""
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Of its standardised scores, in units of the blend."""


def rung(run: LedgerRun, name: str) -> Sequence[LedgerCell]:
    """Return the cells of one rung."""
    titles = run.resolved.model.titles
    if name in ("history", "vectors"):
        started = name == "vectors"
        if titles.svd_start is started:
            return run.consolidated()
        model = run.resolved.model.model_copy(update={"titles": titles.model_copy(update={"svd_start": started})})
        other = renamed(run.resolved.model_copy(update={"model": model}), f"rung_{name}")
        return run.arm(f"rung/{name}", other, lambda _: run.service.data)
    plain = renamed(without_member(run.resolved), f"rung_{name}")
    if name == "none":
        return run.arm("rung/none", plain, run.rebuilt)
    return [_clustered(run, with_recipe(plain, seed), name) for seed in run.options.seeds]


def without_member(resolved: ResolvedModel) -> ResolvedModel:
    """Return a model whose canvases do not know who asks."""
    canvases = {
        name: canvas.model_copy(update={"context": tuple(field for field in canvas.context if field != "member")})
        for name, canvas in resolved.canvases.items()
    }
    return resolved.model_copy(update={"canvases": canvases})


def _clustered(run: LedgerRun, resolved: ResolvedModel, name: str) -> LedgerCell:
    """Return a cell of a model that knows its member's cluster; for `scores` it is stacked with the other's scores.

    Both rungs come from one training, so `scores` is trained again only where `cluster` was not kept with it.
    """
    asked = run.canvases()
    key = run.digest(f"rung/{name}", resolved, asked)
    seed = resolved.model.training.seed
    return run.cells.get(f"rung/{name}-{seed}", key, lambda: _made(run, resolved, name))


def _made(run: LedgerRun, resolved: ResolvedModel, name: str) -> LedgerCell:
    service = clustered_service(run.service)
    asked = {canvas: service.asked(canvas) for canvas in run.canvases()}
    data = service.training_set(resolved)
    with tempfile.TemporaryDirectory(dir=run.cells.folder) as scratch:
        found, cpu_seconds, steps = fitted(data, resolved, Path(scratch) / "bundle")
        scorer = scorer_of(service, found, data)
    costs = costs_of(found, scorer, data, cpu_seconds, steps)
    answerer = ModelAnswerer(scorer, found.bundle.resolved)
    if name == "cluster":
        return LedgerCell(answers(answerer, asked, run.options.k), costs)
    case = next((one.case for folds in asked.values() for one in folds if isinstance(one, AskedTitles)), None)
    if case is None:
        return LedgerCell(answers(answerer, asked, run.options.k), costs)
    other = build_baseline(OTHER, case)
    tried = {weight: answers(StackedAnswerer(answerer, other, weight), asked, run.options.k) for weight in WEIGHTS}
    return LedgerCell(best_by_canvas(tried), costs)


def best_by_canvas(tried: dict[float, pl.DataFrame]) -> pl.DataFrame:
    """Return for each canvas the answers under the weight that does best on its validation fold."""
    frame = pl.concat([values.with_columns(weight=pl.lit(weight)) for weight, values in tried.items()])
    judged = frame.filter(pl.col("fold") == "validation").group_by("canvas", "weight").agg(pl.col(METRICS[0]).mean())
    best = judged.sort(METRICS[0], "weight", descending=[True, False]).unique("canvas", keep="first")
    chosen = frame.join(best.select("canvas", "weight"), on=["canvas", "weight"], maintain_order="left")
    missing = frame.filter(pl.col("weight") == WEIGHTS[0]).join(best, on="canvas", how="anti", maintain_order="left")
    return pl.concat([chosen, missing]).drop("weight")


def clustered_service(service: LedgerService) -> LedgerService:
    """Return the service with one more feature: the cluster of each request's member."""
    features = ClusterFeatures.of(service.features, service.frames, service.log.fitted_plays())
    return LedgerService(
        tables=service.tables,
        frames=service.frames,
        resolved=service.resolved,
        split=service.split,
        features=features,
        clock=service.clock,
        options=service.options,
        snapshot=service.snapshot,
    )


@dataclass(frozen=True)
class Stacked:
    """A score and another one's, standardised over the titles and weighed, added up.

    Args:
        function: The score.
        other: Another recommender's, over the same or more titles.
        weight: Of the other.
    """

    function: ScoreFunction
    other: ScoreFunction
    weight: float

    @property
    def title_ids(self) -> Sequence[str]:
        """The titles of the score."""
        return self.function.title_ids

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T]; a title that the other does not know gets its mean."""
        scores = self.function.score(requests)
        if not self.weight:
            return scores
        theirs = np.asarray(self.other.score(requests), np.float64)
        spread = theirs.std(axis=1, keepdims=True)
        standard = (theirs - theirs.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
        places = {title: place for place, title in enumerate(self.other.title_ids)}
        columns = np.array([places.get(title, -1) for title in self.title_ids], np.int64)
        added = np.where(columns >= 0, standard[:, columns], 0.0)
        stacked: Scores = scores + self.weight * added
        return stacked


@dataclass(frozen=True)
class StackedAnswerer:
    """Answers with a stack on each canvas of titles; rows have no other score, and are valued as they were."""

    own: Answerer
    other: ScoreFunction
    weight: float

    def titles(self, canvas: str) -> ScoreFunction:
        """Return the stacked scores of titles on a canvas."""
        return Stacked(self.own.titles(canvas), self.other, self.weight)

    def rows(self, canvas: str) -> RowRanker:
        """Return the values of rows on a canvas of rows."""
        return self.own.rows(canvas)
