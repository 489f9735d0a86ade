"""Causal attention with a learned bias per head and distance.

On a CPU plain batched products are used: the fused kernel's bfloat16 backward is several times slower there.
On an accelerator the fused kernel is.
Axis letters: B members, H heads, L tokens, D width, S places.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def causal_attention(qkv_BLE: Tensor, distance_HL: Tensor, heads: int) -> Tensor:
    """Attend to the same and earlier positions.

    Args:
        qkv_BLE: [B, L, 3D] queries, keys and values side by side.
        distance_HL: [H, at least L] bias of every head for looking 0, 1, 2 ... positions back.
        heads: H.

    Returns:
        [B, L, D].
    """
    batch, length, _ = qkv_BLE.shape
    q, k, v = qkv_BLE.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    bias = distance_bias(distance_HL, q.shape[-2]).to(q.dtype)
    attend = _plain if q.device.type == "cpu" else _fused
    return attend(q, k, v, bias).transpose(1, 2).flatten(-2)


def attention_at(qkv_BLE: Tensor, distance_HL: Tensor, heads: int, member_S: Tensor, place_S: Tensor) -> Tensor:
    """Return [S, D] what `causal_attention` returns at some places.

    Args:
        qkv_BLE: [B, L, 3D].
        distance_HL: [H, at least L].
        heads: H.
        member_S: [S] row of each place.
        place_S: [S] position of each place.
    """
    batch, length, _ = qkv_BLE.shape
    q, k, v = qkv_BLE.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    back_SL = place_S.unsqueeze(1) - torch.arange(length, device=q.device)
    bias_SHL = distance_HL[:, back_SL.clamp(min=0)].transpose(0, 1)
    bias_SHL = bias_SHL.masked_fill((back_SL < 0).unsqueeze(1), float("-inf")).to(q.dtype)
    asked = q[member_S, :, place_S].unsqueeze(2)
    return _plain(asked, k[member_S], v[member_S], bias_SHL.unsqueeze(2)).flatten(1)


def distance_bias(distance_HL: Tensor, length: int) -> Tensor:
    """Return [H, L, L] biases: entry (i, j) is that of distance i - j, and -inf where j is later than i."""
    steps = torch.arange(length, device=distance_HL.device)
    back = steps.unsqueeze(1) - steps
    bias = distance_HL[:, back.clamp(min=0)]
    return bias.masked_fill(back < 0, float("-inf"))


def _plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + bias
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def _fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
