"""Metrics over the full catalogue, and their intervals.

Nothing here samples candidates: a metric against a few random negatives is not the metric of its name, and is
refused by name (`refuse_sampled`).
"""

from playbill.metrics.beyond_accuracy import (
    WeightedValues,
    calibration,
    genre_mix,
    genre_shares,
    inverse_popularity,
    novelty,
    popularity_debiased_ndcg,
    self_information,
)
from playbill.metrics.bootstrap import Interval, MemberBootstrap, member_bootstrap
from playbill.metrics.comparisons import SeedInterval, adjust_p, relative_interval, seed_interval
from playbill.metrics.probabilities import Reliability, auc, ece, log_loss, reliability
from playbill.metrics.ranking import (
    average_precision,
    coverage,
    hit_rate,
    mrr,
    ndcg,
    recall,
    refuse_sampled,
    relevance_from_ranks,
    require_whole_catalogue,
)
from playbill.metrics.topk import NOT_RANKED, lists_and_ranks, ranks_within, target_ranks, top_k

__all__ = [
    "NOT_RANKED",
    "Interval",
    "MemberBootstrap",
    "Reliability",
    "SeedInterval",
    "WeightedValues",
    "adjust_p",
    "auc",
    "average_precision",
    "calibration",
    "coverage",
    "ece",
    "genre_mix",
    "genre_shares",
    "hit_rate",
    "inverse_popularity",
    "lists_and_ranks",
    "log_loss",
    "member_bootstrap",
    "mrr",
    "ndcg",
    "novelty",
    "popularity_debiased_ndcg",
    "ranks_within",
    "recall",
    "refuse_sampled",
    "relative_interval",
    "relevance_from_ranks",
    "reliability",
    "require_whole_catalogue",
    "seed_interval",
    "self_information",
    "target_ranks",
    "top_k",
]
