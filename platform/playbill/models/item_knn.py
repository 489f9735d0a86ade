"""Item-to-item neighbours: titles that the same members played, by shrunk cosine.

S[s, t] = |members of both| / (sqrt(|members of s| |members of t|) + h), kept where s is among the J titles most like t,
zero elsewhere and on the diagonal.
Sources: Deshpande and Karypis, "Item-based top-N recommendation algorithms", TOIS 2004; shrinkage and neighbourhood
as in Ferrari Dacrema, Cremonesi and Jannach, "Are we really making much progress?", RecSys 2019
(arXiv 1907.06902), section 3.2. Axis letters: U members, T titles, J neighbours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

DEFAULT_SHRINKAGE = 20.0
"""h, in members: what a pair must overcome to count as alike. The study's searches range from 0 to 1,000."""
CELLS_AT_ONCE = 8_000_000
"""Similarities that are dense at any one time."""


def similarities(plays: sparse.csr_array, neighbours: int, shrinkage: float) -> sparse.csr_array:
    """Return S [T, T] of a binary play matrix [U, T]: column t holds the titles most like t.

    Of equally alike titles at the end of the neighbourhood the earlier columns are kept.
    """
    titles = plays.shape[1]
    norms = np.sqrt(plays.sum(axis=0)).astype(np.float32)
    by_title = plays.T.tocsr()
    step = max(1, CELLS_AT_ONCE // max(1, titles))
    parts = []
    for start in range(0, titles, step):
        block = (by_title[start : start + step] @ plays).toarray()
        rows = np.arange(block.shape[0])
        block[rows, rows + start] = 0.0
        scale = norms[start : start + step, None] * norms[None, :] + np.float32(shrinkage)
        np.divide(block, scale, out=block, where=block > 0)
        parts.append(sparse.csr_array(_nearest(block, neighbours)))
    return sparse.vstack(parts).T.tocsr() if parts else sparse.csr_array((titles, titles), dtype=np.float32)


def _nearest(block: npt.NDArray[np.float32], neighbours: int) -> npt.NDArray[np.float32]:
    """Return the block with all but the largest `neighbours` of each row set to zero."""
    if neighbours >= block.shape[1]:
        return block
    order = np.argsort(-block, axis=1, kind="stable")[:, :neighbours]
    kept = np.zeros_like(block)
    np.put_along_axis(kept, order, np.take_along_axis(block, order, axis=1), axis=1)
    return kept
