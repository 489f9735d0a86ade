"""Negatives: which titles the positives of a head are told apart from.

A policy says how likely it is to draw each title, and draws. A batch's rows share what was drawn; each row then uses
of it only what the member could have seen there and then, and never its own target. Every use comes with the number
of times the title was to be expected in the draw: a sampled softmax divides by it (Bengio and Senecal 2008; for
batches Yi et al. 2019, "Sampling-bias-corrected neural modeling"), so that its partition function is right on average.
Letters: N rows, S shared draws, C shown titles of a row, T titles, R rows of the training set, G states of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from playbill.arrays import AnyInts, Bools, Floats32, Floats64, Ints64
from playbill.definitions.specs.head import (
    NEGATIVES,
    DrawnOptions,
    MixedOptions,
    NegativesOptions,
    PopularityOptions,
    ShownOptions,
)


@dataclass(frozen=True)
class Pool:
    """What one batch may draw from, the same for all ranks that share it."""

    targets: Ints64  # titles of the batch's positive rows, repeats and all
    possible: Bools  # [T] titles that somebody in the batch could have seen; never the padding
    plays: Floats32  # [T] plays in the training part
    frequency: Floats32  # [T] share of each title among the positive rows of the whole training set


class NegativePolicy(Protocol):
    """A way to draw negatives. An outside package registers one under `playbill.negatives`."""

    shown: int | None  # how many titles shown in the row's own request and not played it adds: 0 is none, None all

    def draw(self, pool: Pool, random: np.random.Generator) -> tuple[Ints64, Floats32]:
        """Draw for one batch: [S] titles, and [T] how often each title was to be expected among them."""


class Shown:
    """Titles shown in the row's own request and not played. Nothing is drawn for the batch."""

    def __init__(self, options: ShownOptions) -> None:
        self.shown: int | None = options.count

    def draw(self, pool: Pool, random: np.random.Generator) -> tuple[Ints64, Floats32]:
        """Draw nothing."""
        return np.zeros(0, np.int64), np.zeros(len(pool.possible), np.float32)


class Uniform:
    """Every possible title alike, with replacement."""

    shown: int | None = 0

    def __init__(self, options: DrawnOptions) -> None:
        self.count = options.count

    def weights(self, pool: Pool) -> Floats64:
        """Return [T] what the chance of each title is proportional to."""
        return pool.possible.astype(np.float64)

    def draw(self, pool: Pool, random: np.random.Generator) -> tuple[Ints64, Floats32]:
        """Draw `count` titles with replacement."""
        upto = np.cumsum(self.weights(pool))
        if upto[-1] == 0:
            return np.zeros(0, np.int64), np.zeros(len(upto), np.float32)
        found = np.searchsorted(upto, random.random(self.count) * upto[-1], side="right")
        expected = self.count * np.diff(upto, prepend=0.0) / upto[-1]
        return np.minimum(found, len(upto) - 1).astype(np.int64), expected.astype(np.float32)


class Popularity(Uniform):
    """Titles by plays to a power, as in word2vec (Mikolov et al. 2013): what everybody plays is told apart most."""

    def __init__(self, options: PopularityOptions) -> None:
        super().__init__(options)
        self.exponent = options.exponent

    def weights(self, pool: Pool) -> Floats64:
        """Return [T] what the chance of each title is proportional to."""
        return np.where(pool.possible, (pool.plays.astype(np.float64) + 1) ** self.exponent, 0.0)


class InBatch:
    """Targets of the batch's rows. What the log plays often comes often, which the correction takes back.

    A row is never told apart from its own target, so what it can expect is what the other rows bring. A title that
    is nobody's target is never a negative here; `mixed` draws those too.
    """

    shown: int | None = 0

    def __init__(self, options: DrawnOptions) -> None:
        self.count = options.count

    def draw(self, pool: Pool, random: np.random.Generator) -> tuple[Ints64, Floats32]:
        """Take `count` targets without replacement, all of them where there are no more."""
        targets = pool.targets
        if len(targets) > self.count:
            targets = targets[random.permutation(len(targets))[: self.count]]
        others = len(targets) * (1 - 1 / max(len(pool.targets), 1))
        return targets, (others * pool.frequency).astype(np.float32)


class Mixed:
    """Several policies at once (Yang et al. 2020, "Mixed negative sampling for learning two-tower networks")."""

    def __init__(self, options: MixedOptions) -> None:
        sizes = {name: round(share * options.count) for name, share in options.shares.items()}
        self.parts = [_part(name, size, options.exponent) for name, size in sizes.items()]
        shown = [part.shown for part in self.parts if part.shown != 0]
        self.shown: int | None = shown[0] if shown else 0

    def draw(self, pool: Pool, random: np.random.Generator) -> tuple[Ints64, Floats32]:
        """Draw each policy's share, one after the other."""
        drawn, expected = zip(*(part.draw(pool, random) for part in self.parts), strict=True)
        return np.concatenate(drawn), np.sum(expected, axis=0, dtype=np.float32)


def _part(name: str, count: int, exponent: float) -> NegativePolicy:
    spec: type[NegativesOptions] = NEGATIVES[name].load_options() or NegativesOptions
    wanted = {"policy": name, "count": count, "exponent": exponent}
    return make_policy(spec.model_validate({key: wanted[key] for key in wanted if key in spec.model_fields}))


def make_policy(options: NegativesOptions) -> NegativePolicy:
    """Return the policy that options name."""
    made: NegativePolicy = NEGATIVES[options.policy].load()(options)
    return made


def usable_titles(drawn: Ints64, targets: Ints64, available: Bools, group: Ints64, shown: Ints64) -> Bools:
    """Return [N, S] which drawn titles count for which row: none of its targets, nor of `shown`, used beside them.

    `targets` are [N, 1 + F], `shown` [N, C]; 0 = none.

    `available` [G, T] is what could be seen, by `group`; no rows where everything always could.
    """
    usable: Bools = (drawn > 0) & (drawn != targets[:, :1])
    if len(available):
        usable &= available[:, drawn][group]
    for column in (*targets.T[1:], *shown.T):
        usable &= drawn != column[:, None]
    return usable


def shown_titles(flat: AnyInts, offsets: AnyInts, rows: Ints64, most: int | None) -> Ints64:
    """Return [N, C] the first titles of each row's slate (at most `most`), 0 where there are no more.

    Slates lie flat, `offsets` [R + 1] say where each begins.
    """
    size = offsets[rows + 1] - offsets[rows]
    width = int(size.max(initial=0)) if most is None else min(most, int(size.max(initial=0)))
    place = np.arange(width)
    inside = place < size[:, None]
    where = np.where(inside, offsets[rows][:, None] + place, 0)
    return np.where(inside, flat[where] if len(flat) else 0, 0).astype(np.int64)
