"""Full softmax over the catalogue, in chunks of rows, with its gradient worked out in the forward pass.

The logits of a chunk are turned into the gradient where they lie and then forgotten, so memory is one block by T and
not N by T, and the backward pass costs nothing. What a title's features add at a moment is worked out for one moment at
a time and each bias row once, so rows of one moment should lie side by side: no [rows, T] array is made but products.
Practical up to some 20,000 titles per CPU core.
Axis letters: N prediction rows, T titles, D width, P rows of the additive bias, S moments, F features, M matching
space.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playbill.models.batch import FurtherBatch

CHUNK_LOGITS = 1 << 18  # logits that go through the softmax at a time: about what the second-level cache holds
BLOCK_LOGITS = 1 << 20
"""Logits of one matrix product on a processor. They are read three times, so they should stay in its caches."""
LEAST_ROWS = 64
"""Rows of a product, however many titles there are: each adds to the whole gradient of the title vectors."""
ACCELERATOR_LOGITS = 1 << 22  # logits of one product elsewhere, where every product costs a launch
TINY = 1e-30  # probabilities below it count as this much, so that a hopeless row has a finite loss
FAR = 1e30  # taken off the logit of what does not compete: its probability is then exactly 0


@dataclass(frozen=True, slots=True)
class Hidden:
    """Titles that are in no row's denominator because its member could not have seen them. Targets always are."""

    titles: Tensor  # [G, T] bool
    row: Tensor  # [N] row of `titles` of each query


@dataclass(frozen=True, slots=True)
class MomentFeatures:
    """What the features of titles at the moment of each row add to their scores."""

    weights: Tensor  # [P, F] float32, one row for each row of the bias
    features: Tensor  # [S, T, F] float32; no gradient flows to them
    snapshot: Tensor  # [N] moment of each query. Rows of one moment should lie side by side.


@dataclass(frozen=True, slots=True)
class Names:
    """A second product, of what was typed with what titles are called, for the few rows that have a query."""

    rows: Tensor  # [m] numbers of those rows, ascending
    typed: Tensor  # [m, M] of the queries' type
    names: Tensor  # [T, M]; no gradient flows to them


@dataclass(frozen=True, slots=True)
class _Fixed:
    bias_row: Tensor
    target: Tensor
    weight: Tensor
    hidden: Hidden | None
    features: Tensor | None
    snapshot: Tensor | None
    names: Tensor | None
    requested: Tensor | None
    further: FurtherBatch | None

    def queries(self, block: slice) -> tuple[slice, Tensor]:
        """Return which queries rows of a block have, and the numbers of those rows within it."""
        assert self.requested is not None
        first, last = torch.searchsorted(self.requested, self.requested.new_tensor([block.start, block.stop])).tolist()
        return slice(first, last), self.requested[first:last] - block.start


def softmax_loss(
    q_ND: Tensor,
    e_TD: Tensor,
    bias_PT: Tensor,
    bias_row_N: Tensor,
    target_N: Tensor,
    weight_N: Tensor,
    hidden: Hidden | None = None,
    moments: MomentFeatures | None = None,
    names: Names | None = None,
    further: FurtherBatch | None = None,
) -> Tensor:
    """Return the weighted sum of cross-entropies of `q · e + bias + features · weights + typed · name`, float32.

    A row of several targets costs what a row of one does: their cross-entropies come from the same probabilities.

    Args:
        q_ND: Queries, float32 or bfloat16 (the products run in this type, all else in float32).
        e_TD: Title vectors of the same type.
        bias_PT: Additive biases, float32.
        bias_row_N: Which bias row each query uses, int64.
        target_N: Index of the right title, int64.
        weight_N: Weight of each row, float32; no gradient flows to it.
        hidden: What does not compete; None = every title does.
        moments: Features of titles; None = they have none.
        names: What was typed; None = nothing was.
        further: Other right titles of each row and their shares of its weight; none of them is hidden from it.
    """
    fixed = _Fixed(
        bias_row=bias_row_N,
        target=target_N,
        weight=weight_N,
        hidden=hidden,
        features=None if moments is None else moments.features,
        snapshot=None if moments is None else moments.snapshot,
        names=None if names is None else names.names,
        requested=None if names is None else names.rows,
        further=further,
    )
    weights, typed = None if moments is None else moments.weights, None if names is None else names.typed
    with torch.autocast(q_ND.device.type, enabled=False):
        loss: Tensor = _ChunkedSoftmax.apply(q_ND, e_TD, bias_PT, weights, typed, fixed)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, e: Tensor, bias: Tensor, weights: Tensor | None, typed: Tensor | None, fixed: _Fixed
    ) -> Tensor:
        grads = _Gradients(q, e, bias, weights, typed) if any(ctx.needs_input_grad) else None
        total = torch.zeros((), dtype=torch.float64, device=q.device)
        biases = _Biases(bias, weights, fixed)
        runs = _runs(fixed.snapshot, q.shape[0])
        size = block_rows(e.shape[0], q.device)
        # One buffer for all blocks: a new array of this size costs a page fault for every 4 KiB.
        buffer = q.new_empty(min(size, q.shape[0]), e.shape[0])
        for block in chunks(q.shape[0], size):
            logits = torch.mm(q[block], e.T, out=buffer[: block.stop - block.start])
            if typed is not None and fixed.names is not None:
                own, rows = fixed.queries(block)
                logits.index_add_(0, rows, typed[own] @ fixed.names.T)
            for part in _parts(block, runs, CHUNK_LOGITS // e.shape[0]):
                inside = slice(part.start - block.start, part.stop - block.start)
                own_PT = biases.at(part.start, grads)
                total += _softmax_chunk(logits[inside], own_PT, part, fixed, grads)
            if grads is not None:
                grads.add(block, logits, q, e, fixed)
        if grads is not None:
            biases.leave(grads)
            ctx.save_for_backward(*grads.all())
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        q, e, bias, weights, typed = ctx.saved_tensors
        scaled = [None if grad is None else grad * scale.to(grad.dtype) for grad in (q, bias, weights, typed)]
        return scaled[0], (e * scale).to(q.dtype), *scaled[1:], None


def block_rows(titles: int, device: torch.device) -> int:
    """Return the rows of one product with so many titles."""
    logits = BLOCK_LOGITS if device.type == "cpu" else ACCELERATOR_LOGITS
    return max(LEAST_ROWS, logits // titles)


def chunks(rows: int, size: int) -> Iterator[slice]:
    """Cut `rows` into slices of at most `size` rows, at least one row each."""
    size = max(1, size)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _runs(snapshot: Tensor | None, rows: int) -> list[int]:
    if snapshot is None or not rows:
        return [rows]
    counts = torch.unique_consecutive(snapshot, return_counts=True)[1]
    ends: list[int] = counts.cumsum(0).tolist()
    return ends


def _parts(block: slice, runs: list[int], size: int) -> Iterator[slice]:
    """Cut a block into parts of at most `size` rows, each of one moment."""
    start, size = block.start, max(1, size)
    while start < block.stop:
        end = runs[bisect_right(runs, start)]
        stop = min(start + size, end, block.stop)
        yield slice(start, stop)
        start = stop


class _Biases:
    """The biases [P, T] of the moment at hand; those of one moment are worked out once."""

    def __init__(self, bias: Tensor, weights: Tensor | None, fixed: _Fixed) -> None:
        self.bias, self.weights, self.fixed = bias, weights, fixed
        self.moments = None if fixed.snapshot is None else fixed.snapshot.tolist()
        self.moment: int | None = None
        self.own = bias

    def at(self, row: int, grads: _Gradients | None) -> Tensor:
        """Return the biases of the moment of a row, and let go of the moment before."""
        if self.moments is None or self.weights is None or self.fixed.features is None:
            return self.bias
        if self.moment != self.moments[row]:
            self.leave(grads)
            self.moment = self.moments[row]
            self.own = torch.addmm(self.bias, self.weights, self.fixed.features[self.moment].T)
        return self.own

    def leave(self, grads: _Gradients | None) -> None:
        """Hand the gradient of the moment's biases on to the weights of its features."""
        if grads is not None and grads.moment is not None and self.moment is not None:
            assert grads.weights is not None
            assert self.fixed.features is not None
            grads.weights.addmm_(grads.moment, self.fixed.features[self.moment])
            grads.bias += grads.moment
            grads.moment.zero_()


def _softmax_chunk(logits: Tensor, bias: Tensor, part: slice, fixed: _Fixed, grads: _Gradients | None) -> Tensor:
    """Return the chunk's loss and overwrite `logits` with their gradient for weights of 1."""
    exact, bias_row = logits.float(), fixed.bias_row[part]
    exact += bias if bias.shape[0] == 1 else bias[bias_row]
    column, weight = fixed.target[part].unsqueeze(-1), fixed.weight[part]
    if fixed.hidden is not None:
        kept = exact.gather(1, column)
        # Arithmetic instead of a masked fill, which tests every cell for itself.
        exact.sub_(fixed.hidden.titles[fixed.hidden.row[part]].float().mul_(FAR)).scatter_(1, column, kept)
    share = torch.softmax(exact, dim=1, out=exact)
    loss = _one_target(share, column, weight) if fixed.further is None else _several(share, column, part, fixed)
    if grads is not None:
        grads.add_bias(share, bias_row, weight)
    if share is not logits:  # of another type
        logits.copy_(share)
    return loss


def _one_target(share: Tensor, column: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of rows and turn their probabilities into the gradient for weights of 1."""
    chosen = share.gather(1, column)
    share.scatter_(1, column, chosen - 1)
    return -(weight * chosen.squeeze(-1).clamp(min=TINY).log()).sum(dtype=torch.float64)


def _several(share: Tensor, column: Tensor, part: slice, fixed: _Fixed) -> Tensor:
    """Do so for rows of several targets: shares add up to 1, so the gradient is `softmax - shares`."""
    assert fixed.further is not None
    own = fixed.further.share[part]
    columns = torch.cat([column, fixed.further.title[part]], dim=1)
    shares = torch.cat([1 - own.sum(1, keepdim=True), own], dim=1)
    losses = (shares * share.gather(1, columns).clamp(min=TINY).log()).sum(1)
    share.scatter_add_(1, columns, -shares)
    return -(fixed.weight[part] * losses).sum(dtype=torch.float64)


class _Gradients:
    """The gradients of one call, built up block by block.

    Row weights go to the narrow side of each product, [rows, D] and not [rows, T].
    """

    def __init__(self, q: Tensor, e: Tensor, bias: Tensor, weights: Tensor | None, typed: Tensor | None) -> None:
        self.q = torch.empty_like(q)
        self.e = torch.zeros_like(e, dtype=torch.float32)
        self.bias = torch.zeros_like(bias)
        self.weights = None if weights is None else torch.zeros_like(weights)
        self.moment = None if weights is None else torch.zeros_like(bias)
        self.typed = None if typed is None else torch.empty_like(typed)

    def all(self) -> tuple[Tensor | None, ...]:
        """Return them in the order of the arguments."""
        return self.q, self.e, self.bias, self.weights, self.typed

    def add_bias(self, rise: Tensor, bias_row: Tensor, weight: Tensor) -> None:
        """Take in one chunk's [rows, T] `softmax - target`: rows of one bias row are added up."""
        share_PN = rise.new_zeros(self.bias.shape[0], rise.shape[0]).scatter_(
            0, bias_row.unsqueeze(0), weight.unsqueeze(0)
        )
        (self.bias if self.moment is None else self.moment).addmm_(share_PN, rise)

    def add(self, block: slice, rise: Tensor, q: Tensor, e: Tensor, fixed: _Fixed) -> None:
        """Take in one block's."""
        weight_N1 = fixed.weight[block].to(q.dtype).unsqueeze(-1)
        self.q[block] = (rise @ e) * weight_N1
        weighted = q[block] * weight_N1
        if rise.dtype == self.e.dtype:
            self.e.addmm_(rise.T, weighted)
        else:
            self.e += rise.T @ weighted
        if self.typed is not None and fixed.names is not None:
            own, rows = fixed.queries(block)
            self.typed[own] = (rise[rows] @ fixed.names) * weight_N1[rows]


def binary_loss(logit_N: Tensor, label_N: Tensor, weight_N: Tensor) -> Tensor:
    """Return the weighted sum of binary cross-entropies, a float32 scalar."""
    losses = F.binary_cross_entropy_with_logits(logit_N.float(), label_N, reduction="none")
    return (losses * weight_N).sum()
