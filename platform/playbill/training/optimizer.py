"""How weights move: AdamW, a one-cycle learning rate, and a running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.98)
START_DIVISOR = 25.0
END_DIVISOR = 1e5


OF_HEADS = ("heads.", "title_bias.", "canvas_titles.", "sharing.")
"""Parameters that heads or canvases do not share, or share as they like."""
TIMES = "times"
"""Key of a parameter group: its learning rate over the schedule's."""


def build_optimizer(network: nn.Module, weight_decay: float, head_rate: float = 1.0) -> torch.optim.AdamW:
    """Return fused AdamW. Only matrices of linear maps decay: no embedding, bias, norm or single vector does.

    Args:
        network: What is trained.
        weight_decay: Decoupled.
        head_rate: Learning rate of the heads' own parameters over that of all others. Decay does not rise with it.
    """
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decays = parameter.ndim >= 2 and id(parameter) not in tables
        own = head_rate != 1.0 and name.startswith(OF_HEADS)
        groups.setdefault((own, not decays), []).append(parameter)
    made = []
    for (own, free), parameters in sorted(groups.items(), key=lambda item: item[0]):
        times = head_rate if own else 1.0
        made.append({"params": parameters, "weight_decay": 0.0 if free else weight_decay / times, TIMES: times})
    return torch.optim.AdamW(made, lr=0.0, betas=BETAS, fused=True)


def one_cycle(step: int, total: int, peak: float, warm_up: float) -> float:
    """Return the learning rate of a step: cosine from peak / 25 up to peak, then down to nearly 0.

    Smith & Topin, arXiv 1708.07120, with fixed betas.

    Args:
        step: 0 for the first step.
        total: Steps of the whole run.
        peak: Highest learning rate.
        warm_up: Share of the steps that rise, 0 to 1.
    """
    rising = max(1.0, warm_up * total)
    if step < rising:
        return _cosine(peak / START_DIVISOR, peak, step / rising)
    return _cosine(peak, peak / END_DIVISOR, (step - rising) / max(1.0, total - rising))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group its multiple of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[TIMES]


class Average:
    """A running average of parameters: what is evaluated and kept in place of the last step's weights.

    The decay grows from 0.1 towards `decay` in the first steps, so that the start is forgotten. A decay of 0 keeps
    the weights themselves.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.values = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` (1 for the first)."""
        decay = min(self.decay, step / (9 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters with their averages; a second call puts them back."""
        for value, parameter in zip(self.values, self.parameters, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    def load(self, values: Iterable[Tensor]) -> None:
        """Set the averages, in the order of the parameters."""
        for value, saved in zip(self.values, values, strict=True):
            value.copy_(saved)
