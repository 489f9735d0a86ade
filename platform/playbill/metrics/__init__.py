"""Ranking metrics over the full catalogue, and paired bootstrap intervals by member.

Nothing here samples candidates: a metric against a few random negatives is not the metric of its name.
"""

from playbill.metrics.bootstrap import Interval, MemberBootstrap, member_bootstrap
from playbill.metrics.ranking import (
    coverage,
    hit_rate,
    mrr,
    ndcg,
    recall,
    relevance_from_lists,
    relevance_from_ranks,
)
from playbill.metrics.topk import NOT_RANKED, target_ranks, top_k

__all__ = [
    "NOT_RANKED",
    "Interval",
    "MemberBootstrap",
    "coverage",
    "hit_rate",
    "member_bootstrap",
    "mrr",
    "ndcg",
    "recall",
    "relevance_from_lists",
    "relevance_from_ranks",
    "target_ranks",
    "top_k",
]
