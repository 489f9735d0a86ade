"""How heads' losses are balanced.

A balance gives each head a multiplier for the next step from what the steps before it measured: the heads' mean
losses, and where it asks for them, how hard each pulls on the shared state. Multipliers are constants of a step, so
nothing here is in the network, and every worker of a run computes the same ones from the same global numbers. A head
without a labelled row in a batch is left as it was.
Axis letter: K heads.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from playbill.definitions.specs.network import (
    BALANCERS,
    BalanceOptions,
    GradNormOptions,
    ScaleOptions,
    UncertaintyOptions,
)

SMALLEST = 1e-6  # a loss or a gradient below it counts as this much


class Balancer(Protocol):
    """Weighs heads. Made of their own weights [K] and of its options."""

    pulls: bool  # whether it reads the gradients that heads send into the shared state

    def weights(self) -> Tensor:
        """Return [K] what each head's mean loss is multiplied by in the next step."""

    def update(self, losses_K: Tensor, pulls_K: Tensor, seen_K: Tensor) -> None:
        """Take in a step.

        `losses_K` are mean losses over the whole batch, `pulls_K` norms of their gradients with respect to the shared
        states (zeros if not asked for), `seen_K` says whether the batch had a row for the head.
        """

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""


def make_balancer(options: BalanceOptions, weights_K: Tensor) -> Balancer:
    """Return the balance that options name."""
    made: Balancer = BALANCERS[options.type].load()(weights_K, options)
    return made


class _Learned:
    """Multipliers that are found; the heads' own weights multiply them. Together they add up to the own weights."""

    pulls = False

    def __init__(self, weights_K: Tensor) -> None:
        self.own = weights_K.float()
        self.found = torch.zeros_like(self.own)
        """Logarithm of each multiplier, up to a constant."""

    def weights(self) -> Tensor:
        """Return [K] own weight times multiplier, of the same sum as the own weights."""
        raw_K = self.own * (self.found - self.found.max()).exp()
        return raw_K * (self.own.sum() / raw_K.sum().clamp(min=SMALLEST))

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {"found": self.found.clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.found = state["found"].clone()


class Static(_Learned):
    """The heads' own weights, always."""

    def __init__(self, weights_K: Tensor, options: BalanceOptions) -> None:
        super().__init__(weights_K)

    def weights(self) -> Tensor:
        """Return [K] the own weights."""
        return self.own

    def update(self, losses_K: Tensor, pulls_K: Tensor, seen_K: Tensor) -> None:
        """Learn nothing."""


class Uncertainty(_Learned):
    """Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses" (CVPR 2018).

    A head counts `exp(-s) L + s / 2`, where `s` is the logarithm of its variance and goes down the gradient of that. It
    comes to rest at a multiplier of `1 / 2L`, so in the end this is `scale`, reached at a learning rate.
    """

    def __init__(self, weights_K: Tensor, options: UncertaintyOptions) -> None:
        super().__init__(weights_K)
        self.learning_rate = options.learning_rate

    def update(self, losses_K: Tensor, pulls_K: Tensor, seen_K: Tensor) -> None:
        """Take a step of gradient descent on the variances."""
        rise_K = 0.5 - self.found.exp() * losses_K.to(self.found)
        self.found += self.learning_rate * torch.where(seen_K, rise_K.clamp(-1.0, 1.0), 0.0)


class GradNorm(_Learned):
    """Chen et al., "GradNorm: gradient normalization for adaptive loss balancing" (ICML 2018).

    Each weighted loss should pull on the shared state as hard as the mean of all does, times how far it is behind, to
    the power `alpha`. The weights follow the sign of what is missing, in logarithms, so that none becomes negative.
    """

    pulls = True

    def __init__(self, weights_K: Tensor, options: GradNormOptions) -> None:
        super().__init__(weights_K)
        self.alpha, self.learning_rate = options.alpha, options.learning_rate
        self.first = torch.zeros_like(self.own)

    def update(self, losses_K: Tensor, pulls_K: Tensor, seen_K: Tensor) -> None:
        """Move every weight towards an equal pull."""
        losses_K, pulls_K = losses_K.to(self.own), pulls_K.to(self.own)
        self.first = torch.where(seen_K & self.first.eq(0), losses_K, self.first)
        if not seen_K.any():
            return
        pull_K = self.weights() * pulls_K
        left_K = losses_K / self.first.clamp(min=SMALLEST)
        behind_K = left_K / left_K[seen_K].mean().clamp(min=SMALLEST)
        wanted_K = pull_K[seen_K].mean() * behind_K.pow(self.alpha)
        self.found -= self.learning_rate * torch.where(seen_K, torch.sign(pull_K - wanted_K), 0.0)

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {"found": self.found.clone(), "first": self.first.clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.found, self.first = state["found"].clone(), state["first"].clone()


class Scale(_Learned):
    """Each head's loss over its own running mean, to a power: a relative improvement counts the same in every head.

    It is what `uncertainty` comes to rest at, without a learning rate; with `power: 0.5` half way to the own weights.
    """

    def __init__(self, weights_K: Tensor, options: ScaleOptions) -> None:
        super().__init__(weights_K)
        self.decay, self.power = options.decay, options.power
        self.mean, self.seen = torch.zeros_like(self.own), torch.zeros_like(self.own)

    def update(self, losses_K: Tensor, pulls_K: Tensor, seen_K: Tensor) -> None:
        """Take the losses into the running means."""
        self.mean = torch.where(seen_K, torch.lerp(losses_K.to(self.mean), self.mean, self.decay), self.mean)
        self.seen = torch.where(seen_K, torch.lerp(torch.ones_like(self.seen), self.seen, self.decay), self.seen)
        size_K = (self.mean / self.seen.clamp(min=SMALLEST)).clamp(min=SMALLEST)
        self.found = torch.where(self.seen.gt(0), -self.power * size_K.log(), 0.0)

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {"found": self.found.clone(), "mean": self.mean.clone(), "seen": self.seen.clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.found, self.mean, self.seen = (state[name].clone() for name in ("found", "mean", "seen"))
