"""Scores to lists: the best candidates, ties by column ascending."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.metrics.topk import NOT_LISTED, top_k
from playbill.ranking.blend import Scores
from playbill.ranking.candidates import Columns, Mask


@dataclass(frozen=True)
class RankedList:
    """Columns, best first, and their scores."""

    columns: Columns
    scores: Scores

    def __len__(self) -> int:
        return len(self.columns)

    def head(self, k: int) -> RankedList:
        """Return the first `k`."""
        return RankedList(self.columns[:k], self.scores[:k])

    def without(self, taken: Mask) -> RankedList:
        """Return what is left when some columns are taken out, in the same order."""
        kept = ~taken[self.columns]
        return RankedList(self.columns[kept], self.scores[kept])


def rank(scores: Scores, candidates: Mask, k: int | None = None) -> RankedList:
    """List candidates by score, best first; of equal scores the smaller column comes first.

    Args:
        scores: [T], no NaN among candidates.
        candidates: [T], nothing else is listed.
        k: Length at most; None lists every candidate.

    Raises:
        ValueError: The shapes differ, `k` is not positive, or a candidate's score is NaN.
    """
    length = int(candidates.sum()) if k is None else k
    if k is None and length == 0:
        return RankedList(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))
    columns = top_k(scores[None, :], length, candidates[None, :])[0]
    columns = columns[columns != NOT_LISTED]
    return RankedList(columns, scores[columns])
