"""Beyond accuracy: novelty, accuracy without popularity's head start, and calibration to a member's own mix.

Axis letters: N requests, K places in a list, T titles, G genres, M (request, target) pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from playbill.arrays import Floats64, Indices
from playbill.metrics.topk import NOT_RANKED

DEFAULT_GAMMA = 1.5
DEFAULT_ALPHA = 0.01

Counts = npt.NDArray[np.integer[Any]] | npt.NDArray[np.floating[Any]]


class WeightedValues(NamedTuple):
    """A metric per request with the request's weight; its mean is sum(weight x value) / sum(weight).

    `MemberBootstrap.intervals(values, weights)` gives that mean with its interval.
    """

    values: Floats64
    weights: Floats64


def self_information(members_of_title: Counts, members: int) -> Floats64:
    """Self-information of each title in bits: how surprising it is that a member has played it.

    I(t) = -log2(p(t)), p(t) = (members who played t + 1) / (members + 2). The added counts (Laplace) keep a title that
    nobody played finite; range (0, log2(members + 2)].

    `members_of_title` [T] are distinct members who played each title before the requests, `members` those in all.
    """
    counts = np.asarray(members_of_title, dtype=np.float64)
    if counts.size and (counts.min() < 0 or counts.max() > members):
        raise ValueError(f"a title's members must lie in [0, {members}], got {counts.min():g} to {counts.max():g}")
    information: Floats64 = -np.log2((counts + 1.0) / (members + 2.0))
    return information


def novelty(lists: Indices, information: Floats64, k: int) -> Floats64:
    """Novelty at k: mean self-information, in bits, of the titles in the first k places.

    Novelty@k = (1 / |list|) sum_{i<=k} -log2 p(t_i). Range [0, max information]; NaN for an empty list. Higher means
    less popular, not better: read it beside accuracy. Source: Zhou et al., "Solving the apparent diversity-accuracy
    dilemma of recommender systems", PNAS 2010; Castells, Vargas and Wang, DDR 2011.

    Lists are [N, K >= k] title columns, -1 = empty place; `information` [T] is that of `self_information`.
    """
    head = lists[:, :k]
    filled = head >= 0
    bits = np.where(filled, information[np.where(filled, head, 0)], 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        mean: Floats64 = bits / filled.sum(axis=1)
    return mean


def inverse_popularity(plays: Counts, gamma: float = DEFAULT_GAMMA) -> Floats64:
    """Weight of a play of each title: the inverse of how likely popularity alone made it be logged.

    w(t) = (n_t / max n)^(-(gamma + 1) / 2). A title without plays weighs as one with a single play, so one surprising
    target cannot outweigh everything. Range [1, (max n)^((gamma + 1) / 2)].

    Source: Yang, Cui, Xuan, Wang, Belongie and Estrin, "Unbiased offline recommender evaluation for
    missing-not-at-random implicit feedback", RecSys 2018: the propensity of an observed play grows as
    n^((gamma + 1) / 2) when exposure follows popularity as n^gamma.

    `plays` [T] are those before the requests; gamma -1 gives equal weights, Yang et al. try 1.5 to 3.
    """
    counts = np.maximum(np.asarray(plays, dtype=np.float64), 1.0)
    weights: Floats64 = (counts / counts.max(initial=1.0)) ** (-(gamma + 1.0) / 2.0)
    return weights


def popularity_debiased_ndcg(ranks: Indices, rows: Indices, weights: Floats64, n: int, k: int) -> WeightedValues:
    """NDCG at k in which every target counts by its inverse popularity propensity, self-normalised.

    With w_j the weight of target j: DCG@k = sum_{rank_j <= k} w_j / log2(rank_j + 1); NDCG@k = DCG@k / DCG@k of the
    list with the heaviest targets in front; a request weighs sum_j w_j. With one target per request the weighted mean
    is sum w / log2(rank + 1) over sum w: the self-normalised estimator of Yang et al., RecSys 2018. Range [0, 1].
    With equal weights it is `ndcg`.

    Targets are [M], with `rows` ascending, ranks from `target_ranks` (0 = no candidate) and weights
    `inverse_popularity(plays)[titles]`; each of the `n` requests has at least one.
    """
    if np.bincount(rows, minlength=n).min(initial=1) < 1:
        raise ValueError("every request needs at least one target")
    inside = (ranks != NOT_RANKED) & (ranks <= k)
    gains = np.where(inside, weights / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)
    order = np.lexsort((-weights, rows))
    row = rows[order]
    place = np.arange(row.size) - np.searchsorted(row, np.arange(n))[row] + 1
    best = np.where(place <= k, weights[order] / np.log2(place + 1.0), 0.0)
    ideal = np.bincount(row, weights=best, minlength=n)
    values: Floats64 = np.bincount(rows, weights=gains, minlength=n) / ideal
    total: Floats64 = np.bincount(rows, weights=weights, minlength=n).astype(np.float64)
    return WeightedValues(values, total)


def genre_shares(genres: npt.NDArray[Any]) -> Floats64:
    """Turn [T, G] genre flags into p(g | t): equal shares of a title's genres, zeros for a title without any."""
    flags = np.asarray(genres, dtype=np.float64)
    totals = flags.sum(axis=1, keepdims=True)
    shares: Floats64 = np.divide(flags, totals, out=np.zeros_like(flags), where=totals > 0)
    return shares


def genre_mix(rows: Indices, titles: Indices, shares: Floats64, n: int, weights: Floats64 | None = None) -> Floats64:
    """Return p(g | member) [N, G]: the weighted mean of the genre shares of what each request's member has played.

    Plays are [M] pairs of request and title column, weighted by their recency, say; `shares` [T, G] are those of
    `genre_shares`. Rows add up to 1; NaN where nothing with a genre was played.
    """
    weight = np.ones(rows.size) if weights is None else weights
    mix = np.empty((n, shares.shape[1]))
    for genre in range(shares.shape[1]):  # a column at a time keeps memory at M, not M x G
        mix[:, genre] = np.bincount(rows, weights=weight * shares[titles, genre], minlength=n)
    totals = mix.sum(axis=1, keepdims=True)
    shares_of_member: Floats64 = np.divide(mix, totals, out=np.full_like(mix, np.nan), where=totals > 0)
    return shares_of_member


def calibration(lists: Indices, shares: Floats64, mix: Floats64, k: int, alpha: float = DEFAULT_ALPHA) -> Floats64:
    """Genre miscalibration at k: Kullback-Leibler divergence of a list's genre mix from the member's own, in nats.

    C = sum_g p(g) ln(p(g) / q'(g)), q' = (1 - alpha) q + alpha p, with p the member's mix and q the mean genre shares
    of the first k places. Range [0, -ln alpha]; 0 = same mix, lower is better. NaN where the member's mix is unknown
    or no listed title has a genre. Source: Steck, "Calibrated recommendations", RecSys 2018.

    Lists are [N, K >= k] title columns, -1 = empty place; `shares` and `mix` are of `genre_shares` and `genre_mix`;
    alpha in (0, 1) smooths.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    listed = np.zeros((lists.shape[0], shares.shape[1]))
    for place in range(min(k, lists.shape[1])):
        titles = lists[:, place]
        listed += np.where((titles >= 0)[:, None], shares[np.maximum(titles, 0)], 0.0)
    totals = listed.sum(axis=1, keepdims=True)
    shown = np.divide(listed, totals, out=np.full_like(listed, np.nan), where=totals > 0)
    smooth = (1.0 - alpha) * shown + alpha * mix
    ratio = np.divide(mix, smooth, out=np.ones_like(mix), where=(mix > 0) & (smooth > 0))
    divergence: Floats64 = (mix * np.log(ratio)).sum(axis=1) + 0.0 * smooth.sum(axis=1)  # the second term carries NaN
    return divergence
