"""Ranking metrics with binary relevance, one value per request.

Axis letters: N requests, K places in a list, M (request, target) pairs. Every metric takes `relevance` [N, K]:
True where the title in that place is one of the request's targets. A request may have several targets.
The list is the request's whole candidate set cut after K places; nothing is sampled.

Guards keep a metric that of its name: over the whole catalogue, never over a sample of titles.
"""

from __future__ import annotations

import numpy as np

from playbill.arrays import Floats64, Indices, Mask
from playbill.definitions.specs.measures import SAMPLED_REASON, sampled_reason
from playbill.errors import ComparisonError
from playbill.metrics.topk import NOT_RANKED


def relevance_from_ranks(ranks: Indices, rows: Indices, n: int, k: int) -> Mask:
    """Mark the places [N, K] that targets ([M] ranks and requests; rank 0 = no candidate) hold in the first `k`."""
    relevance = np.zeros((n, k), dtype=np.bool_)
    inside = (ranks != NOT_RANKED) & (ranks <= k)
    relevance[rows[inside], ranks[inside] - 1] = True
    return relevance


def hit_rate(relevance: Mask, k: int) -> Floats64:
    """Hit rate at k: 1 if any of the first k places holds a target, else 0.

    HR@k = 1[sum_{i<=k} rel_i > 0]. Range [0, 1]. With one target it equals recall@k. Source: Deshpande and
    Karypis, "Item-based top-N recommendation algorithms", TOIS 2004.
    """
    hit: Mask = np.any(relevance[:, :k], axis=1)
    return hit.astype(np.float64)


def recall(relevance: Mask, targets: Indices, k: int) -> Floats64:
    """Recall at k: share of the request's targets within the first k places.

    Recall@k = sum_{i<=k} rel_i / |targets|. Range [0, 1]; below 1 when there are more than k targets. Source:
    Herlocker et al., "Evaluating collaborative filtering recommender systems", TOIS 2004.
    """
    share: Floats64 = np.sum(relevance[:, :k], axis=1, dtype=np.float64) / _counts(targets)
    return share


def ndcg(relevance: Mask, targets: Indices, k: int) -> Floats64:
    """Normalised discounted cumulative gain at k, binary gains.

    DCG@k = sum_{i<=k} rel_i / log2(i + 1); NDCG@k = DCG@k / DCG@k of the best list, which has
    min(k, |targets|) targets in front. Range [0, 1]. With one target at rank r <= k it is 1 / log2(r + 1).
    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002.
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(_counts(targets), k) - 1]
    head = relevance[:, :k].astype(np.float64)
    gained: Floats64 = head @ discounts[: head.shape[1]]
    share: Floats64 = gained / ideal
    return share


def mrr(relevance: Mask, k: int) -> Floats64:
    """Reciprocal rank of the first target at k, 0 when none is in the first k places.

    RR@k = 1 / min{i <= k: rel_i}; its mean over requests is MRR@k. Range [0, 1]. Source: Voorhees, "The
    TREC-8 question answering track report", 1999.
    """
    head = relevance[:, :k]
    first = head.argmax(axis=1)
    return np.where(head.any(axis=1), 1.0 / (first + 1), 0.0)


def average_precision(relevance: Mask, targets: Indices, k: int | None = None) -> Floats64:
    """Average precision at k; its mean over requests is MAP@k.

    AP@k = sum_{i<=k} rel_i Precision@i / min(k, |targets|), with Precision@i = sum_{j<=i} rel_j / i. Range [0, 1].
    With one target at rank r <= k it is 1 / r, the reciprocal rank. Source: Buckley and Voorhees, "Evaluating
    evaluation measure stability", SIGIR 2000; the cut-off and its denominator as in trec_eval's successors.

    Without a cut-off it is over all K places, with every target in the denominator.
    """
    head = relevance if k is None else relevance[:, :k]
    found = np.cumsum(head, axis=1, dtype=np.float64)
    precision = np.where(head, found / np.arange(1, head.shape[1] + 1), 0.0)
    wanted = _counts(targets) if k is None else np.minimum(_counts(targets), k)
    share: Floats64 = precision.sum(axis=1) / wanted
    return share


def coverage(lists: Indices, k: int, catalogue: int) -> float:
    """Catalogue coverage at k: share of all titles that stand in anybody's first k places.

    Coverage@k = |union of the lists' first k| / |catalogue|. Range [0, 1]; at most N k / |catalogue|, so
    compare only over the same requests. Source: Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy:
    evaluating recommender systems by coverage and serendipity", RecSys 2010.

    Lists are [N, K >= k] title columns, -1 = empty place.
    """
    head = lists[:, :k]
    return float(np.unique(head[head >= 0]).size / catalogue) if catalogue else 0.0


def _counts(targets: Indices) -> Indices:
    if (targets < 1).any():
        raise ValueError("every request needs at least one target")
    return targets


def refuse_sampled(metric: str) -> str:
    """Return the metric's name, unless it names a sampled metric such as `sampled_ndcg@10`.

    Raises:
        ComparisonError: The name speaks of a sample of titles; the text says why that is refused.
    """
    if reason := sampled_reason(metric):
        raise ComparisonError(reason)
    return metric


def require_whole_catalogue(ranked: Mask, offered: Mask) -> None:
    """Check that everything a canvas may show ([N, T]) takes part in a ranking ([N, T]).

    Raises:
        ComparisonError: Titles on offer were left out of the ranking; names how many requests, and the first.
    """
    if ranked.shape != offered.shape:
        raise ValueError(f"ranked and offered must be alike, got {ranked.shape} and {offered.shape}")
    missing = np.sum(offered & ~ranked, axis=1)
    if missing.any():
        first = int(np.argmax(missing > 0))
        raise ComparisonError(
            f"{int((missing > 0).sum())} of {missing.size} requests rank a subset of what the canvas may show; the "
            f"first is request {first}, which leaves out {int(missing[first])} of {int(offered[first].sum())} titles: "
            f"{SAMPLED_REASON}"
        )
