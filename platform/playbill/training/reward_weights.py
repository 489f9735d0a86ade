"""Rewards -> weights of a loss: what an example is worth decides how much it teaches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from playbill.definitions.specs.losses import LOSSES, ranks
from playbill.errors import DataError, Problem

Floats = NDArray[np.float32]

_BINARY = "bce"


def loss_weights(values: Floats, labels: Floats, loss: str) -> tuple[Floats, Floats]:
    """Turn rewards of labelled examples into their labels and weights.

    A ranking loss (`softmax`, `sampled_softmax`, `pairwise`) weighs an example by label x max(0, reward); labels stay.
    The binary loss takes the sign as the label and the magnitude as the weight: a label of 1 with a negative reward
    becomes 0, everything else stays, and the weight is |reward|. Weights are divided by the mean of those above zero,
    so that a reward changes which examples teach and not how fast.

    Source: GenPage, arXiv 2606.31031 (label = sign, weight = magnitude); GenRec, Netflix 2026 (reward-weighted
    softmax).

    Args:
        values: [m] rewards.
        labels: [m]; nan = unlabelled.
        loss: Registered name of the loss.

    Returns:
        Labels [m] and weights [m], float32. An unlabelled example keeps its nan and has weight 0.

    Raises:
        DataError: A labelled example has no reward, no example has any weight, or the loss has no rule.
    """
    said = ~np.isnan(labels)
    _check(values, said, loss)
    worth = np.where(said, np.nan_to_num(values), 0.0).astype(np.float32)
    kept = labels.astype(np.float32, copy=True)
    if ranks(loss):
        weights = np.where(said, np.nan_to_num(labels), 0.0) * np.maximum(worth, 0.0)
    else:
        kept[said & (worth < 0)] = 0.0
        weights = np.abs(worth)
    weighted = weights > 0
    if said.any() and not weighted.any():
        what = f"all {int(said.sum())} labelled examples have a reward that gives a '{loss}' loss no weight"
        raise DataError("reward weights", [Problem("values", what, "Check the reward's terms and their signs.")])
    mean = weights[weighted].mean(dtype=np.float64) if weighted.any() else 1.0
    return kept, (weights / mean).astype(np.float32)


def _check(values: Floats, said: NDArray[np.bool_], loss: str) -> None:
    problems = []
    if values.shape != said.shape:
        problems.append(Problem("values", f"are {values.shape}, labels {said.shape}"))
    elif without := int((said & ~np.isfinite(values)).sum()):
        what = f"{without} of {int(said.sum())} labelled examples have no reward"
        problems.append(Problem("values", what, "Only plays and impressions have one."))
    if loss not in LOSSES or not (loss == _BINARY or ranks(loss)):
        known = ", ".join(name for name in LOSSES.names() if name == _BINARY or ranks(name))
        problems.append(Problem("loss", f"'{loss}' has no rule for rewards.", f"Known: {known}."))
    if problems:
        raise DataError("reward weights", problems)
