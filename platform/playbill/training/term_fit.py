"""The weights of terms: a convex likelihood of what was chosen, shrunk to what is written where requests are few.

Of a request's candidates the member chose t with probability proportional to
exp(s_c l_t + sum_j q_cj x_tj + sum_k w_cbk z_tk), where l is what heads say, by their written weights, x the terms that
the canvas blends beside them (likeness, lift, text), by theirs, z the terms of histories, c the canvas and b the length
of the history. All q and w are at least 0, with Gaussian priors: q_cj about s_c, which leaves the blend as it is
written; w_cbk about a value of the canvas, that about one that all canvases share, and that about 0. The scale s_c
takes up how sure the model is of itself: beside heads of scale 1 a blended term is multiplied by q / s, and w / s is
added.

The gate of an ensemble (`playbill.continual.ensembles.gate`) is the same fit, where b are groups such as countries.
What groups have in common, such as a country over all tenures, has effects of its own: w_cbk has its prior about the
canvas's value plus the effects u_fk of b, and those about 0.
Axis letters: C canvases, B lengths or groups, F effects, J blended terms of a canvas, K terms of histories, n requests,
T titles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from playbill.arrays import Floats32, Floats64, Ints64, Mask
from playbill.models.history_terms import LENGTHS

PRIOR_SHARED, PRIOR_OWN = 20.0, 200.0
"""Precisions: of what canvases share about 0, and of a canvas, and of a length, about what is above it. A term is
standardised, so at a precision of 200 some 200 requests weigh as much as the prior."""
PRIOR_SCALE = 20.0  # precision of the scale about 1: a model may be too sure of itself, and few requests do not say so
PRIOR_BLENDED = 20.0  # precision of a blended term's multiplier about the scale
SMALLEST_SCALE, LARGEST = 0.05, 5.0
STOP = {"maxiter": 100, "ftol": 1e-6}
"""A relative step of the loss that ends the search: at 1e-6 weights are right to the third digit, after a fifth of the
steps that SciPy's default takes."""
NO_CANDIDATE = np.float32(-1e9)
CELLS_AT_ONCE = 1 << 17
"""Request x title cells that are scored at a time: their terms stay in the cache until their slopes are taken."""


@dataclass(frozen=True)
class CanvasSample:
    """Requests of one canvas, with what was chosen."""

    canvas: str  # its name
    heads: Floats32  # [n, T] what the blend's heads say, 0 where there is no candidate
    blended: Floats32  # [n, J, T] the same of the terms that it blends, times their written weights
    terms: Floats32  # [n, K, T] the same of terms of histories
    candidates: Mask  # [n, T]
    rows: Ints64  # [m] request of each target, ascending; every request has one
    columns: Ints64  # [m] title of each target
    length: Ints64  # [n] group of its history's length
    fold: Ints64  # [n] part of the members it belongs to
    member: Ints64  # [n] code of its member

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def written(self) -> Floats32:
        """[n, T] the blend as it is written."""
        found: Floats32 = self.heads + self.blended.sum(axis=1)
        return found

    def as_written(self) -> CanvasSample:
        """Return the same without anything to weigh: all of the written blend as one."""
        return replace(self, heads=self.written, blended=self.blended[:, :0], terms=self.terms[:, :0])

    def part(self, kept: Mask) -> CanvasSample:
        """Return some of the requests."""
        number = np.cumsum(kept) - 1
        targets = kept[self.rows]
        return CanvasSample(
            canvas=self.canvas,
            heads=self.heads[kept],
            blended=self.blended[kept],
            terms=self.terms[kept],
            candidates=self.candidates[kept],
            rows=number[self.rows[targets]],
            columns=self.columns[targets],
            length=self.length[kept],
            fold=self.fold[kept],
            member=self.member[kept],
        )

    def of_targets(self) -> tuple[Floats64, Floats64, Floats64]:
        """Return [n], [n, J] and [n, K] of what was chosen, the mean where it was several titles."""
        heads = self.mean_of_targets(self.heads[self.rows, self.columns, None])[:, 0]
        blended = self.mean_of_targets(self.blended[self.rows, :, self.columns])
        return heads, blended, self.mean_of_targets(self.terms[self.rows, :, self.columns])

    def mean_of_targets(self, values: Floats32) -> Floats64:
        """Return [n, V] the mean over each request's targets of [m, V] values."""
        share = 1.0 / np.bincount(self.rows, minlength=len(self))[self.rows]
        mean: Floats64 = np.zeros((len(self), values.shape[1]))
        np.add.at(mean, self.rows, share[:, None] * values)
        return mean


@dataclass(frozen=True)
class Groups:
    """What weights are learnt apart for on each canvas."""

    effects: Floats64  # [B, F] which effects each group has

    @property
    def count(self) -> int:
        """B."""
        return len(self.effects)


BY_LENGTH = Groups(np.zeros((len(LENGTHS) + 1, 0)))


@dataclass(frozen=True)
class TermWeights:
    """What a fit found."""

    scale: Floats64  # [C] s
    shared: Floats64  # [K] what canvases share
    own: Floats64  # [C, B, K] w
    blended: tuple[Floats64, ...]  # C times [J] q
    effects: Floats64  # [F, K] u

    def multipliers(self) -> Floats64:
        """Return [C, B, K] what terms of histories are multiplied by beside heads of scale 1."""
        return self.own / self.scale[:, None, None]

    def shared_multipliers(self) -> Floats64:
        """Return [K] the same of a canvas that has no requests of its own."""
        found: Floats64 = self.shared / np.exp(np.log(self.scale).mean())
        return found

    def blended_multipliers(self) -> list[Floats64]:
        """Return C times [J] what the written weights of blended terms are multiplied by; 1 leaves them."""
        return [values / scale for values, scale in zip(self.blended, self.scale, strict=True)]


def fit_weights(
    samples: Sequence[CanvasSample], start: TermWeights | None = None, groups: Groups = BY_LENGTH
) -> TermWeights:
    """Find the likeliest weights; a canvas without requests has what canvases share.

    `start` is where to begin: those of a similar sample. `groups` are those that `CanvasSample.length` numbers.
    """
    size, terms, design = len(samples), samples[0].terms.shape[1], groups.effects
    shape, shape_effects = (size, groups.count, terms), (design.shape[1], terms)
    counts = [sample.blended.shape[1] for sample in samples]
    ends = np.cumsum([size, terms, size * terms, math.prod(shape), math.prod(shape_effects)])
    within = np.cumsum(counts)[:-1]
    chosen = [sample.of_targets() for sample in samples]

    def split(point: Floats64) -> tuple[Floats64, Floats64, Floats64, Floats64, Floats64, list[Floats64]]:
        scale, shared, canvas, own, effects, blended = np.split(point, ends)
        parts = canvas.reshape(size, terms), own.reshape(shape), effects.reshape(shape_effects)
        return scale, shared, *parts, np.split(blended, within)

    def loss(point: Floats64) -> tuple[float, Floats64]:
        gradient = np.zeros_like(point)
        (scale, shared, canvas, own, effects, blended), slopes = split(point), split(gradient)
        from_shared, from_canvas = canvas - shared, own - canvas[:, None] - design @ effects
        total = 0.5 * PRIOR_SCALE * ((scale - 1.0) ** 2).sum() + 0.5 * PRIOR_SHARED * (shared**2).sum()
        total += 0.5 * PRIOR_OWN * ((from_shared**2).sum() + (from_canvas**2).sum() + (effects**2).sum())
        slopes[0][:] = PRIOR_SCALE * (scale - 1.0)
        slopes[1][:] = PRIOR_SHARED * shared - PRIOR_OWN * from_shared.sum(axis=0)
        slopes[2][:] = PRIOR_OWN * (from_shared - from_canvas.sum(axis=1))
        slopes[3][:] = PRIOR_OWN * from_canvas
        slopes[4][:] = PRIOR_OWN * (effects - design.T @ from_canvas.sum(axis=0))
        for number, sample in enumerate(samples):
            from_written = blended[number] - scale[number]
            lost, of_scale, of_blended, of_own = loss_and_slopes(
                sample, scale[number], blended[number], own[number], chosen[number]
            )
            total += lost + 0.5 * PRIOR_BLENDED * (from_written**2).sum()
            slopes[0][number] += of_scale - PRIOR_BLENDED * from_written.sum()
            slopes[3][number] += of_own
            slopes[5][number] += of_blended + PRIOR_BLENDED * from_written
        return float(total), gradient

    first = np.concatenate([np.ones(size), np.zeros(ends[-1] - size), np.ones(sum(counts))])
    if start is not None:
        canvas = np.average(start.own, axis=1)
        values = [start.scale, start.shared, canvas.ravel(), start.own.ravel(), start.effects.ravel(), *start.blended]
        first = np.concatenate(values)
    bounds = [(SMALLEST_SCALE, LARGEST)] * size + [(0.0, LARGEST)] * (ends[3] - size)
    bounds += [(-LARGEST, LARGEST)] * math.prod(shape_effects) + [(0.0, LARGEST)] * sum(counts)
    from scipy.optimize import minimize  # takes a fifth of a second, and commands that fit nothing import this module

    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options=STOP)
    scale, shared, _, own, effects, blended = split(np.asarray(found.x, dtype=np.float64))
    return TermWeights(scale, shared, own, tuple(blended), effects)


def loss_and_slopes(
    sample: CanvasSample,
    scale: float,
    blended_J: Floats64,
    own_BK: Floats64,
    chosen: tuple[Floats64, Floats64, Floats64],
) -> tuple[float, float, Floats64, Floats64]:
    """Return a canvas's negative log likelihood, and its slopes by the scale, by [J] and by [B, K] weights."""
    weights, (heads, blended, terms) = own_BK[sample.length], chosen
    lost = -scale * float(heads.sum()) - float((blended_J * blended).sum()) - float((weights * terms).sum())
    of_scale, of_blended, of_terms = -float(heads.sum()), -blended.sum(axis=0), -terms
    step = max(1, CELLS_AT_ONCE // max(1, sample.heads.shape[1]))
    for start in range(0, len(sample), step):
        rows = slice(start, start + step)
        shares = scored(sample, scale, blended_J, weights[rows], rows)
        largest = shares.max(axis=1, keepdims=True)
        np.exp(np.subtract(shares, largest, out=shares), out=shares)
        sums = shares.sum(axis=1, keepdims=True)
        shares /= sums
        lost += float((largest + np.log(sums)).sum())
        of_scale += float(np.einsum("nt,nt->", shares, sample.heads[rows]))
        of_blended += np.matmul(sample.blended[rows], shares[:, :, None])[:, :, 0].sum(axis=0)
        of_terms[rows] += np.matmul(sample.terms[rows], shares[:, :, None])[:, :, 0]
    slopes = np.zeros_like(own_BK)
    np.add.at(slopes, sample.length, of_terms)
    return lost, of_scale, of_blended, slopes


def scored(
    sample: CanvasSample, scale: float, blended: Floats64, terms: Floats64, rows: slice = slice(None)
) -> Floats32:
    """Return [n, T] scores of some requests by weights of heads, blended terms [J] and terms of histories [n, K].

    What is no candidate scores very low.
    """
    scores: Floats32 = np.float32(scale) * sample.heads[rows]
    scores += np.matmul(blended.astype(np.float32), sample.blended[rows])
    scores += np.matmul(terms[:, None, :].astype(np.float32), sample.terms[rows])[:, 0]
    np.copyto(scores, NO_CANDIDATE, where=~sample.candidates[rows])
    return scores


def log_likelihood(sample: CanvasSample, scores: Floats32) -> Floats64:
    """Return [n] the mean log probability of what was chosen, in nats, under [n, T] scores."""
    largest = scores.max(axis=1, keepdims=True)
    normaliser = largest[:, 0] + np.log(np.exp(scores - largest).sum(axis=1))
    found: Floats64 = sample.mean_of_targets(scores[sample.rows, sample.columns, None])[:, 0] - normaliser
    return found
