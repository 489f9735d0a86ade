"""The best titles of each request, and the ranks of given titles, with one tie rule.

Axis letters: N requests, T titles, K list length, M (request, target) pairs.

Tie rule: of two equal scores the smaller column comes first. Callers put the columns in the order in which
they want ties broken; evaluation orders them by title id ascending.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

NOT_LISTED = -1
"""Fills a list that has fewer candidates than places."""
NOT_RANKED = 0
"""Rank of a title that was no candidate."""


def top_k(scores: Scores, k: int, candidates: Mask | None = None) -> Indices:
    """List the `k` best candidates of each request, best first, ties by column ascending.

    One partition finds each row's k-th best value; the few entries at that value are taken from the left.
    Time O(N T), extra memory about two copies of `scores`.

    Args:
        scores: [N, T], any float type, no NaN; infinities are allowed.
        k: Places in a list, at least 1. May exceed T.
        candidates: [N, T], False = never listed. None = everything may be listed.

    Returns:
        [N, k] column indices, `NOT_LISTED` (-1) where a row has fewer than `k` candidates.

    Raises:
        ValueError: The shapes differ, `k` is not positive, or a candidate's score is NaN.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    masked = _masked(scores, candidates)
    n, width = masked.shape
    places = min(k, width)
    lists = np.full((n, k), NOT_LISTED, dtype=np.int64)
    if n == 0 or width == 0:
        return lists
    chosen = _chosen(masked, places)
    picked = np.nonzero(chosen)[1].reshape(n, places)
    values = np.take_along_axis(masked, picked, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(picked, order, axis=1)
    listed = np.take_along_axis(values, order, axis=1) > -np.inf
    lists[:, :places] = np.where(listed, best, NOT_LISTED)
    return lists


def target_ranks(scores: Scores, rows: Indices, titles: Indices, candidates: Mask | None = None) -> Indices:
    """Rank given titles among the candidates of their request; 1 is best, ties by column ascending.

    Args:
        scores: [N, T], no NaN among candidates.
        rows: [M] request of each target.
        titles: [M] column of each target.
        candidates: [N, T], False = not in the list. None = everything is.

    Returns:
        [M] ranks in [1, T]; `NOT_RANKED` (0) where the target is no candidate itself.

    Raises:
        ValueError: The shapes differ, or a candidate's score is NaN.
    """
    masked = _masked(scores, candidates)
    own = masked[rows, titles][:, None]
    others = masked[rows]
    columns = np.arange(masked.shape[1])
    better = (others > own).sum(axis=1)
    tied_before = ((others == own) & (columns < titles[:, None])).sum(axis=1)
    ranks = better + tied_before + 1
    return np.where(own[:, 0] == -np.inf, NOT_RANKED, ranks).astype(np.int64)


def ranks_within(values: Scores, groups: Indices) -> Indices:
    """Rank values among those of their own group; 1 is best, equal values in their order.

    Args:
        values: [P], no NaN.
        groups: [P] group of each, ascending.

    Returns:
        [P] ranks from 1.
    """
    order = np.lexsort((-values, groups))
    sizes = np.unique(groups, return_counts=True)[1]
    place = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = place + 1
    return ranks


def _masked(scores: Scores, candidates: Mask | None) -> Scores:
    """Return scores with -inf exactly at what is no candidate."""
    if scores.ndim != 2 or (candidates is not None and candidates.shape != scores.shape):
        shape = None if candidates is None else candidates.shape
        raise ValueError(f"scores must be [N, T] and candidates alike, got {scores.shape} and {shape}")
    # A candidate scored -inf is still a candidate, so it must stay above what is masked.
    masked: Scores = np.maximum(scores, np.finfo(scores.dtype).min)
    if candidates is not None:
        masked[~candidates] = -np.inf
    if np.isnan(masked).any():
        raise ValueError("a candidate's score is NaN")
    return masked


def _chosen(masked: Scores, places: int) -> Mask:
    """Mark exactly `places` entries of each row: all above its threshold, then ties from the left."""
    width = masked.shape[1]
    threshold = np.partition(masked, width - places, axis=1)[:, width - places, None]
    chosen: Mask = masked >= threshold
    # Only rows with more entries at the threshold than places left need the ties counted.
    crowded = np.nonzero(chosen.sum(axis=1) > places)[0]
    if crowded.size:
        above, tied = masked[crowded] > threshold[crowded], masked[crowded] == threshold[crowded]
        room = places - above.sum(axis=1, keepdims=True)
        chosen[crowded] = above | (tied & (np.cumsum(tied, axis=1, dtype=np.int32) <= room))
    return chosen
