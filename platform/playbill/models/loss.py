"""Full softmax over the catalogue, in chunks of rows, with its gradient worked out in the forward pass.

The logits of a chunk are turned into the gradient where they lie and then forgotten, so memory is one chunk by T
and not N by T, and the backward pass costs nothing. Practical up to some 20,000 titles per CPU core.
Axis letters: N prediction rows, T titles, D width, P rows of the additive bias.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

CHUNK_LOGITS = 1 << 20
"""Logits worked on at a time; about what the second-level cache holds."""


def softmax_loss(
    q_ND: Tensor, e_TD: Tensor, bias_PT: Tensor, bias_row_N: Tensor, target_N: Tensor, weight_N: Tensor
) -> Tensor:
    """Return the weighted sum of cross-entropies of `q · e + bias`, a float32 scalar.

    Args:
        q_ND: Queries, float32 or bfloat16 (the products run in this type, all else in float32).
        e_TD: Title vectors of the same type.
        bias_PT: Additive biases, float32.
        bias_row_N: Which bias row each query uses, int64.
        target_N: Index of the right title, int64.
        weight_N: Weight of each row, float32; no gradient flows to it.
    """
    loss: Tensor = _ChunkedSoftmax.apply(  # type: ignore[no-untyped-call]
        q_ND, e_TD, bias_PT, bias_row_N, target_N, weight_N
    )
    return loss


class _ChunkedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, e: Tensor, bias: Tensor, bias_row: Tensor, target: Tensor, weight: Tensor
    ) -> Tensor:
        keep = any(ctx.needs_input_grad[:3])
        grads = _Gradients(q, e, bias) if keep else None
        total = torch.zeros((), dtype=torch.float64, device=q.device)
        rows = max(1, CHUNK_LOGITS // e.shape[0])
        for start in range(0, q.shape[0], rows):
            part = slice(start, start + rows)
            logits = (q[part] @ e.T).float() + bias[bias_row[part]]
            total += _chunk(logits, target[part], weight[part])
            if grads is not None:
                grads.add(part, logits, q[part], e, bias_row[part])
        if grads is not None:
            ctx.save_for_backward(grads.q, grads.e, grads.bias)
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        q, e, bias = ctx.saved_tensors
        return (q * scale).to(q.dtype), (e * scale), bias * scale, None, None, None


def _chunk(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the chunk's loss and overwrite `logits` with their gradient."""
    column = target.unsqueeze(-1)
    chosen = logits.gather(1, column).squeeze(-1)
    top = logits.amax(dim=1, keepdim=True)
    logits.sub_(top).exp_()
    total = logits.sum(dim=1, keepdim=True)
    loss = (weight * (total.log() + top).squeeze(-1).sub(chosen)).sum(dtype=torch.float64)
    logits.mul_(weight.unsqueeze(-1) / total)
    logits.scatter_add_(1, column, -weight.unsqueeze(-1))
    return loss


class _Gradients:
    """The gradients of one call, built up chunk by chunk."""

    def __init__(self, q: Tensor, e: Tensor, bias: Tensor) -> None:
        self.q = torch.empty_like(q)
        self.e = torch.zeros_like(e, dtype=torch.float32)
        self.bias = torch.zeros_like(bias)

    def add(self, part: slice, gradient: Tensor, q: Tensor, e: Tensor, bias_row: Tensor) -> None:
        """Take in one chunk's [rows, T] gradient with respect to the logits."""
        if self.bias.shape[0] == 1:
            self.bias[0] += gradient.sum(dim=0)
        else:
            self.bias.index_add_(0, bias_row, gradient)
        low = gradient.to(e.dtype)
        self.q[part] = low @ e
        self.e += low.T @ q


def binary_loss(logit_N: Tensor, label_N: Tensor, weight_N: Tensor) -> Tensor:
    """Return the weighted sum of binary cross-entropies, a float32 scalar."""
    losses = F.binary_cross_entropy_with_logits(logit_N.float(), label_N, reduction="none")
    return (losses * weight_N).sum()
