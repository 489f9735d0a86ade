"""Sampled metrics are refused by name, wherever a metric can be named.

Source: Krichene and Rendle, "On sampled metrics for item recommendation", KDD 2020: they order models differently
from the metrics whose names they carry. ML-1M prints NDCG@10 near 0.59 against 100 random negatives and 0.13 to 0.19
against the catalogue.
"""

from __future__ import annotations

import re

SAMPLED_REASON = (
    "a metric against a sample of titles orders models differently from the one over the whole catalogue, and prints "
    "numbers several times too high; Playbill ranks everything that a canvas may show"
)

_SAMPLED = re.compile(
    r"(^|[_\-.@])(sampled?|samples|sampling|subsampled?)([_\-.@\d]|$)"  # sampled_ndcg, ndcg@10_sampled, hr_sample100
    r"|negatives?|(^|[_\-.@])neg_?\d+"  # hr_99_negatives, ndcg_neg100
    r"|\d+_?(vs|in|plus|\+)_?\d+",  # ndcg_1vs100, hr_1_plus_99
    re.IGNORECASE,
)


def sampled_reason(metric: str) -> str | None:
    """Say why a metric's name is refused, or return None when it speaks of no sample of titles.

    Args:
        metric: Such as `sampled_ndcg@10`.
    """
    return f"metric '{metric}' is not offered: {SAMPLED_REASON}" if _SAMPLED.search(metric) else None
