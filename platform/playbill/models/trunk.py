"""The causal trunk `gated_transformer`: tokens -> states, each of which has seen only what came before.

Pre-norm blocks with three cheap additions, all neutral at the start: a learned attention bias per head and
distance (T5, arXiv 1910.10683), a short causal mixing of queries, keys and values (Primer, arXiv 2109.08668), and
a gate per head on what attention and feed-forward add (Gated Attention, arXiv 2505.06708).
Axis letters: B members, L tokens, D width, H attention heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.attention import causal_attention
from playbill.models.config import NetworkConfig
from playbill.models.dropout import Dropout

MIX = 2
"""How many earlier states queries, keys and values read."""


class GatedTransformer(nn.Module):
    """`trunk.layers` gated blocks and a last norm."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        trunk = config.trunk
        self.dropout = Dropout(trunk.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(trunk.layers))
        self.norm = nn.LayerNorm(trunk.dim)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Return states [B, L, D]; state l depends on tokens 0 to l."""
        state_BLD = self.dropout(tokens_BLD)
        for block in self.blocks:
            state_BLD = block(state_BLD)
        last: Tensor = self.norm(state_BLD)
        return last


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm, a gate per head and a residual."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim, self.heads = config.trunk.dim, config.trunk.heads
        self.attention_norm, self.feed_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project = nn.Linear(dim, 3 * dim)
        self.mix = nn.Parameter(torch.zeros(MIX, 3 * dim))
        self.distance = nn.Parameter(torch.zeros(self.heads, config.length + 1))
        self.out = nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gates = nn.Linear(dim, 2 * self.heads)
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

    def forward(self, state_BLD: Tensor) -> Tensor:
        """Return the next states [B, L, D]."""
        x_BLD = self.attention_norm(state_BLD)
        gate_attention, gate_feed = (2 * torch.sigmoid(self.gates(x_BLD))).chunk(2, dim=-1)
        qkv = mix_back(self.project(x_BLD), self.mix)
        heard = causal_attention(qkv, self.distance, self.heads)
        state_BLD = state_BLD + self.dropout(self.out(apply_gate(heard, gate_attention)))
        thought = self.down(F.gelu(self.up(self.feed_norm(state_BLD)), approximate="tanh"))
        after: Tensor = state_BLD + self.dropout(apply_gate(thought, gate_feed))
        return after


def mix_back(x_BLE: Tensor, mix: Tensor) -> Tensor:
    """Add to each position learned multiples, per channel, of the positions before it."""
    mixed = x_BLE
    for back, multiple in enumerate(mix.to(x_BLE.dtype), start=1):
        mixed = mixed + F.pad(x_BLE[:, :-back] * multiple, (0, 0, back, 0))
    return mixed


def apply_gate(x_BLD: Tensor, gate_BLH: Tensor) -> Tensor:
    """Scale each head's share of the width."""
    heads = gate_BLH.shape[-1]
    batch, length, dim = x_BLD.shape
    return (x_BLD.view(batch, length, heads, -1) * gate_BLH.unsqueeze(-1)).view(batch, length, dim)
