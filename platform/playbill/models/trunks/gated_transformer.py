"""The causal trunk `gated_transformer`.

Pre-norm blocks with three cheap additions, all neutral at the start: a learned attention bias per head and
distance (T5, arXiv 1910.10683), a short causal mixing of queries, keys and values (Primer, arXiv 2109.08668), and
a gate per head on what attention hears (Gated Attention, arXiv 2505.06708).
Axis letters: those of `causal`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.config import NetworkConfig
from playbill.models.trunks.causal import (
    CausalBlock,
    CausalTrunk,
    Dropout,
    distance_bias,
    softmax_attention,
)

MIX = 2  # how many earlier states queries, keys and values read


class GatedTransformer(CausalTrunk):
    """`trunk.layers` gated blocks and a last norm."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, GatedBlock, time_bias=config.trunk.own().time_bias)


class GatedBlock(CausalBlock):
    """Gated attention and feed-forward, each behind a norm and beside a residual."""

    reach = MIX

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config.trunk.heads)
        dim = config.trunk.dim
        self.attention_norm, self.feed_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project = nn.Linear(dim, 3 * dim)
        self.mix = nn.Parameter(torch.zeros(MIX, 3 * dim))
        self.distance = nn.Parameter(torch.zeros(self.heads, config.length + 1))
        self.out = nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gates = nn.Linear(dim, self.heads)
        self.dropout = Dropout(config.trunk.dropout)
        self._start(dim, config.trunk.layers)

    def _start(self, dim: int, layers: int) -> None:
        for linear in (self.project, self.up):
            nn.init.normal_(linear.weight, std=dim**-0.5)
        nn.init.normal_(self.out.weight, std=(2 * layers * dim) ** -0.5)
        nn.init.normal_(self.down.weight, std=(2 * layers * 4 * dim) ** -0.5)
        for linear in (self.project, self.up, self.out, self.down, self.gates):
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.gates.weight)

    def before(self, state_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return normed states, and their projections."""
        x_BLD = self.attention_norm(state_BLD)
        return x_BLD, self.project(x_BLD)

    def mixed(self, rows_BLE: Tensor) -> Tensor:
        """Add to projections multiples of those before them."""
        return mix_back(rows_BLE, self.mix)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, back_QK: Tensor, time: Tensor | None) -> Tensor:
        """Attend with a bias for each distance, and that of time."""
        bias = distance_bias(self.distance, back_QK)
        bias = bias if time is None else bias + time
        return softmax_attention(q, k, v, bias.to(q.dtype))

    def after(self, state_BLD: Tensor, x_BLD: Tensor, heard_BLD: Tensor) -> Tensor:
        """Gate what attention heard, and feed forward."""
        heard_BLD = apply_gate(heard_BLD, 2 * torch.sigmoid(self.gates(x_BLD)))
        state_BLD = state_BLD + self.dropout(self.out(heard_BLD))
        thought = self.down(F.gelu(self.up(self.feed_norm(state_BLD))))
        after: Tensor = state_BLD + self.dropout(thought)
        return after


def mix_back(x_BLE: Tensor, mix: Tensor) -> Tensor:
    """Add to each position learned multiples, per channel, of those before it: row s of `mix` for s + 1 steps back."""
    mixed: Tensor = _MixBack.apply(x_BLE, mix.to(x_BLE.dtype))  # type: ignore[no-untyped-call]
    return mixed


class _MixBack(torch.autograd.Function):
    """Written out because the plain form makes three copies of its input, which is most of its cost on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mix: Tensor) -> Tensor:
        ctx.save_for_backward(x, mix)
        mixed = x.clone()
        for back, multiple in enumerate(mix, start=1):
            mixed[:, back:].addcmul_(x[:, :-back], multiple)
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,), (x, mix) = grads, ctx.saved_tensors
        grad_x, grad_mix = grad.clone(), torch.zeros_like(mix)
        for back, multiple in enumerate(mix, start=1):
            grad_x[:, :-back].addcmul_(grad[:, back:], multiple)
            grad_mix[back - 1] = (grad[:, back:] * x[:, :-back]).sum(dim=(0, 1))
        return grad_x, grad_mix


def apply_gate(x_BLD: Tensor, gate_BLH: Tensor) -> Tensor:
    """Scale each head's share of the width."""
    heads = gate_BLH.shape[-1]
    batch, length, dim = x_BLD.shape
    return (x_BLD.view(batch, length, heads, -1) * gate_BLH.unsqueeze(-1)).view(batch, length, dim)
