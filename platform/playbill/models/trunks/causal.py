"""What causal trunks share: blocks of attention to the same and earlier tokens, and three ways to run them.

`forward` computes the states of all tokens, `at` those of some places, and `extend` goes on where an earlier call
stopped, from the keys and values that it left (KV cache). The three agree to rounding.
Attention runs as plain batched products on a CPU, where the fused kernel's bfloat16 backward is several times slower,
and as the fused kernel on an accelerator.
Axis letters: B members, L tokens, D width, E side by side (queries, keys and values), H attention heads, d width of
one, Q queries, K keys, S places, N tokens that are new.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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


def steps_back(first: int, last: int, device: torch.device) -> Tensor:
    """Return [Q, K] how far keys 0 to `last` - 1 are behind queries `first` to `last` - 1; below 0 for later ones."""
    places = torch.arange(last, device=device)
    return places[first:].unsqueeze(1) - places


def distance_bias(distance_HL: Tensor, back_QK: Tensor, later: float = float("-inf")) -> Tensor:
    """Return [..., H, Q, K] each head's bias for looking 0, 1, 2 ... places back, and `later` for what comes after."""
    bias = distance_HL[:, back_QK.clamp(min=0)].masked_fill(back_QK < 0, later)
    return bias.movedim(0, -3)


def longest_pauses(gaps_BL: Tensor, first: int, last: int) -> Tensor:
    """Return [B, Q, K] the largest bucket of time between neighbours, from each of tokens 0 to `last` - 1 on.

    Queries are tokens `first` to `last` - 1. Token 0 begins the history and event l is token l + 1, `gaps_BL` [B, L]
    after the one before. Buckets grow by factors, so the longest pause between two events says about how long ago the
    earlier one was. It is 0 from a token to itself, to all later ones, and where a time is unknown.
    """
    gaps_BK = F.pad(gaps_BL, (1, 0))[:, :last]
    places = torch.arange(last, device=gaps_BL.device)
    # Of the pauses up to a query, the largest at a place or after it; a pause stands at the later one of its tokens.
    upto_BQK = gaps_BK.unsqueeze(1) * (places <= places[first:].unsqueeze(1))
    return F.pad(upto_BQK.flip(-1).cummax(-1).values.flip(-1)[..., 1:], (0, 1))


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attend with a bias [..., H, Q, K], -inf for what is not to be read."""
    return plain_attention(q, k, v, bias) if q.device.type == "cpu" else fused_attention(q, k, v, bias)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attend step by step, which is faster than the fused kernel on a CPU."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + bias
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attend by torch's fused kernel; without a bias to the same and earlier keys of as many queries (flash)."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)


@dataclass(frozen=True, slots=True)
class BlockCache:
    """What a block keeps of tokens that it has read, all that later ones need of them."""

    keys: Tensor  # [B, H, K, d]
    values: Tensor  # [B, H, K, d]
    rows: Tensor  # [B, up to `reach`, E] the last of what `before` returned

    @property
    def nbytes(self) -> int:
        """Return its memory in bytes."""
        return self.keys.nbytes + self.values.nbytes + self.rows.nbytes


TrunkCache = tuple[BlockCache, ...]
"""The cache of each block."""


@runtime_checkable
class ReadsAt(Protocol):
    """A trunk that computes the states of some places for less than those of all."""

    def at(self, tokens_BLD: Tensor, member_S: Tensor, place_S: Tensor) -> Tensor:
        """Return [S, D] states; see `CausalTrunk.at`."""


@runtime_checkable
class Extends(Protocol):
    """A trunk that reads tokens added to those it has read without reading these again."""

    def extend(self, tokens_BND: Tensor, cache: TrunkCache | None, kept: int) -> tuple[Tensor, TrunkCache]:
        """Return the state [B, D] of the last token, and a cache; see `CausalTrunk.extend`."""


class CausalBlock(nn.Module):
    """Something done to each token, attention to the same and earlier tokens, and something done to each again.

    Attributes:
        reach: How many earlier rows of what `before` returns `mixed` reads.
        heads: H.
    """

    reach = 0

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    @abstractmethod
    def before(self, state_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return [B, L, D] what `after` reads of each token, and [B, L, 3D] its query, key and value side by side."""

    def mixed(self, rows_BLE: Tensor) -> Tensor:
        """Return queries, keys and values [B, L, 3D] from those of `before`."""
        return rows_BLE

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, back_QK: Tensor, time: Tensor | None) -> Tensor:
        """Return [..., H, Q, d] what queries hear, where keys lie so far back; one below 0 is not to be read.

        `time` [..., H, Q, K] is a bias of its own, if any.
        """

    @abstractmethod
    def after(self, state_BLD: Tensor, x_BLD: Tensor, heard_BLD: Tensor) -> Tensor:
        """Return the next states [B, L, D], from what `before` left for it and what attention found."""

    def forward(self, state_BLD: Tensor, time_BHLL: Tensor | None = None) -> Tensor:
        """Return the next states [B, L, D]."""
        x_BLD, rows = self.before(state_BLD)
        q, k, v = self._split(self.mixed(rows))
        heard = self.attend(q, k, v, steps_back(0, q.shape[-2], q.device), time_BHLL)
        return self.after(state_BLD, x_BLD, heard.transpose(1, 2).flatten(-2))

    def at(self, state_BLD: Tensor, member_S: Tensor, place_S: Tensor, time_BHLL: Tensor | None = None) -> Tensor:
        """Return [S, D] what `forward` returns at some places: rows `member_S`, positions `place_S`."""
        x_BLD, rows = self.before(state_BLD)
        q, k, v = self._split(self.mixed(rows))
        back_S1L = (place_S.unsqueeze(1) - torch.arange(q.shape[-2], device=q.device)).unsqueeze(1)
        requested = q[member_S, :, place_S].unsqueeze(2)
        time = None if time_BHLL is None else time_BHLL[member_S, :, place_S].unsqueeze(2)
        heard_S1D = self.attend(requested, k[member_S], v[member_S], back_S1L, time).transpose(1, 2).flatten(-2)
        state_S1D, x_S1D = (part[member_S, place_S].unsqueeze(1) for part in (state_BLD, x_BLD))
        return self.after(state_S1D, x_S1D, heard_S1D).squeeze(1)

    def extend(
        self, state_BND: Tensor, cache: BlockCache | None, kept: int, wanted: int, time_BHNK: Tensor | None = None
    ) -> tuple[Tensor, BlockCache]:
        """Return the next states of the new tokens from number `wanted` on, and a cache with `kept` of them."""
        x_BND, rows = self.before(state_BND)
        new = rows.shape[1]
        if cache is not None:
            rows = torch.cat([cache.rows, rows], dim=1)
        q, k, v = self._split(self.mixed(rows)[:, -new:])
        if cache is not None:
            k, v = torch.cat([cache.keys, k], dim=2), torch.cat([cache.values, v], dim=2)
        past = k.shape[2] - new
        time = None if time_BHNK is None else time_BHNK[:, :, wanted:]
        heard = self.attend(q[:, :, wanted:], k, v, steps_back(past + wanted, past + new, q.device), time)
        state = self.after(state_BND[:, wanted:], x_BND[:, wanted:], heard.transpose(1, 2).flatten(-2))
        read, stop = past + kept, rows.shape[1] - new + kept
        last = rows[:, max(0, stop - self.reach) : stop]
        # Copies, as a view would hold all that it was cut from.
        parts = (part.clone(memory_format=torch.contiguous_format) for part in (k[:, :, :read], v[:, :, :read], last))
        return state, BlockCache(*parts)

    def _split(self, qkv_BLE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each [B, H, L, d]."""
        batch, length, _ = qkv_BLE.shape
        q, k, v = qkv_BLE.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return q, k, v


class CausalTrunk(nn.Module):
    """`trunk.layers` blocks of one kind and a last norm: tokens -> states that have seen only what came before.

    Attributes:
        pauses: [gap buckets, H] learned bias of attention for the longest pause since a token, of all blocks; None
            where the trunk does not read times.
    """

    def __init__(
        self, config: NetworkConfig, block: type[CausalBlock], eps: float = 1e-5, *, time_bias: bool = False
    ) -> None:
        super().__init__()
        trunk = config.trunk
        self.dropout = Dropout(trunk.dropout)
        self.blocks = nn.ModuleList(block(config) for _ in range(trunk.layers))  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(trunk.dim, eps=eps)
        self.pauses = nn.Embedding(config.events.gaps, trunk.heads) if time_bias else None
        if self.pauses is not None:
            nn.init.zeros_(self.pauses.weight)

    @property
    def reads_gaps(self) -> bool:
        """Return whether it is called with the gaps of events."""
        return self.pauses is not None

    def _time_bias(self, gaps_BL: Tensor | None, first: int, last: int) -> Tensor | None:
        if self.pauses is None:
            return None
        assert gaps_BL is not None
        bias: Tensor = self.pauses(longest_pauses(gaps_BL, first, last))
        return bias.movedim(-1, 1)

    def forward(self, tokens_BLD: Tensor, gaps_BL: Tensor | None = None) -> Tensor:
        """Return states [B, L, D]; state l depends on tokens 0 to l.

        `gaps_BL` [B, L - 1] are the events' buckets of the time since the one before, for a trunk that reads them.
        """
        state_BLD = self.dropout(tokens_BLD)
        time_BHLL = self._time_bias(gaps_BL, 0, tokens_BLD.shape[1])
        for block in self.blocks:
            state_BLD = block(state_BLD, time_BHLL)
        last: Tensor = self.norm(state_BLD)
        return last

    def at(self, tokens_BLD: Tensor, member_S: Tensor, place_S: Tensor, gaps_BL: Tensor | None = None) -> Tensor:
        """Return [S, D] what `forward` returns at some places: the last block is computed there alone."""
        state_BLD = tokens_BLD
        time_BHLL = self._time_bias(gaps_BL, 0, tokens_BLD.shape[1])
        for block in self.blocks[:-1]:
            state_BLD = block(state_BLD, time_BHLL)
        picked: Tensor = self.blocks[-1].at(state_BLD, member_S, place_S, time_BHLL)  # type: ignore[operator]
        last: Tensor = self.norm(picked)
        return last

    def extend(
        self, tokens_BND: Tensor, cache: TrunkCache | None, kept: int, gaps_BL: Tensor | None = None
    ) -> tuple[Tensor, TrunkCache]:
        """Read N tokens after those of a cache, for members with equally many: evaluation only.

        Args:
            tokens_BND: The new tokens.
            cache: Of the tokens before them; None = there are none.
            kept: How many of the new ones go into the cache that is returned, 0 to N. The last event of a history may
                still merge with the next one, so it is better read again.
            gaps_BL: As for `forward`, of all events, those before too.

        Returns:
            [B, D] what `forward` over all of them returns for the last one, and a cache of the tokens up to `kept`.
        """
        state_BND, caches = tokens_BND, []
        past = 0 if cache is None else cache[0].keys.shape[2]
        time_BHNK = self._time_bias(gaps_BL, past, past + tokens_BND.shape[1])
        for place, block in enumerate(self.blocks):
            wanted = tokens_BND.shape[1] - 1 if place == len(self.blocks) - 1 else 0
            own = None if cache is None else cache[place]
            state_BND, found = block.extend(state_BND, own, kept, wanted, time_BHNK)  # type: ignore[operator]
            caches.append(found)
        last_BD: Tensor = self.norm(state_BND[:, -1])
        return last_BD, tuple(caches)
