"""What each head would say of anyone: where its scores start, so that no step is spent on how rare a thing is.

Axis letter: R rows of the training set.
"""

from __future__ import annotations

import math

import numpy as np

from playbill.datasets import TrainingSet
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.head import HeadSpec
from playbill.definitions.specs.losses import loss_options, loss_plugin

LEAST_SHARE = 1e-6
"""A label is never taken to be rarer than this, nor more common than one less it."""


def head_levels(resolved: ResolvedModel, data: TrainingSet) -> dict[str, float]:
    """Return head -> where its level starts: the log odds of its label or the mean of its number, in the head's units.

    Args:
        resolved: The model.
        data: Rows weigh as they do in training; drawn negatives count as zeros.
    """
    found = {}
    for name, head in resolved.model.heads.items():
        if head.leveled and name in data.labels:
            label_R, weight_R = data.labels[name], data.rows.weights.get(name)
            usable_R = ~np.isnan(label_R) & (data.rows.title > 0)
            weights = None if weight_R is None else np.asarray(weight_R[usable_R], np.float64)
            if usable_R.any() and (weights is None or weights.sum() > 0):
                found[name] = _level(head, np.asarray(label_R[usable_R], np.float64), weights)
    return found


def _level(head: HeadSpec, labels: np.ndarray, weights: np.ndarray | None) -> float:
    assert head.loss is not None
    if loss_plugin(head.loss).meaning == "value":
        options = loss_options(head.loss, head.options)
        cap = getattr(options, "cap", None)
        values = labels if cap is None else np.minimum(labels, cap)
        return float(np.average(values, weights=weights)) / float(getattr(options, "scale", 1.0))
    share = float(np.average(labels > 0, weights=weights))
    if head.draws:
        share /= 1.0 + share * float(getattr(head.negatives, "weight", 1.0))
    share = min(max(share, LEAST_SHARE), 1.0 - LEAST_SHARE)
    return math.log(share / (1.0 - share))
