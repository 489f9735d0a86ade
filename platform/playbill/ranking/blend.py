"""Heads to one score: a weighted sum of log probabilities over the candidates.

A head's loss says what its logits mean. `softmax` heads compete over titles, so their logits become log-softmax
over the candidates. `bce` heads answer yes or no for each title, so theirs become log-sigmoid. The blend is then
the logarithm of a product of probabilities, each raised to its weight: weights of heads with different losses
are on one scale, and a constant added to all logits of a softmax head changes nothing. A negative weight
pushes down what the head thinks likely. The term `similarity` is no probability and enters as it is.
Axis letters: T titles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from playbill.errors import UnknownNameError
from playbill.ranking.candidates import Mask
from playbill.specs import ResolvedModel
from playbill.specs.canvas import SIMILARITY

Logits = npt.NDArray[np.floating[Any]]
Scores = npt.NDArray[np.float64]
COMPETING = ("softmax", "sampled_softmax")
"""Losses under which titles compete for one probability."""
AS_IT_IS = "none"
"""Stands for the loss of a term that no loss trained."""


def head_losses(resolved: ResolvedModel) -> dict[str, str]:
    """Return each head's loss by name; heads without a label of their own cannot be blended and are left out."""
    heads = resolved.model.heads
    return {name: head.loss for name, head in heads.items() if head.loss is not None} | {SIMILARITY: AS_IT_IS}


def log_probabilities(logits: Logits, loss: str, candidates: Mask) -> Scores:
    """Turn one head's logits into log probabilities.

    Args:
        logits: [T], finite.
        loss: One of `COMPETING`, or any other for a head that is asked about each title apart.
        candidates: [T]; softmax is taken over these.

    Returns:
        [T] float64, at most 0, -inf where there is no candidate.
    """
    values = np.where(candidates, logits.astype(np.float64), -np.inf)
    if not candidates.any():
        return values
    if loss in COMPETING:
        shifted = values - values.max()
        result: Scores = shifted - np.log(np.exp(shifted).sum())
        return result
    return np.where(candidates, -np.logaddexp(0.0, -values), -np.inf)


def blend_rows(logits: Mapping[str, Logits], losses: Mapping[str, str], weights: Mapping[str, float]) -> Scores:
    """Score every title of many requests: `blend` of each row with everything as a candidate, at once.

    Args:
        logits: Head -> [N, T], finite.
        losses: Head -> its loss.
        weights: Head -> weight, as a canvas or row says; at least one.

    Returns:
        [N, T] float64.

    Raises:
        UnknownNameError: A weight names a head that the model does not have.
    """
    scores: Scores | None = None
    for head, weight in weights.items():
        if head not in logits or head not in losses:
            raise UnknownNameError("head", head, logits.keys() & losses.keys())
        values = logits[head].astype(np.float64)
        if losses[head] in COMPETING:
            values -= values.max(axis=1, keepdims=True)
            values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
        elif losses[head] != AS_IT_IS:
            values = -np.logaddexp(0.0, -values)
        values *= weight
        scores = values if scores is None else np.add(scores, values, out=scores)
    if scores is None:
        raise ValueError("nothing to blend")
    return scores


def blend(
    logits: Mapping[str, Logits], losses: Mapping[str, str], weights: Mapping[str, float], candidates: Mask
) -> Scores:
    """Score candidates for one request: the sum over heads of weight times log probability.

    Args:
        logits: Head -> [T].
        losses: Head -> its loss.
        weights: Head -> weight, as a canvas or row says.
        candidates: [T].

    Returns:
        [T] float64, -inf where there is no candidate.

    Raises:
        UnknownNameError: A weight names a head that the model does not have.
    """
    scores = np.zeros(candidates.shape, dtype=np.float64)
    for head, weight in weights.items():
        if head not in logits or head not in losses:
            raise UnknownNameError("head", head, logits.keys() & losses.keys())
        as_it_is = losses[head] == AS_IT_IS
        values = logits[head] if as_it_is else log_probabilities(logits[head], losses[head], candidates)
        scores[candidates] += weight * values[candidates]
    scores[~candidates] = -np.inf
    return scores
