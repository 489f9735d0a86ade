"""Many comparisons at once: adjusted p-values, so that twenty slices do not give one false discovery by chance."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Method = Literal["holm", "benjamini_hochberg"]


def adjust_p(p: npt.ArrayLike, method: Method = "holm") -> Values:
    """Adjust p-values for their number; reject where the adjusted value is at most the level wanted.

    With p sorted ascending, rank i of m: `holm` is max_{j<=i} min(1, (m - j + 1) p_j) and bounds the chance of *any*
    false discovery, whatever the dependence; `benjamini_hochberg` is min_{j>=i} min(1, m p_j / j) and bounds the
    expected *share* of false discoveries, under independence or positive dependence. Range [0, 1], never below p.
    Sources: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 1979; Benjamini and
    Hochberg, "Controlling the false discovery rate", JRSS B 1995.

    Args:
        p: [C] p-values in [0, 1]. NaN (a comparison without data) stays NaN and does not count.
        method: `holm` for gates and claims, `benjamini_hochberg` for looking through many slices.

    Raises:
        ValueError: A p-value lies outside [0, 1], or the method is unknown.
    """
    values = np.asarray(p, dtype=np.float64)
    known = ~np.isnan(values)
    raw = values[known]
    if raw.size and (raw.min() < 0.0 or raw.max() > 1.0):
        raise ValueError(f"p-values must lie in [0, 1], got {raw.min():g} to {raw.max():g}")
    adjusted = np.full(values.shape, np.nan)
    order = np.argsort(raw, kind="stable")
    count = raw.size
    if method == "holm":
        steps = np.maximum.accumulate(raw[order] * np.arange(count, 0, -1))
    elif method == "benjamini_hochberg":
        steps = np.minimum.accumulate((raw[order] * count / np.arange(1, count + 1))[::-1])[::-1]
    else:
        raise ValueError(f"unknown method '{method}'; known: benjamini_hochberg, holm")
    back = np.empty(count)
    back[order] = np.minimum(steps, 1.0)
    adjusted[known] = back
    return adjusted
