"""Dropout whose masks are cheap on a CPU: eight keep-or-drop decisions from every 64 random bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

LEVELS = 256
_LOWEST = -(2**63)


class Dropout(nn.Module):
    """Zero a share `p` of entries in training, rounded to 1/256, and scale up the others."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` in evaluation, else with entries dropped at random."""
        dropped = round(self.p * LEVELS)
        if not self.training or not dropped:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, dropped / LEVELS)
        return x * byte_mask(x, dropped)


def byte_mask(x: Tensor, dropped: int) -> Tensor:
    """Return a mask like `x`: 0 for `dropped` of 256 entries at random, and for the others what keeps the mean."""
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(_LOWEST, None)
    keep = (words.view(torch.uint8)[: x.numel()] >= dropped).view(x.shape)
    return keep.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
