"""The weights of terms of histories: a convex likelihood of what was chosen, shrunk where requests are few.

Of a request's candidates the member chose t with probability proportional to exp(s_c l_t + sum_k w_cbk z_tk), where l
is the blend as it is written, z the terms, c the canvas and b the length of the history. All w are at least 0, with
Gaussian priors one below the other: w_cbk about a value of the canvas, that about one that all canvases share, and that
about 0. The scale s_c takes up how sure the model is of itself; what is added to a score of scale 1 is w / s.
Axis letters: C canvases, B lengths, K terms, n requests of a canvas, T titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from playbill.models.history_terms import LENGTHS, Floats, Ints

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PRIOR_SHARED, PRIOR_OWN = 20.0, 200.0
"""Precisions: of what canvases share about 0, and of a canvas, and of a length, about what is above it. A term is
standardised, so at a precision of 200 some 200 requests weigh as much as the prior."""
PRIOR_SCALE = 20.0
"""Precision of the scale about 1: a model may be too sure of itself, and few requests do not say so."""
SMALLEST_SCALE, LARGEST = 0.05, 5.0
STOP = {"maxiter": 100, "ftol": 1e-6}
"""A relative step of the loss that ends the search: at 1e-6 weights are right to the third digit, after a fifth of the
steps that SciPy's default takes."""
NO_CANDIDATE = np.float32(-1e9)


@dataclass(frozen=True)
class CanvasSample:
    """Requests of one canvas, with what was chosen.

    Args:
        canvas: Its name.
        blend: [n, T] the blend as it is written, 0 where there is no candidate.
        terms: [n, K, T] the same of the terms.
        candidates: [n, T].
        rows: [m] request of each target, ascending; every request has one.
        columns: [m] title of each target.
        length: [n] group of its history's length.
        fold: [n] part of the members it belongs to.
        member: [n] code of its member.
    """

    canvas: str
    blend: Floats
    terms: Floats
    candidates: Mask
    rows: Ints
    columns: Ints
    length: Ints
    fold: Ints
    member: Ints

    def __len__(self) -> int:
        return len(self.blend)

    def part(self, kept: Mask) -> CanvasSample:
        """Return some of the requests."""
        number = np.cumsum(kept) - 1
        targets = kept[self.rows]
        return CanvasSample(
            canvas=self.canvas,
            blend=self.blend[kept],
            terms=self.terms[kept],
            candidates=self.candidates[kept],
            rows=number[self.rows[targets]],
            columns=self.columns[targets],
            length=self.length[kept],
            fold=self.fold[kept],
            member=self.member[kept],
        )

    def of_targets(self) -> tuple[Values, Values]:
        """Return [n] the blend and [n, K] the terms of what was chosen, the mean where it was several titles."""
        share = 1.0 / np.bincount(self.rows, minlength=len(self))[self.rows]
        blend: Values = np.zeros(len(self))
        np.add.at(blend, self.rows, share * self.blend[self.rows, self.columns])
        terms: Values = np.zeros((len(self), self.terms.shape[1]))
        np.add.at(terms, self.rows, share[:, None] * self.terms[self.rows, :, self.columns])
        return blend, terms


@dataclass(frozen=True)
class TermWeights:
    """What a fit found.

    Args:
        scale: [C] s.
        shared: [K] what canvases share.
        own: [C, B, K] w.
    """

    scale: Values
    shared: Values
    own: Values

    def multipliers(self) -> Values:
        """Return [C, B, K] what terms are multiplied by beside a blend of scale 1."""
        return self.own / self.scale[:, None, None]

    def shared_multipliers(self) -> Values:
        """Return [K] the same of a canvas that has no requests of its own."""
        found: Values = self.shared / np.exp(np.log(self.scale).mean())
        return found


def fit_weights(samples: Sequence[CanvasSample], start: TermWeights | None = None) -> TermWeights:
    """Find the likeliest weights.

    Args:
        samples: C canvases; one without requests has what canvases share.
        start: Where to begin: those of a similar sample.
    """
    size, terms = len(samples), samples[0].terms.shape[1]
    shape = (size, len(LENGTHS) + 1, terms)
    ends = np.cumsum([size, terms, size * terms])
    chosen = [sample.of_targets() for sample in samples]

    def split(point: Values) -> tuple[Values, Values, Values, Values]:
        scale, shared, canvas, own = np.split(point, ends)
        return scale, shared, canvas.reshape(size, terms), own.reshape(shape)

    def loss(point: Values) -> tuple[float, Values]:
        gradient = np.zeros_like(point)
        (scale, shared, canvas, own), slopes = split(point), split(gradient)
        from_shared, from_canvas = canvas - shared, own - canvas[:, None]
        total = 0.5 * PRIOR_SCALE * ((scale - 1.0) ** 2).sum() + 0.5 * PRIOR_SHARED * (shared**2).sum()
        total += 0.5 * PRIOR_OWN * ((from_shared**2).sum() + (from_canvas**2).sum())
        slopes[0][:] = PRIOR_SCALE * (scale - 1.0)
        slopes[1][:] = PRIOR_SHARED * shared - PRIOR_OWN * from_shared.sum(axis=0)
        slopes[2][:] = PRIOR_OWN * (from_shared - from_canvas.sum(axis=1))
        slopes[3][:] = PRIOR_OWN * from_canvas
        for number, sample in enumerate(samples):
            lost, of_scale, of_own = _loss(sample, scale[number], own[number], chosen[number])
            total += lost
            slopes[0][number] += of_scale
            slopes[3][number] += of_own
        return float(total), gradient

    first = np.concatenate([np.ones(size), np.zeros(ends[-1] - size + np.prod(shape))])
    if start is not None:
        canvas = np.average(start.own, axis=1)
        first = np.concatenate([start.scale, start.shared, canvas.ravel(), start.own.ravel()])
    bounds = [(SMALLEST_SCALE, LARGEST)] * size + [(0.0, LARGEST)] * (len(first) - size)
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options=STOP)
    scale, shared, _, own = split(np.asarray(found.x, dtype=np.float64))
    return TermWeights(scale, shared, own)


def _loss(
    sample: CanvasSample, scale: float, own_BK: Values, chosen: tuple[Values, Values]
) -> tuple[float, float, Values]:
    """Return a canvas's negative log likelihood, and its slopes with respect to the scale and to [B, K] weights."""
    slopes = np.zeros_like(own_BK)
    if not len(sample):
        return 0.0, 0.0, slopes
    weights = own_BK[sample.length]
    scores = added(sample, weights.astype(np.float32), scale)
    largest = scores.max(axis=1, keepdims=True)
    shares = np.exp(scores - largest)
    sums = shares.sum(axis=1, keepdims=True)
    shares /= sums
    blend, terms = chosen
    lost = float((largest + np.log(sums)).sum()) - scale * float(blend.sum()) - float((weights * terms).sum())
    of_scale = float((shares * sample.blend).sum()) - float(blend.sum())
    of_terms = np.matmul(sample.terms, shares[:, :, None])[:, :, 0] - terms
    np.add.at(slopes, sample.length, of_terms)
    return lost, of_scale, slopes


def added(sample: CanvasSample, weights: Floats, scale: float = 1.0) -> Floats:
    """Return [n, T] the blend times a scale with terms by [n, K] weights added; very low without a candidate."""
    scores = np.float32(scale) * sample.blend + np.matmul(weights[:, None, :], sample.terms)[:, 0]
    found: Floats = np.where(sample.candidates, scores, NO_CANDIDATE)
    return found
