"""EASE, the linear item-item model with a closed-form solution: how much a play of one title speaks for another.

B = I - P / diag(P) with a zero diagonal, P = (X'X + lambda I)^-1, X [U, T] the binary play matrix.
Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019 (arXiv 1905.03375), equation 8.
Axis letters: U members, T titles, K neighbours.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from playbill.arrays import Floats32, Ints64
from playbill.errors import ConfigError

DEFAULT_PENALTY = 500.0
"""Lambda. The paper's choice for MovieLens-20M; between 200 and 1,000 MovieLens results differ little."""
SOLVED = 5_000
"""Titles that `solve_most_played` solves for, the most played ones: two T x T float32 arrays and an inverse, 400 MB
and some ten seconds of one core there. Beyond them few members have played both of two titles."""
ROWS_AT_ONCE = 1_024

Square = Floats32


def played_both(plays: sparse.csr_array) -> Square:
    """Return X'X [T, T], how many members played both titles, from X [U, T] of zeros and ones."""
    titles = plays.shape[1]
    counts = np.zeros((titles, titles), dtype=np.float32)
    by_title = plays.T.tocsr()
    for start in range(0, titles, ROWS_AT_ONCE):
        counts[start : start + ROWS_AT_ONCE] = (by_title[start : start + ROWS_AT_ONCE] @ plays).toarray()
    return counts


def solve(counts: Square, penalty: float) -> Square:
    """Return B [T, T] of the co-play counts X'X.

    Raises:
        ConfigError: The penalty is not positive.
    """
    if not penalty > 0:
        raise ConfigError(f"EASE needs a penalty above zero, got {penalty}")
    inverse = _inverse(counts + np.float32(penalty) * np.eye(counts.shape[0], dtype=np.float32))
    weights: Square = (inverse / -np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0.0)
    return weights


def _inverse(positive: Square) -> Square:
    """Invert a symmetric positive definite matrix in place, by Cholesky: a fifth of the time of a general inverse."""
    from scipy.linalg import lapack  # fits alone need it, and a shell that answers once does not wait for it

    # Its columns are its rows, so the transpose is the same matrix in the order that LAPACK works on in place.
    diagonal = positive.diagonal().copy()
    factor, failed = lapack.spotrf(positive.T, lower=1, clean=0, overwrite_a=1)
    if failed:  # too near to singular for single precision: elimination with pivots still has an answer
        below = np.tril(positive, -1)
        whole: Square = np.linalg.inv(below + below.T + np.diag(diagonal))
        return whole
    found: Square = lapack.spotri(factor, lower=1, overwrite_c=1)[0]
    for start in range(0, len(found), ROWS_AT_ONCE):
        end = start + ROWS_AT_ONCE
        found[start:end, end:] = found[end:, start:end].T
        block = found[start:end, start:end]
        block[:] = np.tril(block) + np.tril(block, -1).T
    return found


def solve_most_played(
    plays: sparse.csr_array, penalty: float = DEFAULT_PENALTY, solved: int = SOLVED
) -> tuple[Ints64, Square]:
    """Solve for the most played titles alone, so that memory and time are bounded whatever the catalogue.

    Returns:
        [M] the titles, `solved` at most and none that nobody played, ascending; and [M, M] B.
    """
    played = np.asarray(plays.sum(axis=0)).ravel()
    most = np.sort(np.argsort(-played, kind="stable")[: min(solved, np.count_nonzero(played))])
    return most, solve(played_both(sparse.csr_array(plays.tocsc()[:, most])), penalty)


def binary_plays(title: Ints64, member: Ints64, titles: int) -> sparse.csr_array:
    """Return who played what, [U, T] float32 of zeros and ones, from plays [E]; title 0 = none, repeats count once."""
    known = title > 0
    _, rows = np.unique(member[known], return_inverse=True)
    cells = np.unique(rows.astype(np.int64) * titles + title[known])
    rows, columns = cells // titles, cells % titles
    shape = (int(rows.max(initial=-1)) + 1, titles)
    return sparse.csr_array((np.ones(len(cells), np.float32), (rows, columns)), shape=shape)


def strongest_weights(
    title: Ints64, member: Ints64, titles: int, *, keep: int, penalty: float = DEFAULT_PENALTY, solved: int = SOLVED
) -> sparse.csr_array:
    """Solve for the most played titles, and keep of each the K titles whose weights are largest in size.

    Plays are those of `binary_plays`. Titles beyond the `solved` most played ones get no weights. Deterministic.

    Row s of the [T, T] float32 holds what a play of s adds to each title's score.
    """
    most, weights = solve_most_played(binary_plays(title, member, titles), penalty, solved)
    kept = min(keep, len(most))
    first = np.argsort(-np.abs(weights), axis=1, kind="stable")[:, :kept]
    found = np.take_along_axis(weights, first, axis=1)
    cell = (np.repeat(most, kept), most[first.ravel()])
    return sparse.csr_array((found.ravel(), cell), shape=(titles, titles))
