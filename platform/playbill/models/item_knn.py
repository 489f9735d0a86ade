"""Item-to-item neighbours: titles that the same members played, by shrunk cosine.

S[s, t] = |members of both| / (sqrt(|members of s| |members of t|) + h), kept where s is among the J titles most like t,
zero elsewhere and on the diagonal.
Sources: Deshpande and Karypis, "Item-based top-N recommendation algorithms", TOIS 2004; shrinkage and neighbourhood
as in Ferrari Dacrema, Cremonesi and Jannach, "Are we really making much progress?", RecSys 2019
(arXiv 1907.06902), section 3.2. Axis letters: U members, T titles, J neighbours.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from playbill.models.strongest import largest_of_rows

DEFAULT_SHRINKAGE = 20.0
"""h, in members: what a pair must overcome to count as alike. The study's searches range from 0 to 1,000."""
CELLS_AT_ONCE = 8_000_000  # similarities that are held at any one time, at most


def similarities(plays: sparse.csr_array, neighbours: int, shrinkage: float) -> sparse.csr_array:
    """Return S [T, T] of a binary play matrix [U, T]: column t holds the titles most like t.

    Only pairs that somebody has played both of are ever held. Of equally alike titles at the end of the neighbourhood
    the earlier columns are kept.
    """
    titles = plays.shape[1]
    norms = np.sqrt(plays.sum(axis=0)).astype(np.float32)
    by_title = plays.T.tocsr()
    step = max(1, CELLS_AT_ONCE // max(1, titles))
    parts = []
    for start in range(0, titles, step):
        block = sparse.csr_array(by_title[start : start + step] @ plays)
        block.sort_indices()
        own = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr)) + start
        scale = norms[own] * norms[block.indices] + np.float32(shrinkage)
        value = np.where(own == block.indices, np.float32(0), block.data / scale)
        parts.append(_nearest(block, value, neighbours))
    return sparse.vstack(parts).T.tocsr() if parts else sparse.csr_array((titles, titles), dtype=np.float32)


def _nearest(block: sparse.csr_array, value: np.ndarray, neighbours: int) -> sparse.csr_array:
    """Return a block with other values, only the largest `neighbours` of each row and none that is 0."""
    entries, rows, _ = largest_of_rows(np.diff(block.indptr).astype(np.int64), value, neighbours)
    used = value[entries] > 0
    cells = (value[entries][used], (rows[used], block.indices[entries][used]))
    return sparse.csr_array(cells, shape=block.shape)
