"""Queries and names in one matching space that works before any training.

A gram (a hashed piece of text) owns a fixed pattern of signs. Bags of patterns have a large product when they
share grams and about `1 / sqrt(M)` of noise when they do not (random indexing: Kanerva et al., CogSci 2000), so a
title that arrived a minute ago is found by its name. Training then learns how much each gram counts.
Axis letters: T bags, M matching space.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

WORD_BITS = 64
_STEP, _MIX_1, _MIX_2 = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def sign_patterns(buckets: int, dim: int) -> Tensor:
    """Return [buckets, M] float32 patterns of -1 and 1; row 0 (no gram) is zero.

    The signs are bits of SplitMix64 (Steele et al., OOPSLA 2014), so they are the same on every machine and
    need no place in a checkpoint.
    """
    words = -(-dim // WORD_BITS)
    counter = np.arange(1, buckets * words + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        state = counter * _STEP
        state = (state ^ (state >> np.uint64(30))) * _MIX_1
        state = (state ^ (state >> np.uint64(27))) * _MIX_2
    bits = np.unpackbits((state ^ (state >> np.uint64(31))).astype("<u8").view(np.uint8))
    patterns = torch.from_numpy(bits.reshape(buckets, words * WORD_BITS)[:, :dim].astype(np.float32) * 2 - 1)
    patterns[0] = 0
    return patterns


class GramSpace(nn.Module):
    """Bags of grams -> unit vectors.

    Attributes:
        rarity: [buckets] weight of each gram on both sides, from document frequency in the titles' names.
        importance: [buckets, 1] learned correction on the query side, zero at start.
    """

    patterns: Tensor
    rarity: Tensor

    def __init__(self, buckets: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("patterns", sign_patterns(buckets, dim) / dim**0.5, persistent=False)
        self.register_buffer("rarity", torch.ones(buckets))
        self.importance = nn.Embedding(buckets, 1)
        nn.init.zeros_(self.importance.weight)

    @torch.no_grad()
    def calibrate(self, grams: Tensor, offsets: Tensor) -> None:
        """Set `rarity` to the inverse document frequency of the grams of all names.

        Args:
            grams: [G] gram ids of T names, flat.
            offsets: [T] start of each name.
        """
        count = offsets.shape[0]
        name = torch.repeat_interleave(torch.arange(count, device=grams.device), bag_sizes(grams, offsets))
        buckets = self.rarity.shape[0]
        frequency = torch.bincount(torch.unique(name * buckets + grams) % buckets, minlength=buckets).to(self.rarity)
        self.rarity.copy_(torch.log((count + 1) / (frequency + 1)) / np.log(count + 1) + 0.1)

    def names(self, grams: Tensor, offsets: Tensor) -> Tensor:
        """Return [T, M] unit vectors of names; zero for an empty one. Nothing here is trained."""
        return self._bag(grams, offsets, self.rarity[grams])

    def queries(self, grams: Tensor, offsets: Tensor) -> Tensor:
        """Return [N, M] unit vectors of queries; zero for an empty one."""
        weights = self.rarity[grams] * torch.exp(self.importance(grams).squeeze(-1))
        return self._bag(grams, offsets, weights)

    def _bag(self, grams: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        total = F.embedding_bag(grams, self.patterns, offsets, mode="sum", per_sample_weights=weights)
        return F.normalize(total, dim=-1)


def bag_sizes(ids: Tensor, offsets: Tensor) -> Tensor:
    """Return [T] the number of entries of each bag."""
    return torch.diff(offsets, append=offsets.new_tensor([ids.shape[0]]))
