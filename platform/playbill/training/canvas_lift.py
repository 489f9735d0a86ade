"""How much oftener a title is wanted on a canvas than elsewhere: where its bias there starts.

Surfaces of one service may draw from different parts of the catalogue. A model of all of them that knows only how much
a title is wanted at large would list what other surfaces show.
Axis letters: R examples, T titles, C canvases, S states of what could be seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

STRENGTH = 1.0
"""Examples that speak for a title being wanted on a canvas as elsewhere: one with far fewer of its own begins so."""

Masks = Callable[[Indices], npt.NDArray[np.bool_]]
CELLS_AT_ONCE = 1 << 23


def canvas_lift(
    titles: Indices,
    canvases: Indices,
    states: Indices,
    size: tuple[int, int],
    masks: Masks | None = None,
    strength: float = STRENGTH,
) -> npt.NDArray[np.float64]:
    """Return [C, T] the logarithm of how often a title was wanted on a canvas over how often it would be expected to.

    `log((n_ct + b) / (e_ct + b))`. Expected is that every example of the canvas falls to titles by their share at
    large, among those that could be seen in it: so titles of a canvas that shows only what is to come are compared with
    each other. A title with little to go by has a value near 0. Source: DuMouchel, "Bayesian data mining in large
    frequency tables", The American Statistician 1999, shrinks the same ratio; here the prior is set beforehand.

    Args:
        titles: [R] title of each example, 0 = none.
        canvases: [R] canvas of each.
        states: [R] what could be seen in each.
        size: T and C.
        masks: [s] states -> [s, T] titles that could be seen; None = all could always be.
        strength: b.
    """
    count, canvas_count = size
    told = titles > 0
    titles, canvases, states = titles[told], canvases[told], states[told]
    found = np.bincount(canvases * count + titles, minlength=canvas_count * count).astype(np.float64)
    observed_CT = found.reshape(canvas_count, count)
    share_T = observed_CT.sum(axis=0) + 1.0
    share_T[0] = 0.0
    share_T /= share_T.sum()
    expected_CT = np.zeros_like(observed_CT)
    if masks is None:
        expected_CT += observed_CT.sum(axis=1, keepdims=True) * share_T
    else:
        seen, place = np.unique(states, return_inverse=True)
        examples = np.bincount(canvases * len(seen) + place, minlength=canvas_count * len(seen)).astype(np.float64)
        examples_CS, step = examples.reshape(canvas_count, len(seen)), max(1, CELLS_AT_ONCE // count)
        for start in range(0, len(seen), step):
            own_ST = masks(seen[start : start + step]) * share_T
            own_ST /= np.maximum(own_ST.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
            expected_CT += examples_CS[:, start : start + step] @ own_ST
    lift: npt.NDArray[np.float64] = np.log((observed_CT + strength) / (expected_CT + strength))
    return lift
