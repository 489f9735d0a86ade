"""Drawing ranked lists by weights, and the exact probability of every place (Plackett and Luce).

Axis letters: N lists, T titles, K places.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def repeated(titles: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return [N, K]: the title is on the list before that place."""
    same = titles[:, :, None] == titles[:, None, :]
    found: NDArray[np.bool_] = np.tril(same, -1).any(axis=2)
    return found


def first_arrivals(luck: Floats, weight: Floats, wanted: NDArray[np.int16], size: int) -> NDArray[np.int32]:
    """Return [N, size] winners of the race, in order; -1 beyond the candidates or the size wanted."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        arrival = np.divide(luck, weight, out=luck)
    count = min(size, arrival.shape[1])
    front = np.argpartition(arrival, count - 1, axis=1)[:, :count]
    times = np.take_along_axis(arrival, front, 1)
    order = np.argsort(times, axis=1, kind="stable")
    times, front = np.take_along_axis(times, order, 1), np.take_along_axis(front, order, 1)
    real = np.isfinite(times) & (np.arange(count) < wanted[:, None])
    found = np.full((len(weight), size), -1, np.int32)
    found[:, :count] = np.where(real, front, -1)
    return found


def placed(weight: Floats, titles: NDArray[np.int32]) -> Floats:
    """Return [N, K] conditional probabilities of lists under weights [N, T]; 0 for what cannot come there."""
    own = np.take_along_axis(weight, np.maximum(titles, 0), 1).astype(np.float64) * (titles >= 0)
    total = weight.sum(axis=1, dtype=np.float64)[:, None]
    # What is left is added up from the end, where small weights are not lost beside large ones.
    rest = np.maximum(total - own.sum(axis=1, keepdims=True), 0.0)
    left = rest + np.cumsum(own[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(np.divide(own, left, out=np.zeros_like(own), where=own > 0), np.float32)
