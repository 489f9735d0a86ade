"""Guards that keep a metric the metric of its name: over the whole catalogue, never over a sample of titles."""

from __future__ import annotations

import numpy as np

from playbill.definitions.specs.sampled import SAMPLED_REASON, sampled_reason
from playbill.errors import ComparisonError
from playbill.metrics.topk import Mask


def refuse_sampled(metric: str) -> str:
    """Return the metric's name, unless it names a sampled metric such as `sampled_ndcg@10`.

    Raises:
        ComparisonError: The name speaks of a sample of titles; the text says why that is refused.
    """
    if reason := sampled_reason(metric):
        raise ComparisonError(reason)
    return metric


def require_whole_catalogue(ranked: Mask, offered: Mask) -> None:
    """Check that everything a canvas may show takes part in a ranking.

    Args:
        ranked: [N, T] titles that were ranked.
        offered: [N, T] titles that the canvas may show to these requests.

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
