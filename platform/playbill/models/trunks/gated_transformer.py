"""The causal trunk `gated_transformer`: tokens -> states, each of which has seen only what came before.

Pre-norm blocks with three cheap additions, all neutral at the start: a learned attention bias per head and
distance (T5, arXiv 1910.10683), a short causal mixing of queries, keys and values (Primer, arXiv 2109.08668), and
a gate per head on what attention hears (Gated Attention, arXiv 2505.06708).
Attention runs as plain batched products on a CPU, where the fused kernel's bfloat16 backward is several times slower,
and as the fused kernel on an accelerator.
Axis letters: B members, L tokens, D width, H attention heads, S places.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.config import NetworkConfig

LEVELS = 256
_LOWEST = -(2**63)


class Dropout(nn.Module):
    """Zero a share `p` of entries in training, rounded to 1/256, and scale up the others.

    On a CPU masks are cheap: eight keep-or-drop decisions from every 64 random bits.
    """

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


def causal_attention(qkv_BLE: Tensor, distance_HL: Tensor, heads: int) -> Tensor:
    """Attend to the same and earlier positions: [B, L, 3D] queries, keys and values side by side -> [B, L, D].

    `distance_HL` is each head's bias for looking 0, 1, 2 ... positions back, at least L of them.
    """
    batch, length, _ = qkv_BLE.shape
    q, k, v = qkv_BLE.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    bias = distance_bias(distance_HL, q.shape[-2]).to(q.dtype)
    attend = plain_attention if q.device.type == "cpu" else fused_attention
    return attend(q, k, v, bias).transpose(1, 2).flatten(-2)


def attention_at(qkv_BLE: Tensor, distance_HL: Tensor, heads: int, member_S: Tensor, place_S: Tensor) -> Tensor:
    """Return [S, D] what `causal_attention` returns at some places: rows `member_S`, positions `place_S`."""
    batch, length, _ = qkv_BLE.shape
    q, k, v = qkv_BLE.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    back_SL = place_S.unsqueeze(1) - torch.arange(length, device=q.device)
    bias_SHL = distance_HL[:, back_SL.clamp(min=0)].transpose(0, 1)
    bias_SHL = bias_SHL.masked_fill((back_SL < 0).unsqueeze(1), float("-inf")).to(q.dtype)
    requested = q[member_S, :, place_S].unsqueeze(2)
    return plain_attention(requested, k[member_S], v[member_S], bias_SHL.unsqueeze(2)).flatten(1)


def distance_bias(distance_HL: Tensor, length: int) -> Tensor:
    """Return [H, L, L] biases: entry (i, j) is that of distance i - j, and -inf where j is later than i."""
    steps = torch.arange(length, device=distance_HL.device)
    back = steps.unsqueeze(1) - steps
    bias = distance_HL[:, back.clamp(min=0)]
    return bias.masked_fill(back < 0, float("-inf"))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attend step by step, which is faster than the fused kernel on a CPU."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + bias
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attend by torch's fused kernel."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


MIX = 2  # how many earlier states queries, keys and values read


class GatedTransformer(nn.Module):
    """`trunk.layers` gated blocks and a last norm."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        trunk = config.trunk
        self.dropout = Dropout(trunk.dropout)
        self.blocks = nn.ModuleList(GatedBlock(config) for _ in range(trunk.layers))
        self.norm = nn.LayerNorm(trunk.dim)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Return states [B, L, D]; state l depends on tokens 0 to l."""
        state_BLD = self.dropout(tokens_BLD)
        for block in self.blocks:
            state_BLD = block(state_BLD)
        last: Tensor = self.norm(state_BLD)
        return last

    def at(self, tokens_BLD: Tensor, member_S: Tensor, place_S: Tensor) -> Tensor:
        """Return [S, D] what `forward` returns at some places: the last block is computed there alone."""
        state_BLD = tokens_BLD
        for block in self.blocks[:-1]:
            state_BLD = block(state_BLD)
        last: Tensor = self.norm(self.blocks[-1].at(state_BLD, member_S, place_S))  # type: ignore[operator]
        return last


@runtime_checkable
class ReadsAt(Protocol):
    """A trunk that computes the states of some places for less than those of all."""

    def at(self, tokens_BLD: Tensor, member_S: Tensor, place_S: Tensor) -> Tensor:
        """Return [S, D] states; see `GatedTransformer.at`."""


class GatedBlock(nn.Module):
    """Gated attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim, self.heads = config.trunk.dim, config.trunk.heads
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

    def forward(self, state_BLD: Tensor) -> Tensor:
        """Return the next states [B, L, D]."""
        x_BLD = self.attention_norm(state_BLD)
        qkv = mix_back(self.project(x_BLD), self.mix)
        return self._feed(state_BLD, x_BLD, causal_attention(qkv, self.distance, self.heads))

    def at(self, state_BLD: Tensor, member_S: Tensor, place_S: Tensor) -> Tensor:
        """Return [S, D] what `forward` returns at some places."""
        x_BLD = self.attention_norm(state_BLD)
        qkv = mix_back(self.project(x_BLD), self.mix)
        heard_SD = attention_at(qkv, self.distance, self.heads, member_S, place_S)
        state_SD, x_SD = state_BLD[member_S, place_S], x_BLD[member_S, place_S]
        return self._feed(state_SD.unsqueeze(0), x_SD.unsqueeze(0), heard_SD.unsqueeze(0)).squeeze(0)

    def _feed(self, state_BLD: Tensor, x_BLD: Tensor, heard_BLD: Tensor) -> Tensor:
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
