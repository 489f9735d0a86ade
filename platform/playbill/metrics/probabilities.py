"""How good a head's probabilities are: ordering (AUC), level (calibration error, reliability) and both (log loss).

Axis letters: N rows, B bins. Labels are 0 or 1; weights restore a sampled population and default to one each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from playbill.arrays import Floats64, Ints64
from playbill.errors import DataError, Problem

Array = npt.NDArray[Any]
Binning = Literal["equal_mass", "equal_width"]

DEFAULT_BINS = 15
LOG_LOSS_FLOOR = 1e-15


def auc(scores: Array, labels: Array, weights: Array | None = None) -> float:
    """Area under the ROC curve, exact, ties counted half.

    AUC = P(score of a positive > score of a negative) + P(equal) / 2, positives and negatives drawn by weight. Range
    [0, 1], 0.5 = chance; NaN when one of the two kinds is missing. O(N log N). Source: Hanley and McNeil,
    "The meaning and use of the area under a ROC curve", Radiology 1982.

    Scores [N] may be any monotone ones.

    Raises:
        DataError: A score, label or weight is not usable.
    """
    score, label, weight = _checked(scores, labels, weights)
    values, group = np.unique(score, return_inverse=True)
    positive = np.bincount(group, weights=weight * label, minlength=values.size)
    negative = np.bincount(group, weights=weight * (1.0 - label), minlength=values.size)
    pairs = positive.sum() * negative.sum()
    if pairs <= 0.0:
        return float("nan")
    below = np.cumsum(negative) - negative
    return float(np.sum(positive * (below + 0.5 * negative)) / pairs)


def log_loss(probabilities: Array, labels: Array, weights: Array | None = None) -> float:
    """Mean negative log likelihood of the labels, in nats.

    LogLoss = -sum w (y ln p + (1 - y) ln(1 - p)) / sum w, with p kept off 0 and 1 by 1e-15. Range [0, 34.6]; lower is
    better. Source: Good, "Rational decisions", JRSS B 1952.

    Raises:
        DataError: A probability lies outside [0, 1], or a label or weight is not usable.
    """
    p, label, weight = _checked(probabilities, labels, weights, bounded=True)
    kept = np.clip(p, LOG_LOSS_FLOOR, 1.0 - LOG_LOSS_FLOOR)
    losses = -(label * np.log(kept) + (1.0 - label) * np.log1p(-kept))
    return float(np.average(losses, weights=weight))


@dataclass(frozen=True)
class Reliability:
    """A reliability table: predicted against observed, bin by bin. Empty bins are left out."""

    low: Floats64  # [B] smallest prediction in the bin
    high: Floats64  # [B] largest prediction in the bin
    rows: Ints64
    weight: Floats64  # [B] their weight
    predicted: Floats64  # [B] mean prediction
    observed: Floats64  # [B] share of positives

    @property
    def ece(self) -> float:
        """Expected calibration error: the weighted mean distance of predicted from observed."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.weight))

    def to_rows(self) -> list[dict[str, float]]:
        """Return one plain dictionary per bin, for JSON."""
        names = ("low", "high", "rows", "weight", "predicted", "observed")
        columns = [getattr(self, name).tolist() for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def reliability(
    probabilities: Array,
    labels: Array,
    *,
    bins: int = DEFAULT_BINS,
    binning: Binning = "equal_mass",
    weights: Array | None = None,
) -> Reliability:
    """Group predictions into bins and compare their mean with the share of positives.

    `equal_mass` cuts at quantiles of the predictions, so no bin is nearly empty when most predictions are small, which
    is the rule for plays; equal predictions stay in one bin, so there may be fewer than `bins`. `equal_width` cuts
    [0, 1] evenly. Source: Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language
    processing models", EMNLP 2015 (equal mass); Guo et al., "On calibration of modern neural networks", ICML 2017
    (equal width).

    Raises:
        DataError: A probability lies outside [0, 1], or a label or weight is not usable.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    p, label, weight = _checked(probabilities, labels, weights, bounded=True)
    member = _bin_of(p, bins, binning)
    rows = np.bincount(member, minlength=bins)
    mass: Floats64 = np.bincount(member, weights=weight, minlength=bins).astype(np.float64)
    used = np.nonzero(mass > 0)[0]
    order = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[order], used)
    grouped = p[order]
    ends = starts + rows[used]
    low = np.array([grouped[a:b].min() for a, b in zip(starts, ends, strict=True)])
    high = np.array([grouped[a:b].max() for a, b in zip(starts, ends, strict=True)])
    predicted = np.bincount(member, weights=weight * p, minlength=bins)[used] / mass[used]
    observed = np.bincount(member, weights=weight * label, minlength=bins)[used] / mass[used]
    return Reliability(low, high, rows[used].astype(np.int64), mass[used], predicted, observed)


def ece(
    probabilities: Array,
    labels: Array,
    *,
    bins: int = DEFAULT_BINS,
    binning: Binning = "equal_mass",
    weights: Array | None = None,
) -> float:
    """Expected calibration error of a `reliability` table.

    ECE = sum_b (weight of b / weight) |mean prediction of b - share of positives of b|. Range [0, 1]; 0 = calibrated.
    It is biased upward on small data (each bin's noise is a distance), so compare only at equal N and B. Source:
    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.
    """
    return reliability(probabilities, labels, bins=bins, binning=binning, weights=weights).ece


def _bin_of(p: Floats64, bins: int, binning: Binning) -> Ints64:
    """[N] bin of each prediction; equal predictions share a bin."""
    if binning == "equal_width":
        return np.minimum((p * bins).astype(np.int64), bins - 1)
    inner = np.unique(np.quantile(p, np.arange(1, bins) / bins, method="inverted_cdf")) if p.size else p
    return np.searchsorted(inner, p, side="left").astype(np.int64)


def _checked(
    scores: Array, labels: Array, weights: Array | None, *, bounded: bool = False
) -> tuple[Floats64, Floats64, Floats64]:
    """Return float64 copies, or report every unusable column with its count and first row."""
    score, label = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    weight = np.ones(score.shape) if weights is None else np.asarray(weights, np.float64)
    if score.ndim != 1 or not score.shape == label.shape == weight.shape:
        raise ValueError(f"shapes must be [N] and alike, got {score.shape}, {label.shape} and {weight.shape}")
    tests = [
        ("scores", np.isnan(score), "no number"),
        ("labels", (label != 0.0) & (label != 1.0), "neither 0 nor 1"),
        ("weights", ~(weight >= 0.0) | np.isinf(weight), "no finite number from 0 up"),
    ]
    if bounded:
        tests.append(("probabilities", (score < 0.0) | (score > 1.0), "outside [0, 1]"))
    problems = [
        Problem(name, f"{int(bad.sum())} of {bad.size} {what}, the first in row {int(bad.argmax())}")
        for name, bad, what in tests
        if bad.any()
    ]
    if score.size == 0 or (not problems and weight.sum() == 0.0):
        problems.append(Problem("rows", "there is nothing to measure"))
    if problems:
        raise DataError("predictions", problems)
    return score, label, weight
