"""Full softmax over the catalogue, in chunks of rows, with its gradient worked out in the forward pass.

The logits of a chunk are turned into the gradient where they lie and then forgotten, so memory is one chunk by T
and not N by T, and the backward pass costs nothing. Practical up to some 20,000 titles per CPU core.
Axis letters: N prediction rows, T titles, D width, P rows of the additive bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

CHUNK_LOGITS = 1 << 18
"""Logits that go through the softmax at a time: about what the second-level cache holds."""
BLOCK_LOGITS = 1 << 22
"""Logits of one matrix product, the most that are ever kept."""
TINY = 1e-30
"""Probabilities below it count as this much, so that a hopeless row has a finite loss."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Titles that are in no row's denominator because its member could not have seen them. Targets always are."""

    titles: Tensor
    """[G, T] bool."""
    row: Tensor
    """[N] row of `titles` of each query."""


def softmax_loss(
    q_ND: Tensor,
    e_TD: Tensor,
    bias_PT: Tensor,
    bias_row_N: Tensor,
    target_N: Tensor,
    weight_N: Tensor,
    hidden: Hidden | None = None,
) -> Tensor:
    """Return the weighted sum of cross-entropies of `q · e + bias`, a float32 scalar.

    Args:
        q_ND: Queries, float32 or bfloat16 (the products run in this type, all else in float32).
        e_TD: Title vectors of the same type.
        bias_PT: Additive biases, float32.
        bias_row_N: Which bias row each query uses, int64.
        target_N: Index of the right title, int64.
        weight_N: Weight of each row, float32; no gradient flows to it.
        hidden: What does not compete; None = every title does.
    """
    loss: Tensor = _ChunkedSoftmax.apply(  # type: ignore[no-untyped-call]
        q_ND, e_TD, bias_PT, bias_row_N, target_N, weight_N, hidden
    )
    return loss


class _ChunkedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        e: Tensor,
        bias: Tensor,
        bias_row: Tensor,
        target: Tensor,
        weight: Tensor,
        hidden: Hidden | None,
    ) -> Tensor:
        keep = any(ctx.needs_input_grad[:3])
        grads = _Gradients(q, e, bias) if keep else None
        total = torch.zeros((), dtype=torch.float64, device=q.device)
        for part in chunks(q.shape[0], BLOCK_LOGITS // e.shape[0]):
            logits = q[part] @ e.T
            own = None if hidden is None else Hidden(hidden.titles, hidden.row[part])
            total += _softmax_block(logits, bias, bias_row[part], target[part], weight[part], own)
            if grads is not None:
                grads.add(part, logits, q[part], e, bias_row[part], weight[part])
        if grads is not None:
            ctx.save_for_backward(grads.q, grads.e, grads.bias)
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        q, e, bias = ctx.saved_tensors
        return q * scale.to(q.dtype), (e * scale).to(q.dtype), bias * scale, None, None, None, None


def chunks(rows: int, size: int) -> Iterator[slice]:
    """Cut `rows` into slices of at most `size` rows, at least one row each."""
    size = max(1, size)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _softmax_block(
    logits: Tensor, bias: Tensor, bias_row: Tensor, target: Tensor, weight: Tensor, hidden: Hidden | None
) -> Tensor:
    """Return the block's loss and overwrite `logits` with their gradient for weights of 1."""
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for part in chunks(logits.shape[0], CHUNK_LOGITS // logits.shape[1]):
        exact = logits[part].float()
        exact += bias if bias.shape[0] == 1 else bias[bias_row[part]]
        column = target[part].unsqueeze(-1)
        if hidden is not None:
            kept = exact.gather(1, column)
            exact.masked_fill_(hidden.titles[hidden.row[part]], -torch.inf).scatter_(1, column, kept)
        share = torch.softmax(exact, dim=1)
        chosen = share.gather(1, column)
        total -= (weight[part] * chosen.squeeze(-1).clamp(min=TINY).log()).sum(dtype=torch.float64)
        logits[part] = share.scatter_(1, column, chosen - 1)
    return total


class _Gradients:
    """The gradients of one call, built up block by block.

    Row weights go to the narrow side of each product, [rows, D] and not [rows, T].
    """

    def __init__(self, q: Tensor, e: Tensor, bias: Tensor) -> None:
        self.q = torch.empty_like(q)
        self.e = torch.zeros_like(e, dtype=torch.float32)
        self.bias = torch.zeros_like(bias)

    def add(self, part: slice, rise: Tensor, q: Tensor, e: Tensor, bias_row: Tensor, weight: Tensor) -> None:
        """Take in one block's [rows, T] `softmax - target`."""
        weight_N1 = weight.to(q.dtype).unsqueeze(-1)
        self.q[part] = (rise @ e) * weight_N1
        self.e += rise.T @ (q * weight_N1)
        if self.bias.shape[0] == 1:
            self.bias += weight_N1.T @ rise
        else:
            share_PN = torch.zeros(self.bias.shape[0], rise.shape[0], dtype=rise.dtype, device=rise.device)
            share_PN.scatter_(0, bias_row.unsqueeze(0), weight_N1.T)
            self.bias += share_PN @ rise


def binary_loss(logit_N: Tensor, label_N: Tensor, weight_N: Tensor) -> Tensor:
    """Return the weighted sum of binary cross-entropies, a float32 scalar."""
    losses = F.binary_cross_entropy_with_logits(logit_N.float(), label_N, reduction="none")
    return (losses * weight_N).sum()
