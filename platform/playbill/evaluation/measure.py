"""Runs score functions over a case and keeps one value per request and metric.

Axis letters: N requests, T titles, K places, M targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from playbill import metrics
from playbill.errors import ConfigError
from playbill.evaluation.cases import Chunk, EvaluationCase
from playbill.evaluation.scoring import AlignedScorer, ScoreFunction
from playbill.metrics.ranking import Values
from playbill.metrics.topk import Indices, Mask

Progress = Callable[[int, int], None]
"""Called with (requests done, requests in all)."""


@dataclass(frozen=True)
class Measured:
    """What one score function did on a case.

    Args:
        values: Metric such as `ndcg@10` -> [N].
        coverage: Metric such as `coverage@10` -> share of the catalogue.
        ranks: [M] rank of each target, 0 = it was no candidate of the function.
    """

    values: dict[str, Values]
    coverage: dict[str, float]
    ranks: Indices

    def frame(self, prefix: str) -> pl.DataFrame:
        """Return the values as columns `prefix/metric`."""
        return pl.DataFrame({f"{prefix}/{name}": values for name, values in self.values.items()})


@dataclass
class _Collected:
    relevance: Mask
    lists: Indices
    ranks: Indices


def measure(
    case: EvaluationCase,
    functions: Mapping[str, ScoreFunction],
    k: Sequence[int],
    progress: Progress | None = None,
) -> dict[str, Measured]:
    """Score every request of a case with every function, over the same candidates.

    Args:
        case: Requests, targets, candidates.
        functions: Name -> score function.
        k: Cut-offs, each at least 1.
        progress: Told after every chunk.

    Returns:
        Name -> what it did, in the order given.

    Raises:
        ConfigError: A cut-off is not positive, or there is none.
        IntegrityError: A function returned something that is no score.
    """
    if not k or min(k) < 1:
        raise ConfigError(f"metrics need cut-offs of at least 1, got {list(k)}")
    depth, n = max(k), len(case)
    aligned = [AlignedScorer(name, function, case.catalogue) for name, function in functions.items()]
    collected = {
        name: _Collected(
            np.zeros((n, depth), dtype=np.bool_),
            np.zeros((n, depth), dtype=np.int64),
            np.zeros(case.rows.size, dtype=np.int64),
        )
        for name in functions
    }
    seen = 0
    for chunk in case.chunks():
        for scorer in aligned:
            _collect(collected[scorer.name], scorer, chunk, seen, depth)
        seen += chunk.rows.size
        if progress is not None:
            progress(chunk.start + len(chunk.requests), n)
    return {name: _measured(found, case, k) for name, found in collected.items()}


def _collect(into: _Collected, scorer: AlignedScorer, chunk: Chunk, seen: int, depth: int) -> None:
    scores, mask = scorer.score(chunk.requests, chunk.candidates)
    ranks = metrics.target_ranks(scores, chunk.rows, chunk.columns, mask)
    n = len(chunk.requests)
    into.relevance[chunk.start : chunk.start + n] = metrics.relevance_from_ranks(ranks, chunk.rows, n, depth)
    into.lists[chunk.start : chunk.start + n] = metrics.top_k(scores, depth, mask)
    into.ranks[seen : seen + ranks.size] = ranks


def _measured(found: _Collected, case: EvaluationCase, k: Sequence[int]) -> Measured:
    targets, relevance = case.target_counts, found.relevance
    values: dict[str, Values] = {}
    for cut in sorted(set(k)):
        values[f"hr@{cut}"] = metrics.hit_rate(relevance, cut)
        values[f"ndcg@{cut}"] = metrics.ndcg(relevance, targets, cut)
        values[f"mrr@{cut}"] = metrics.mrr(relevance, cut)
        if (targets > 1).any():  # with one target it is the hit rate
            values[f"recall@{cut}"] = metrics.recall(relevance, targets, cut)
    titles = len(case.catalogue)
    covered = {f"coverage@{cut}": metrics.coverage(found.lists, cut, titles) for cut in sorted(set(k))}
    return Measured(values, covered, found.ranks)
