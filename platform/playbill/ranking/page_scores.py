"""Blends of many rows at once: `blend` and `rank` of each row, in single precision where that is enough.

The blend of a page is computed in float32, and its error is bounded. A list is then chosen among the titles that the
bound cannot tell from the k-th best, by their scores in float64: it is the list that `rank` makes of `blend`.
Axis letters: R rows, M (row, head) pairs, T titles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from playbill.arrays import Floats32, Floats64, Ints64
from playbill.errors import UnknownNameError
from playbill.ranking.blend import COMPETING, VALUES, RankedList, Scores, log_normaliser, log_sigmoid, rank
from playbill.ranking.candidates import Mask

ROUNDING = 2.0**-24  # relative error of one operation in float32
UNDERFLOW = float(np.finfo(np.float32).smallest_subnormal)
"""Smallest step in float32: no result is nearer than that to what it should be."""
OPERATIONS = 16  # roundings between a logit and its part of a blend, at most; functions count as several
SMALL = 1e-20  # a sum of exponentials below it may have lost some to underflow, so it is computed in float64 instead


@dataclass(frozen=True, slots=True)
class Term:
    """One head's part of one row's blend."""

    logits: Floats32  # [T] float32
    loss: str  # of the head
    weight: float  # in the blend
    # logarithm of the sum of exponentials over the row's candidates where titles compete, else 0
    normaliser: float = 0.0

    def exact(self, columns: Ints64) -> Scores:
        """Return the float64 part of a blend of some titles."""
        values = self.logits[columns].astype(np.float64)
        if self.loss in COMPETING:
            values -= self.normaliser
        elif self.loss not in VALUES:
            values = log_sigmoid(values)
        return self.weight * values


@dataclass(frozen=True)
class PageScores:
    """Scores of R rows."""

    scores: Floats32  # [R, T] float32 blends, -inf where there is no candidate. Their error is below `errors`.
    candidates: Mask  # [R, T]
    terms: tuple[tuple[Term, ...], ...]  # the parts of each row's blend
    errors: Floats64  # [R]

    def __len__(self) -> int:
        return len(self.terms)

    def best(self, row: int, k: int, allowed: Mask | None = None) -> RankedList:
        """List a row's best candidates: `rank(blend(...), candidates & allowed, k)`, scores in float64.

        Raises:
            ValueError: `k` is not positive, or a candidate's score is NaN.
        """
        mask = self.candidates[row] if allowed is None else self.candidates[row] & allowed
        near = self._near(row, k, mask)
        ranked = rank(self.exact(row, near), np.ones(len(near), np.bool_), k)
        return RankedList(near[ranked.columns], ranked.scores)

    def sharpened(self, row: int, k: int) -> Scores:
        """Return a row's [T] scores in float64, such that `rank` lists the best `k` candidates as `best` does."""
        scores: Scores = self.scores[row].astype(np.float64)
        near = self._near(row, k, self.candidates[row])
        scores[near] = self.exact(row, near)
        return scores

    def logits(self, row: int) -> Floats32:
        """Return the [T] logits of a row whose blend has one head, whatever its weight.

        Raises:
            ValueError: The blend has none, or several.
        """
        (term,) = self.terms[row]
        return term.logits

    def _near(self, row: int, k: int, mask: Mask) -> Ints64:
        """Return the columns that the error cannot tell from the best `k`."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        columns = np.flatnonzero(mask)
        values = self.scores[row, columns]
        if np.isnan(values).any():
            raise ValueError("a candidate's score is NaN")
        if len(columns) > k:
            least = np.partition(values, len(values) - k)[len(values) - k]
            columns = columns[values >= least - 2 * self.errors[row]]
        return columns

    def exact(self, row: int, columns: Ints64) -> Scores:
        """Return the float64 blend of some candidates of a row."""
        total = np.zeros(len(columns))
        for term in self.terms[row]:
            total += term.exact(columns)
        return total


def blend_page(
    logits: Sequence[Floats32],
    pairs: Sequence[tuple[int, str]],
    losses: Mapping[str, str],
    blends: Sequence[Mapping[str, float]],
    candidates: Mask,
) -> PageScores:
    """Blend the heads of many rows.

    `logits` are M of [T] float32, finite, of M different (row, head) `pairs` with every head of a row's blend among
    them; `blends` [R] are head -> weight, where 0 keeps the head's logits and costs no more than them; `candidates` are
    [R, T].

    Raises:
        UnknownNameError: A blend names a head that has no logits.
    """
    known = {pair: number for number, pair in enumerate(pairs)}
    scores = np.zeros(candidates.shape, np.float32)
    errors = np.zeros(len(blends))
    terms: list[tuple[Term, ...]] = []
    # One look-up in a table of two is several times faster than a choice for each title
    outside = np.take(np.array([-np.inf, 0.0], np.float32), candidates.view(np.uint8))
    weigh = candidates.astype(np.float32)
    for row, weights in enumerate(blends):
        own = []
        for head, weight in weights.items():
            if (row, head) not in known or head not in losses:
                raise UnknownNameError("head", head, {name for place, name in pairs if place == row} & losses.keys())
            term, part = _term(logits[known[row, head]], losses[head], weight, (candidates[row], weigh[row]))
            scores[row] += part
            size = float(np.fmax.reduce(np.abs(part), initial=0.0)) + abs(weight * term.normaliser)
            errors[row] += OPERATIONS * (ROUNDING * size + UNDERFLOW)
            own.append(term)
        terms.append(tuple(own))
    errors *= np.array([len(own) for own in terms]) + 1
    scores += outside
    return PageScores(scores, candidates, tuple(terms), errors)


def _term(logits: Floats32, loss: str, weight: float, among: tuple[Mask, Floats32]) -> tuple[Term, Floats32]:
    if weight == 0:
        return Term(logits, loss, weight), np.zeros_like(logits)
    if loss in COMPETING:
        normaliser = _normaliser(logits, *among)
        return Term(logits, loss, weight, normaliser), (logits - np.float32(normaliser)) * np.float32(weight)
    if loss in VALUES:
        return Term(logits, loss, weight), logits * np.float32(weight)
    return Term(logits, loss, weight), log_sigmoid(logits) * np.float32(weight)


def _normaliser(logits: Floats32, candidates: Mask, weigh: Floats32) -> float:
    largest = logits.max(initial=-np.inf)
    if not np.isfinite(largest):
        return log_normaliser(logits, candidates)
    total = float(np.dot(np.exp(logits - largest), weigh))
    if not total > SMALL:
        return log_normaliser(logits, candidates)
    return float(largest) + float(np.log(total))
