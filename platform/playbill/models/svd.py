"""A start for title vectors: who is played near whom, factorised.

Positive pointwise mutual information of co-occurrence within a few steps, its truncated SVD, rotated at random so
that no coordinate is special (Levy & Goldberg, NeurIPS 2014). Seconds for a million events and some 30,000 titles.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from playbill.arrays import Floats32, Floats64, Ints64

WINDOW = 8
EVENTS_AT_ONCE = 1 << 18
"""Of the training part, while pairs are counted: each has eight, which take 400 bytes together."""
LANCZOS = 20_000
"""Titles of the log up to which directions are found by Lanczos' method; beyond, by products with random vectors: a
tenth of the time at 100,000, and good enough for a start."""
OVERSAMPLED, POWERS = 16, 4


def co_occurrence(title: Ints64, member: Ints64, titles: int) -> sparse.csr_matrix:
    """Count pairs of titles within eight steps of one member: symmetric [titles, titles], row and column 0 empty.

    `title` [E] is that of every training event, in order within each member, whose events lie together.
    """
    counts = sparse.csr_matrix((titles, titles))
    for start in range(0, len(title), EVENTS_AT_ONCE):
        # Pairs begin in this stretch; their second title may lie a few events behind it.
        part = slice(start, start + EVENTS_AT_ONCE + WINDOW)
        counts = counts + _pairs(title[part], member[part], titles)
    return (counts + counts.T).tocsr()


def _pairs(title: Ints64, member: Ints64, titles: int) -> sparse.csr_matrix:
    left, right = [], []
    for step in range(1, WINDOW + 1):
        count = max(0, min(EVENTS_AT_ONCE, len(title) - step))
        same = member[step : step + count] == member[:count]
        left.append(title[:count][same])
        right.append(title[step : step + count][same])
    rows, columns = np.concatenate(left), np.concatenate(right)
    known = (rows > 0) & (columns > 0) & (rows != columns)
    return sparse.coo_matrix((np.ones(known.sum()), (rows[known], columns[known])), (titles, titles)).tocsr()


def positive_pmi(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return `max(0, log(p(i, j) / p(i) p(j)))` of symmetric counts."""
    pairs = counts.tocoo()
    total = pairs.data.sum()
    margin = np.asarray(counts.sum(axis=1)).ravel()
    information = np.log(pairs.data * total / (margin[pairs.row] * margin[pairs.col]))
    positive = information > 0
    kept = (information[positive], (pairs.row[positive], pairs.col[positive]))
    return sparse.coo_matrix(kept, counts.shape).tocsr()


def known_directions(matrix: sparse.csr_matrix, rank: int, generator: np.random.Generator) -> tuple[Floats64, Floats64]:
    """Return `largest_directions`; where most rows are empty, of the others alone, and 0 in the empty ones."""
    known = np.flatnonzero(np.diff(matrix.indptr))
    if 2 * len(known) > matrix.shape[0]:
        return largest_directions(matrix, rank, generator)
    inside, values = largest_directions(matrix[known][:, known], min(rank, len(known)), generator)
    left = np.zeros((matrix.shape[0], inside.shape[1]))
    left[known] = inside
    return left, values


def largest_directions(
    matrix: sparse.csr_matrix, rank: int, generator: np.random.Generator
) -> tuple[Floats64, Floats64]:
    """Return the left singular vectors [titles, rank] and values [rank] of the largest directions.

    Lanczos is for few directions of many: near the full rank it restarts from vectors of its own, which no seed fixes.
    """
    if 4 * rank > matrix.shape[0]:
        left, values, _ = np.linalg.svd(matrix.toarray())
        return left[:, :rank], values[:rank]
    if matrix.shape[0] > LANCZOS:
        return random_directions(matrix, rank, generator)
    from scipy.sparse.linalg import svds  # training alone needs it, and it takes a quarter of a second

    left, values, _ = svds(matrix, k=rank, v0=generator.normal(size=matrix.shape[0]), solver="arpack")
    return left, values


def random_directions(
    matrix: sparse.csr_matrix, rank: int, generator: np.random.Generator
) -> tuple[Floats64, Floats64]:
    """Return nearly the same of a symmetric matrix, by subspace iteration from random vectors.

    Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011, algorithms 4.4 and 5.3.
    """
    found = matrix @ generator.normal(size=(matrix.shape[0], rank + OVERSAMPLED))
    for _ in range(POWERS):
        found = matrix @ np.linalg.qr(found)[0]
    basis, _ = np.linalg.qr(found)
    values, turned = np.linalg.eigh(basis.T @ (matrix @ basis))
    first = np.argsort(-np.abs(values), kind="stable")[:rank]
    return basis @ turned[:, first], np.abs(values[first])


def svd_vectors(title: Ints64, member: Ints64, titles: int, dim: int, seed: int, std: float = 0.05) -> Floats32:
    """Return [titles, dim] float32 start vectors from the training part of the log alone.

    Titles that never occur, and coordinates beyond the rank, get small random values. `std` is the mean size of a
    coordinate; `seed` fixes rotation and noise.
    """
    generator = np.random.default_rng(seed)
    vectors = generator.normal(scale=std, size=(titles, dim))
    matrix = positive_pmi(co_occurrence(title, member, titles))
    rank = min(dim, titles - 1)
    if matrix.nnz and rank > 1:
        left, values = known_directions(matrix, rank, generator)
        found = left * np.sqrt(np.where(values > 1e-6 * values.max(), values, 0.0))
        rotation, _ = np.linalg.qr(generator.normal(size=(found.shape[1], dim)).T)
        turned = found @ rotation.T
        seen = np.asarray(matrix.sum(axis=1)).ravel() > 0
        vectors[seen] = turned[seen] * (std / turned[seen].std())
    vectors[0] = 0
    return vectors.astype(np.float32)
