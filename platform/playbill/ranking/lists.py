"""Scores to lists: the best candidates, ties by column ascending."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    if scores.shape != candidates.shape or scores.ndim != 1:
        raise ValueError(f"scores and candidates must be [T] alike, got {scores.shape} and {candidates.shape}")
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    columns = np.flatnonzero(candidates)
    if np.isnan(scores[columns]).any():
        raise ValueError("a candidate's score is NaN")
    if k is not None:
        columns = _near_best(scores, columns, k)
    values = scores[columns]
    order = np.argsort(-values, kind="stable")[:k]
    return RankedList(columns[order], values[order])


def break_ties(scores: Scores, ties: Scores, candidates: Mask, k: int) -> Scores:
    """Order candidates of equal score by another score, as far as the best `k` go.

    A candidate's score rises by less than half of what it lacks to the next higher one. Only those that can be among
    the best `k` are looked at, so that a page pays for the titles it shows and not for the catalogue.

    Args:
        scores: [T], finite.
        ties: [T], -inf and NaN come last.
        candidates: [T].
        k: How many have to be in order.

    Returns:
        [T] scores; `rank` lists the best `k` candidates by score, then by `ties`.
    """
    near = _near_best(scores, np.flatnonzero(candidates), k)
    levels, level = np.unique(scores[near], return_inverse=True)
    if len(levels) == len(near):
        return scores
    gaps = np.diff(levels, append=levels[-1] + 1.0)
    _, place = np.unique(np.nan_to_num(ties[near], nan=-np.inf, neginf=-np.inf), return_inverse=True)
    ordered: Scores = scores.copy()
    ordered[near] += gaps[level] * place / (2.0 * len(near))
    return ordered


def _near_best(scores: Scores, columns: Columns, k: int) -> Columns:
    """Return the columns whose score is at least the k-th best."""
    values = scores[columns]
    if len(columns) <= k:
        return columns
    best: Columns = columns[values >= np.partition(values, len(values) - k)[len(values) - k]]
    return best
