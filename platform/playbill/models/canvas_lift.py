"""How much oftener a title is wanted on a canvas than elsewhere: where its bias there starts.

Surfaces of one service may draw from different parts of the catalogue. A model of all of them that knows only how much
a title is wanted at large would list what other surfaces show.
Axis letters: R examples, T titles, C canvases.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

STRENGTH = 20.0
"""Examples that speak for a canvas being like all others: one with far fewer of its own begins as they are."""


def canvas_lift(
    titles: Indices, canvases: Indices, size: tuple[int, int], strength: float = STRENGTH
) -> npt.NDArray[np.float64]:
    """Return [T, C] the logarithm of a title's share on a canvas over its share at large.

    Shares on a canvas are smoothed towards those at large by a Dirichlet prior: `(n_tc + a p_t) / (n_c + a)`. A canvas
    without examples has 0 everywhere. Source: Zhai and Lafferty, "A study of smoothing methods for language models",
    TOIS 2004.

    Args:
        titles: [R] title of each example, 0 = none.
        canvases: [R] canvas of each.
        size: T and C.
        strength: a.
    """
    counts_TC = np.bincount(titles * size[1] + canvases, minlength=size[0] * size[1]).reshape(size).astype(np.float64)
    counts_TC[0] = 0.0
    at_large_T = counts_TC.sum(axis=1) + 1.0
    share_T = at_large_T / at_large_T.sum()
    own_TC = (counts_TC + strength * share_T[:, None]) / (counts_TC.sum(axis=0) + strength)
    lift: npt.NDArray[np.float64] = np.log(own_TC / share_T[:, None])
    lift[0] = 0.0
    return lift
