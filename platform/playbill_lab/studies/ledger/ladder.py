"""The personalization ladder: what a model may know of its member, one rung after the other.

The rungs are UniCoRn's (Bhattacharya et al., RecSys 2024): nothing, the cluster a member belongs to, the scores of
another recommender, and a member's own history over title vectors that another model has learnt and this one tunes.
Members are clustered by the mean of their titles' vectors, a factorisation of the plays; a request reads the cluster of
when the week began, so a play never tells of itself.

Axis letters: N requests, T titles, M members, C clusters, D factors, P plays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from playbill.arrays import Floats64, Indices, Ints64
from playbill.datasets import Request
from playbill.definitions.specs import ResolvedModel
from playbill.evaluation.baselines.popularity import build_baseline
from playbill.evaluation.canvases.row_orders import RowRanker
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.cases.score_function import ScoreFunction, Scores
from playbill.features import FeatureColumn, ServiceSchema
from playbill.models.svd import svd_vectors
from playbill_lab.studies.ledger.arms import Answerer, answers
from playbill_lab.studies.ledger.data import METRICS, LedgerService, TitleCases
from playbill_lab.studies.ledger.models import with_recipe
from playbill_lab.studies.ledger.run import LedgerCell, LedgerRun, renamed

RUNGS = ("none", "cluster", "scores", "history", "vectors")
"""Rungs, the lowest first.

`none`: canvases without a member. `cluster`: the member's cluster as a feature. `scores`: beside it the scores of
EASE, with the weight that does best on the validation fold. `history`: the member's events, over title vectors that
start from noise. `vectors`: the same over vectors that start from a factorisation of the log.
"""
OTHER = "ease"  # The other recommender of the rung `scores`
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)  # Of its standardised scores, in units of the blend


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
    cases = run.canvases()
    key = run.digest(f"rung/{name}", resolved, cases)
    seed = resolved.model.training.seed
    return run.cells.get(f"rung/{name}-{seed}", key, lambda: _made(run, resolved, name))


def _made(run: LedgerRun, resolved: ResolvedModel, name: str) -> LedgerCell:
    service = clustered_service(run.service)
    cases = {canvas: service.cases(canvas) for canvas in run.canvases()}
    answerer, costs = run.trained(resolved, service.training_set(resolved), service)
    case = next((one.case for folds in cases.values() for one in folds if isinstance(one, TitleCases)), None)
    if name == "cluster" or case is None:
        return LedgerCell(answers(answerer, cases, run.options.k), costs)
    other = build_baseline(OTHER, case)
    tried = {weight: answers(StackedAnswerer(answerer, other, weight), cases, run.options.k) for weight in WEIGHTS}
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
    return replace(service, features=features, _requested={})


@dataclass(frozen=True)
class Stacked:
    """A score and another one's, standardised over the titles and weighed, added up."""

    function: ScoreFunction
    other: ScoreFunction
    weight: float  # Of the other

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
        return scores + self.weight * added


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


COLUMN = "member_cluster__cluster"
CLUSTERS, FACTORS, ROUNDS = 16, 16, 20
DAYS = 7  # A member's cluster is told anew so often

_WEEK = f"{DAYS}d"


@dataclass(frozen=True)
class ClusterFeatures:
    """The features of a service, and the cluster of each request's member beside them."""

    features: Any
    plays: pl.DataFrame  # [P] member_id and at, by member and time, with `row`: their own place
    sums: Floats64  # [P, D] sum of a member's title vectors up to each play
    centres: Floats64  # [C, D] unit vectors

    @classmethod
    def of(cls, features: Any, tables: EvaluationTables, plays: pl.DataFrame, seed: int = 0) -> ClusterFeatures:
        """Cluster members by their plays (member_id, title_id, event_at) of the training part alone."""
        numbers = {title: place + 1 for place, title in enumerate(tables.titles["title_id"].to_list())}
        ordered = plays.sort("member_id", "event_at").rename({"event_at": "at"})
        titles = ordered["title_id"].replace_strict(numbers, default=0, return_dtype=pl.Int64).to_numpy()
        members = ordered["member_id"].rle_id().to_numpy().astype(np.int64)
        factors = svd_vectors(titles, members, len(numbers) + 1, FACTORS, seed).astype(np.float64)
        total = np.cumsum(factors[titles], axis=0)
        first = np.searchsorted(members, members)
        before = np.where((first > 0)[:, None], total[np.maximum(first - 1, 0)], 0.0)
        sums = total - before
        last = np.nonzero(np.append(members[1:] != members[:-1], True))[0]
        centres = k_means(unit(sums[last]), CLUSTERS, seed)
        kept = ordered.select("member_id", "at").with_row_index("row")
        return cls(features, kept, sums, centres)

    def schema(self, service: str) -> ServiceSchema:
        """Return the service's columns and the cluster."""
        own = self.features.schema(service)
        column = FeatureColumn(COLUMN, "member_cluster", "cluster", "request", "categorical")
        return ServiceSchema(own.service, (*own.columns, column), f"{own.version}+clusters{CLUSTERS}")

    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the frame with the service's features and the cluster as of each row's week; null for the unknown."""
        found: pl.DataFrame = self.features.member_features(service, frame)
        return found.with_columns(self.clusters(frame["member_id"], frame["event_at"]).alias(COLUMN))

    def title_snapshots(
        self,
        service: str,
        moments: Sequence[datetime],
        title_ids: Sequence[str],
        countries: Sequence[str | None] | None = None,
    ) -> Any:
        """Return the service's title features."""
        return self.features.title_snapshots(service, moments, title_ids, countries)

    def clusters(self, members: pl.Series, moments: pl.Series) -> pl.Series:
        """Return [N] the cluster of each member when the week of each moment began."""
        cases = pl.DataFrame({"member_id": members, "at": moments.dt.truncate(_WEEK)}).with_row_index("asked")
        found = cases.sort("at").join_asof(
            self.plays.sort("at"),
            on="at",
            by="member_id",
            strategy="backward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        rows = found.sort("asked")["row"]
        known = rows.is_not_null().to_numpy()
        place = rows.fill_null(0).to_numpy().astype(np.int64)
        nearest = (unit(self.sums[place]) @ self.centres.T).argmax(axis=1) if len(self.plays) else place
        names = [f"c{number:02d}" if there else None for number, there in zip(nearest.tolist(), known, strict=True)]
        return pl.Series(COLUMN, names, dtype=pl.String)


def unit(vectors: Floats64) -> Floats64:
    """Return rows of length one; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def k_means(points: Floats64, count: int, seed: int) -> Floats64:
    """Return at most `count` unit centres [C, D] of unit points [M, D], grouped by cosine.

    Source: Dhillon and Modha, "Concept decompositions for large sparse text data", Machine Learning 2001.
    """
    size = min(count, len(points))
    start: Ints64 = np.random.default_rng(seed).choice(len(points), size, replace=False)
    centres = points[start]
    for _ in range(ROUNDS):
        nearest: Indices = (points @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        empty = np.linalg.norm(sums, axis=1) == 0
        centres = np.where(empty[:, None], centres, unit(sums))
    return centres
