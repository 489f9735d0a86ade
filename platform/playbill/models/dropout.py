"""Dropout whose masks are cheap on a CPU: eight keep-or-drop decisions from every 64 random bits."""

from __future__ import annotations

from typing import Any

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
        kept: Tensor = _ByteDropout.apply(x, dropped)  # type: ignore[no-untyped-call]
        return kept


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(_LOWEST, None)
        keep = (words.view(torch.uint8)[: x.numel()] >= dropped).view(x.shape)
        ctx.save_for_backward(keep)
        ctx.scale = LEVELS / (LEVELS - dropped)
        kept: Tensor = x * keep * ctx.scale
        return kept

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        gradient: Tensor = grads[0] * keep * ctx.scale
        return gradient, None
