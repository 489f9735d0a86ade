"""Heads to one score: a weighted sum of log probabilities over the candidates.

A head's loss says what its logits mean. Under `softmax`, `sampled_softmax`, `pairwise` and `gbce` titles compete, and
only differences between them count, so logits become log-softmax over the candidates. `bce` heads answer yes or no for
each title, so theirs become log-sigmoid. The blend is then the logarithm of a product of probabilities, each raised to
its weight: weights of heads with different losses are on one scale, and a constant added to all logits of a head that
competes changes nothing. A negative weight pushes down what the head thinks likely. What is no probability, the value
of a `huber` head and every term of `definitions.specs.canvas.TERMS`, enters as it is.
Axis letters: N requests, T titles.

Scores to lists: the best candidates, ties by column ascending.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from playbill.arrays import AnyFloats, Floats64
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.canvas import TERMS
from playbill.errors import UnknownNameError
from playbill.ranking.candidates import Columns, Mask

Scores = Floats64
FloatType = TypeVar("FloatType", bound=np.floating[Any])
COMPETING = ("softmax", "sampled_softmax", "pairwise", "gbce")  # losses under which titles compete for one probability
AS_IT_IS = "none"  # stands for the loss of a term that no loss trained
CELLS_AT_ONCE = 1 << 17  # scores that are blended at a time: a few copies of them stay in the second-level cache
VALUES = (AS_IT_IS, "huber")  # losses whose outputs are values, not evidence


def head_losses(resolved: ResolvedModel) -> dict[str, str]:
    """Return each head's loss by name; heads without a label of their own cannot be blended and are left out."""
    heads = resolved.model.heads
    return {name: head.loss for name, head in heads.items() if head.loss is not None} | dict.fromkeys(TERMS, AS_IT_IS)


def blended(resolved: ResolvedModel) -> set[str]:
    """Return every head and term that a canvas or row of a model blends."""
    blends = [*(canvas.blend for canvas in resolved.canvases.values()), *(row.blend for row in resolved.rows.values())]
    return {name for weights in blends for name in weights or ()}


def log_probabilities(logits: AnyFloats, loss: str, candidates: Mask) -> Scores:
    """Turn one head's logits [T] into log probabilities, float64, -inf where there is no candidate.

    Softmax is taken over the candidates.
    """
    values = np.where(candidates, logits.astype(np.float64), -np.inf)
    if not candidates.any():
        return values
    result: Scores = values - log_normaliser(logits, candidates) if loss in COMPETING else log_sigmoid(values)
    return result


def log_sigmoid(values: npt.NDArray[FloatType]) -> npt.NDArray[FloatType]:
    """Return the logarithm of the logistic function, in the type of its argument."""
    result: npt.NDArray[FloatType] = np.minimum(values, 0) - np.log1p(np.exp(-np.abs(values)))
    return result


def log_normaliser(logits: AnyFloats, candidates: Mask) -> float:
    """Return the logarithm of the sum of exponentials of the candidates' logits [T], 0 where there is none."""
    values = logits[candidates].astype(np.float64)
    if not values.size:
        return 0.0
    largest = values.max()
    return float(largest + np.log(np.exp(values - largest).sum()))


def blend_rows(logits: Mapping[str, AnyFloats], losses: Mapping[str, str], weights: Mapping[str, float]) -> Scores:
    """Score every title of many requests [N, T]: `blend` of each row with everything as a candidate, at once.

    Raises:
        UnknownNameError: A weight names a head that the model does not have.
    """
    for head in weights:
        if head not in logits or head not in losses:
            raise UnknownNameError("head", head, logits.keys() & losses.keys())
    if not weights:
        raise ValueError("nothing to blend")
    rows, titles = next(logits[head].shape for head in weights)
    scores = np.zeros((rows, titles))
    step = max(1, CELLS_AT_ONCE // max(1, titles))
    for start in range(0, rows, step):
        own = scores[start : start + step]
        for head, weight in weights.items():
            values = logits[head][start : start + step].astype(np.float64)
            if losses[head] in COMPETING:
                values -= values.max(axis=1, keepdims=True)
                values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
            elif losses[head] not in VALUES:
                values = log_sigmoid(values)
            values *= weight
            own += values
    return scores


def blend(
    logits: Mapping[str, AnyFloats], losses: Mapping[str, str], weights: Mapping[str, float], candidates: Mask
) -> Scores:
    """Score candidates for one request: the sum over heads of weight times log probability, [T] float64.

    What is no candidate has -inf.

    Raises:
        UnknownNameError: A weight names a head that the model does not have.
    """
    scores = np.zeros(candidates.shape, dtype=np.float64)
    for head, weight in weights.items():
        if head not in logits or head not in losses:
            raise UnknownNameError("head", head, logits.keys() & losses.keys())
        as_it_is = losses[head] in VALUES
        own = logits[head].astype(np.float64)
        values = own if as_it_is else log_probabilities(own, losses[head], candidates)
        scores[candidates] += weight * values[candidates]
    scores[~candidates] = -np.inf
    return scores


@dataclass(frozen=True)
class RankedList:
    """Columns, best first, and their scores."""

    columns: Columns
    scores: Scores

    def __len__(self) -> int:
        return len(self.columns)

    def head(self, k: int) -> RankedList:
        """Return the first `k`."""
        return RankedList(self.columns[:k], self.scores[:k])

    def without(self, taken: Mask) -> RankedList:
        """Return what is left when some columns are taken out, in the same order."""
        kept = ~taken[self.columns]
        return RankedList(self.columns[kept], self.scores[kept])


def rank(scores: Scores, candidates: Mask, k: int | None = None) -> RankedList:
    """List candidates by score, best first, `k` at most; of equal scores the smaller column comes first.

    Raises:
        ValueError: The shapes differ, `k` is not positive, or a candidate's score is NaN.
    """
    if scores.shape != candidates.shape or scores.ndim != 1:
        raise ValueError(f"scores and candidates must be [T] alike, got {scores.shape} and {candidates.shape}")
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    columns = np.flatnonzero(candidates)
    if np.isnan(scores[columns]).any():
        raise ValueError("a candidate's score is NaN")
    if k is not None:
        columns = _near_best(scores, columns, k)
    values = scores[columns]
    order = np.argsort(-values, kind="stable")[:k]
    return RankedList(columns[order], values[order])


def break_ties(scores: Scores, ties: Scores, candidates: Mask, k: int) -> Scores:
    """Return [T] scores by which `rank` lists the best `k` candidates by score, then by `ties` (-inf and NaN last).

    A candidate's score rises by less than half of what it lacks to the next higher one. Only those that can be among
    the best `k` are looked at, so that a page pays for the titles it shows and not for the catalogue.
    """
    near = _near_best(scores, np.flatnonzero(candidates), k)
    levels, level = np.unique(scores[near], return_inverse=True)
    if len(levels) == len(near):
        return scores
    gaps = np.diff(levels, append=levels[-1] + 1.0)
    _, place = np.unique(np.nan_to_num(ties[near], nan=-np.inf, neginf=-np.inf), return_inverse=True)
    ordered: Scores = scores.copy()
    ordered[near] += gaps[level] * place / (2.0 * len(near))
    return ordered


def _near_best(scores: Scores, columns: Columns, k: int) -> Columns:
    """Return the columns whose score is at least the k-th best."""
    values = scores[columns]
    if len(columns) <= k:
        return columns
    best: Columns = columns[values >= np.partition(values, len(values) - k)[len(values) - k]]
    return best
