"""Clusters of members as a feature: what a model may know of someone without reading their history.

Members are grouped by the mean of their titles' vectors, a factorisation of the plays. A request reads the group that
its member was in when the week began, so a play never tells of itself.
Letters: T titles, D factors, P plays, M members, C clusters, N requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.evaluation.data import EvaluationTables
from playbill.features import FeatureColumn, ServiceSchema
from playbill.metrics.bootstrap import Matrix
from playbill.metrics.topk import Indices
from playbill.models.svd import svd_vectors

COLUMN = "member_cluster__cluster"
CLUSTERS, FACTORS, ROUNDS = 16, 16, 20
DAYS = 7
"""A member's cluster is told anew so often."""

_WEEK = f"{DAYS}d"


@dataclass(frozen=True)
class ClusterFeatures:
    """The features of a service, and the cluster of each request's member beside them.

    Args:
        features: The service's own features.
        plays: [P] member_id and at, by member and time, with `row`: their own place.
        sums: [P, D] sum of a member's title vectors up to each play.
        centres: [C, D] unit vectors.
    """

    features: Any
    plays: pl.DataFrame
    sums: Matrix
    centres: Matrix

    @classmethod
    def of(cls, features: Any, tables: EvaluationTables, plays: pl.DataFrame, seed: int = 0) -> ClusterFeatures:
        """Group members by their plays.

        Args:
            features: What is read beside the cluster.
            tables: For the titles.
            plays: member_id, title_id and event_at, of the training part alone.
            seed: Of the factorisation and of the first centres.
        """
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

    def title_snapshots(self, service: str, moments: Sequence[datetime], title_ids: Sequence[str]) -> Any:
        """Return the service's title features."""
        return self.features.title_snapshots(service, moments, title_ids)

    def clusters(self, members: pl.Series, moments: pl.Series) -> pl.Series:
        """Return [N] the cluster of each member when the week of each moment began."""
        asked = pl.DataFrame({"member_id": members, "at": moments.dt.truncate(_WEEK)}).with_row_index("asked")
        found = asked.sort("at").join_asof(
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


def unit(vectors: Matrix) -> Matrix:
    """Return rows of length one; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def k_means(points: Matrix, count: int, seed: int) -> Matrix:
    """Return at most `count` unit centres of unit points, grouped by cosine.

    Source: Dhillon and Modha, "Concept decompositions for large sparse text data", Machine Learning 2001.

    Args:
        points: [M, D].
        count: C.
        seed: Of the points that the centres start from.
    """
    size = min(count, len(points))
    start: npt.NDArray[np.int64] = np.random.default_rng(seed).choice(len(points), size, replace=False)
    centres = points[start]
    for _ in range(ROUNDS):
        nearest: Indices = (points @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        empty = np.linalg.norm(sums, axis=1) == 0
        centres = np.where(empty[:, None], centres, unit(sums))
    return centres
