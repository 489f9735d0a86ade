"""Titles like a title: what members play together, with what is known of the titles as its prior.

Of two titles s and t, m counts how often members came to one within a few steps of the other, and E is what that count
would be if chance alone brought titles together. How much more than chance is a Poisson rate with a prior:

    m ~ Poisson(E lift),    lift ~ Gamma(shape k e^mu, rate k),    mu = b_0 + sum_f b_f x_f(s, t)

where x are likenesses by metadata. The mean of the posterior, (m + k e^mu) / (E + k), leans on metadata where chance
would bring the two together seldom (a new title: E = 0) and on the log where often. The weights b and the strength k
are those under which the counts of the training part are likeliest, so how far metadata is to be trusted is learnt from
the service itself. Empirical Bayes for counts: DuMouchel, "Bayesian data mining in large frequency tables", The
American Statistician 1999; a prior mean by regression: Robbins' problem as in Efron, "Large-Scale Inference", 2010.
Axis letters: T titles, S sources, P pairs, F kinds of metadata, K neighbours kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from playbill.arrays import Floats32, Floats64, Ints64
from playbill.models.batch import TitleInputs
from playbill.models.metadata_similarity import KINDS, TitleLikeness
from playbill.models.strongest import largest_of_rows
from playbill.models.svd import co_occurrence

PAIRS = 100_000  # pairs that the prior is learnt from, half of them of titles that were played together
STRENGTHS = np.geomspace(0.1, 1000.0, 25)  # values of k that are tried
ROUNDS = 10
SOURCES_AT_ONCE = 64
COMPARED = 10_000  # titles of the log up to which each is compared with every other: some ten seconds of one core there
SAMPLED = 2_048  # titles that each is compared with in a larger log, beside those that it was played with


class Likeness(nn.Module):
    """What the training part says about pairs of titles. Nothing here is trained by gradients.

    Attributes:
        weights: [1 + F] b.
        strength: k.
        margin: [T] E of two titles is the product of their margins; 0 for a title that the log does not know.
        neighbour: [T, K] the titles that are most alike by what was played, 0 = none.
        played: [T, K] their m.
        rest: [T] m of all other titles over their prior mean, together.
    """

    weights: Tensor
    strength: Tensor
    margin: Tensor
    neighbour: Tensor
    played: Tensor
    rest: Tensor

    def __init__(self, titles: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = min(neighbours, titles)
        if not self.neighbours:
            return
        self.register_buffer("weights", torch.zeros(1 + len(KINDS)))
        self.register_buffer("strength", torch.ones(()))
        self.register_buffer("margin", torch.zeros(titles))
        self.register_buffer("neighbour", torch.zeros(titles, self.neighbours, dtype=torch.int32))
        self.register_buffer("played", torch.zeros(titles, self.neighbours))
        self.register_buffer("rest", torch.ones(titles))

    @torch.no_grad()
    def fit(self, title: Ints64, member: Ints64, inputs: TitleInputs, seed: int) -> None:
        """Learn from events [E] of the training part, in order within each member, whose events lie together.

        `seed` draws the pairs that the prior is learnt from.
        """
        if not self.neighbours:
            return
        titles = TitleLikeness.of(inputs)
        counts = first_plays_together(title, member, titles.count)
        margin = chance(counts)
        weights, strength = fit_prior(counts, margin, titles, np.random.default_rng(seed))
        self.weights.copy_(torch.from_numpy(weights))
        self.strength.fill_(strength)
        self.margin.copy_(torch.from_numpy(margin))
        compared = _ComparedTitles.of(margin, titles, np.random.default_rng(seed))
        known = np.flatnonzero(margin)
        for start in range(0, len(known), SOURCES_AT_ONCE):
            self._keep(known[start : start + SOURCES_AT_ONCE], counts, titles, compared)

    def _keep(
        self, sources: Ints64, counts: sparse.csr_matrix, titles: TitleLikeness, compared: _ComparedTitles
    ) -> None:
        """Keep the neighbours of some titles that their posterior puts first."""
        margin, strength, own = self.margin.numpy().astype(np.float64), float(self.strength), counts[sources]
        sizes, column, played = np.diff(own.indptr).astype(np.int64), own.indices.astype(np.int64), own.data
        row = np.repeat(np.arange(len(sources)), sizes)
        lift_SC = np.exp(self.prior(sources, titles, compared.titles))
        if compared.place is None:
            weights = self.weights.numpy().astype(np.float64)
            lift = np.exp(weights[0] + titles.pairs(sources[row], column) @ weights[1:])
        else:
            lift = lift_SC[row, compared.place[column]]
        expected = margin[sources][row] * margin[column] * lift
        posterior = (played + strength * lift) / (margin[sources][row] * margin[column] + strength)
        entries, kept, place = largest_of_rows(sizes, posterior, self.neighbours)
        neighbour = np.zeros((len(sources), self.neighbours), np.int32)
        count = np.zeros((len(sources), self.neighbours), np.float32)
        neighbour[kept, place], count[kept, place] = column[entries], played[entries]
        left = np.bincount(row, played, len(sources)) - np.bincount(kept, played[entries], len(sources))
        others = margin[sources] * (lift_SC @ compared.mass) - np.bincount(kept, expected[entries], len(sources))
        rest = np.where(others > 0, left / np.maximum(others, 1e-9), 1.0)
        self.neighbour[sources], self.played[sources] = torch.from_numpy(neighbour), torch.from_numpy(count)
        self.rest[sources] = torch.from_numpy(rest.astype(np.float32))

    def prior(self, sources: Ints64, titles: TitleLikeness, others: TitleLikeness | None = None) -> Floats64:
        """Return mu [S, T]: the logarithm of the lift that metadata leads one to expect, of all titles or of others."""
        weights = self.weights.numpy().astype(np.float64)
        found: Floats64 = weights[0] + titles.weighed(sources, weights[1:], others)
        return found

    def posterior(self, sources: Ints64, index: Ints64, prior: Floats64) -> Floats64:
        """Return [S, T] the logarithm of the posterior mean of the lift.

        `index` [T] is the title of training of each title now, 0 = one that came later; sources are rows of it. `prior`
        is that of these titles, or 0 to leave metadata out.
        """
        # Without a count of its own a pair has lift (rest E + k) / (E + k): its prior, and a term of margins alone.
        margin, trained, strength = self.margin.numpy().astype(np.float64), index[sources], float(self.strength)
        found, known = prior.copy(), np.flatnonzero(margin[index])
        expected = margin[trained][:, None] * margin[index[known]]
        rest = self.rest.numpy()[trained].astype(np.float64)[:, None]
        found[:, known] += np.log((rest * expected + strength) / (expected + strength))
        place = np.zeros(len(margin), np.int64)
        place[index] = np.arange(len(index))
        neighbour, played = self.neighbour.numpy()[trained], self.played.numpy()[trained]
        row, rank = np.nonzero((played > 0) & (neighbour > 0) & (place[neighbour] > 0))
        column, count = place[neighbour[row, rank]], played[row, rank].astype(np.float64)
        both, lift = margin[trained[row]] * margin[index[column]], np.exp(prior[row, column])
        found[row, column] = np.log((count + strength * lift) / (both + strength))
        return found


@dataclass(frozen=True)
class _ComparedTitles:
    """The C titles that each title is compared with, to know what chance would bring it together with in all.

    Attributes:
        titles: Them.
        mass: [C] margins that they stand for.
        place: [T] place of each title among them; None where they are a sample, drawn in proportion to their margins.
    """

    titles: TitleLikeness
    mass: Floats64
    place: Ints64 | None

    @classmethod
    def of(cls, margin: Floats32, titles: TitleLikeness, generator: np.random.Generator) -> _ComparedTitles:
        exact, known = margin.astype(np.float64), np.flatnonzero(margin)
        if len(known) <= COMPARED:
            place = np.zeros(len(margin), np.int64)
            place[known] = np.arange(len(known))
            return cls(titles.part(known), exact[known], place)
        drawn = generator.choice(known, SAMPLED, p=exact[known] / exact.sum())
        return cls(titles.part(drawn), np.full(SAMPLED, exact.sum() / SAMPLED), None)


def first_plays_together(title: Ints64, member: Ints64, titles: int) -> sparse.csr_matrix:
    """Count, of each two titles, the members who came to one within eight titles of the other: [T, T].

    Only a member's first event on a title counts, so a series of many evenings is one title.
    """
    _, first = np.unique(member.astype(np.int64) * titles + title, return_index=True)
    first.sort()
    counts: sparse.csr_matrix = co_occurrence(title[first], member[first], titles)
    return counts


def chance(counts: sparse.csr_matrix) -> Floats32:
    """Return [T] margins whose products are the counts that chance alone would give."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    found: Floats32 = (total / np.sqrt(max(float(total.sum()), 1.0))).astype(np.float32)
    return found


def fit_prior(
    counts: sparse.csr_matrix, margin: Floats32, titles: TitleLikeness, generator: np.random.Generator
) -> tuple[Floats64, float]:
    """Learn the weights of metadata and the strength of the prior from pairs of titles.

    Weights by iterated least squares for the negative binomial that the model implies; the strength, each time after,
    by likelihood over `STRENGTHS`. Returns [1 + F] weights and the strength; zeros and 1 of a log without pairs.
    """
    left, right, share = _sample(counts, margin, generator)
    if not len(left) or not counts.nnz:
        return np.zeros(1 + len(KINDS)), 1.0
    x = np.column_stack([np.ones(len(left)), titles.pairs(left, right)]).astype(np.float64)
    m, e = np.asarray(counts[left, right]).ravel(), (margin[left] * margin[right]).astype(np.float64)
    weights: Floats64 = np.zeros(x.shape[1])
    strength = 1.0
    for _ in range(ROUNDS):
        lift = np.exp(np.clip(x @ weights, -10, 10))
        trust = share * lift * e / (1 + e / strength)
        working = x @ weights + (m - lift * e) / np.maximum(lift * e, 1e-12)
        squares = (x * trust[:, None]).T @ x + 1e-3 * np.eye(x.shape[1])
        weights = np.linalg.solve(squares, (x * trust[:, None]).T @ working).astype(np.float64)
        lift = np.exp(np.clip(x @ weights, -10, 10))
        strength = float(STRENGTHS[np.argmax([_likelihood(k, m, e, lift, share) for k in STRENGTHS])])
    return weights, strength


def _likelihood(strength: float, m: Floats64, e: Floats64, lift: Floats64, share: Floats64) -> float:
    size = strength * lift
    from scipy.special import gammaln  # fits alone need it, and a shell that answers once does not wait for it

    each = gammaln(m + size) - gammaln(size) - size * np.log1p(e / strength) + m * np.log(e / (strength + e))
    return float((share * each).sum())


def _sample(
    counts: sparse.csr_matrix, margin: Floats32, generator: np.random.Generator
) -> tuple[Ints64, Ints64, Floats64]:
    """Draw pairs s < t that chance could bring together, and how many pairs each one drawn stands for."""
    upper = sparse.triu(counts, 1).tocoo()
    together = np.flatnonzero(upper.data > 0)
    chosen = generator.permutation(together)[: PAIRS // 2]
    known = np.flatnonzero(margin > 0)
    sides = known[generator.integers(max(len(known), 1), size=(2, PAIRS))] if len(known) else np.zeros((2, 0), np.int64)
    low, high = sides.min(axis=0), sides.max(axis=0)
    apart = np.flatnonzero(low < high)
    cells = np.unique(low[apart].astype(np.int64) * counts.shape[0] + high[apart])
    low, high = cells // counts.shape[0], cells % counts.shape[0]
    never = np.asarray(counts[low, high]).ravel() == 0 if len(low) else np.zeros(0, np.bool_)
    low, high = low[never], high[never]
    zeros = len(known) * (len(known) - 1) / 2 - len(together)
    shares = [np.full(len(chosen), len(together) / max(len(chosen), 1)), np.full(len(low), zeros / max(len(low), 1))]
    left = np.concatenate([upper.row[chosen], low]).astype(np.int64)
    return left, np.concatenate([upper.col[chosen], high]).astype(np.int64), np.concatenate(shares)
