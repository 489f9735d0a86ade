"""The best titles of each request, and the ranks of given titles, with one tie rule.

Axis letters: N requests, T titles, K list length, M (request, target) pairs.

Tie rule: of two equal scores the smaller column comes first. Callers put the columns in the order in which
they want ties broken; evaluation orders them by title id ascending.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from playbill.arrays import Indices, Mask

Scores = npt.NDArray[np.floating[Any]]

BLOCKS = 128  # parts of a row whose best entries bound the list's last one
FEW = 8  # entries for each place that a row may have from the bound on, to be sorted as a whole
NOT_LISTED = -1  # fills a list that has fewer candidates than places
NOT_RANKED = 0  # rank of a title that was no candidate


def top_k(scores: Scores, k: int, candidates: Mask | None = None) -> Indices:
    """List the `k` best candidates of each request, best first, ties by column ascending.

    The k-th best maximum of a row's blocks is no better than its k-th best value, so only the few entries from there on
    are sorted. Rows with many of them are partitioned; the entries at the k-th value are taken from the left.
    Time O(N T), extra memory about one copy of `scores`.

    Scores are [N, T] without NaN (infinities are allowed); `candidates` [N, T] are what may be listed, None = all.
    Returns [N, k] columns, `NOT_LISTED` (-1) where a row has fewer than `k` candidates.

    Raises:
        ValueError: The shapes differ, `k` is not positive, or a candidate's score is NaN.
    """
    return _lists(_masked(scores, candidates), k)


def lists_and_ranks(
    scores: Scores, k: int, rows: Indices, titles: Indices, candidates: Mask | None = None
) -> tuple[Indices, Indices]:
    """Return `top_k` and `target_ranks` of the same scores, which are masked once for both."""
    masked = _masked(scores, candidates)
    return _lists(masked, k), _ranks(masked, rows, titles)


def _lists(masked: Scores, k: int) -> Indices:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    n, width = masked.shape
    places = min(k, width)
    lists = np.full((n, k), NOT_LISTED, dtype=np.int64)
    if n == 0 or width == 0:
        return lists
    picked = _picked(masked, places)
    values = np.where(picked == NOT_LISTED, -np.inf, np.take_along_axis(masked, picked, axis=1))
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(picked, order, axis=1)
    listed = np.take_along_axis(values, order, axis=1) > -np.inf
    lists[:, :places] = np.where(listed, best, NOT_LISTED)
    return lists


def target_ranks(scores: Scores, rows: Indices, titles: Indices, candidates: Mask | None = None) -> Indices:
    """Rank given titles among the candidates of their request; 1 is best, ties by column ascending.

    Targets are [M], with the request `rows` and the column `titles` of each; `candidates` as in `top_k`. Ranks lie in
    [1, T]; `NOT_RANKED` (0) where the target is no candidate itself.

    Raises:
        ValueError: The shapes differ, or a candidate's score is NaN.
    """
    return _ranks(_masked(scores, candidates), rows, titles)


def _ranks(masked: Scores, rows: Indices, titles: Indices) -> Indices:
    own = masked[rows, titles][:, None]
    everyone = np.array_equal(rows, np.arange(len(masked)))
    others = masked if everyone else masked[rows]
    better = np.count_nonzero(others > own, axis=1)
    ranks = better + 1
    tied = np.nonzero(np.count_nonzero(others >= own, axis=1) > better + 1)[0]  # the title itself is one of them
    if tied.size:
        before = np.arange(masked.shape[1]) < titles[tied, None]
        ranks[tied] += np.count_nonzero((others[tied] == own[tied]) & before, axis=1)
    return np.where(own[:, 0] == -np.inf, NOT_RANKED, ranks).astype(np.int64)


def ranks_within(values: Scores, groups: Indices) -> Indices:
    """Return [P] ranks of values (no NaN) within their groups (ascending); 1 is best, equal values in their order."""
    order = np.lexsort((-values, groups))
    sizes = np.unique(groups, return_counts=True)[1]
    place = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = place + 1
    return ranks


def _masked(scores: Scores, candidates: Mask | None) -> Scores:
    if scores.ndim != 2 or (candidates is not None and candidates.shape != scores.shape):
        shape = None if candidates is None else candidates.shape
        raise ValueError(f"scores must be [N, T] and candidates alike, got {scores.shape} and {shape}")
    # A candidate scored -inf is still a candidate, so it must stay above what is masked.
    masked: Scores = np.maximum(scores, np.finfo(scores.dtype).min)
    if candidates is not None:
        np.copyto(masked, -np.inf, where=~candidates)
    if masked.size and np.isnan(masked.max()):
        raise ValueError("a candidate's score is NaN")
    return masked


def _picked(masked: Scores, places: int) -> Indices:
    """Return [N, places] columns of each row's best entries, ascending; `NOT_LISTED` where there are no more."""
    n, width = masked.shape
    picked = np.full((n, places), NOT_LISTED, dtype=np.int64)
    size = width // BLOCKS
    crowded = np.arange(n)
    if 2 * places <= BLOCKS and size > 1:
        tops = masked[:, : BLOCKS * size].reshape(n, BLOCKS, size).max(axis=2)
        least = np.partition(tops, BLOCKS - places, axis=1)[:, BLOCKS - places]
        row, column = np.nonzero(masked >= np.maximum(least, np.finfo(masked.dtype).min)[:, None])
        counts = np.bincount(row, minlength=n)
        few = counts <= FEW * places
        own = few[row]
        row, column = row[own], column[own]
        order = np.lexsort((column, -masked[row, column], row))
        row, column = row[order], column[order]
        counts = np.where(few, counts, 0)
        place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        listed = place < places
        picked[row[listed], place[listed]] = column[listed]
        # Ties are broken by column, and equal values of a list are sorted stably.
        picked[few] = _ascending(picked[few])
        crowded = np.nonzero(~few)[0]
    if crowded.size:
        chosen = _chosen(masked[crowded], places)
        picked[crowded] = np.nonzero(chosen)[1].reshape(crowded.size, places)
    return picked


def _ascending(picked: Indices) -> Indices:
    last = np.iinfo(np.int64).max
    found = np.sort(np.where(picked == NOT_LISTED, last, picked), axis=1)
    ordered: Indices = np.where(found == last, NOT_LISTED, found)
    return ordered


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
