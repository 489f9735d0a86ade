"""What the network reads, as vectors: categorical fields, numbers, events of the history, names and queries.

Categorical fields are summed in one look-up. Numbers are compressed and standardised, with missing as a value of its
own. An event of the history becomes a token: which title, what was done with it, where, and for how long.

Queries and names share one matching space that works before any training. A gram (a hashed piece of text) owns a fixed
pattern of signs. Bags of patterns have a large product when they share grams and about `1 / sqrt(M)` of noise when they
do not (random indexing: Kanerva et al., CogSci 2000), so a title that arrived a minute ago is found by its name.
Training then learns how much each gram counts.
Axis letters: B members, L history, D width, S snapshots, T titles or bags, F features, U features that differ,
M matching space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.batch import HistoryBatch
from playbill.models.config import NetworkConfig

CLIP = 5.0


class Normaliser(nn.Module):
    """[..., F] raw values -> [..., 2F] standardised values and missing flags.

    Values go through `sign(x) * log(1 + |x|)` first, since counts and durations have long tails. The statistics
    are stored in the checkpoint, so serving uses those of training. They are 0 and 1 until `calibrate`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @property
    def width(self) -> int:
        """Size of the last axis of the output."""
        return 2 * self.features

    @torch.no_grad()
    def calibrate(self, values: Tensor) -> None:
        """Set mean and scale from [..., F] training values; nan is left out, a constant gets scale 1."""
        # One feature at a time: in double, those of a large catalogue at all moments would take gigabytes.
        for place in range(self.features):
            own = compress(values[..., place].flatten().double())
            own = own[~torch.isnan(own)]
            if len(own):
                variance = own.var(correction=0)
                self.mean[place] = own.mean()
                self.scale[place] = variance.sqrt() if variance > 1e-12 else 1.0
            else:
                self.mean[place], self.scale[place] = 0.0, 1.0

    def forward(self, values: Tensor) -> Tensor:
        """Standardise, clip to five deviations, and append one flag per feature: 1 = missing."""
        missing = torch.isnan(values)
        standard = ((compress(values) - self.mean) / self.scale).clamp(-CLIP, CLIP)
        return torch.cat([torch.where(missing, 0.0, standard), missing.to(values.dtype)], dim=-1)

    def one(self, values: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """Return the standardised values of one feature, and its flags."""
        missing = torch.isnan(values)
        standard = ((compress(values) - self.mean[place]) / self.scale[place]).clamp(-CLIP, CLIP)
        return torch.where(missing, 0.0, standard), missing.to(values.dtype)

    @torch.no_grad()
    def plain(self, values_STF: Tensor) -> DistinctFeatures:
        """Return the output for the features of titles at S moments, every column as it is: for a single use."""
        found_ST2F = self(values_STF)
        found_ST2F[:, :1] = 0.0
        return DistinctFeatures(found_ST2F, torch.eye(self.width, dtype=found_ST2F.dtype))

    @torch.no_grad()
    def distinct(self, values_STF: Tensor) -> DistinctFeatures:
        """Return the output for the features of titles at S moments, each different column of it once.

        Features of one view are missing together and those of an absent one always are, so few columns differ.
        """
        missing_STF = torch.isnan(values_STF)
        missing_STF[:, :1] = False
        counts = missing_STF.sum((0, 1)).tolist()
        cells = missing_STF.shape[0] * max(missing_STF.shape[1] - 1, 0)
        ungrouped = [place for place, count in enumerate(counts) if count < cells]
        flags: list[list[int]] = []
        for place in (place for place, count in enumerate(counts) if count):
            own = missing_STF[..., place]
            twins = (group for group in flags if counts[group[0]] == counts[place])
            twin = next((group for group in twins if torch.equal(missing_STF[..., group[0]], own)), None)
            flags.append([place]) if twin is None else twin.append(place)
        groups = [[place] for place in ungrouped] + [[self.features + place for place in group] for group in flags]
        spread_UF = values_STF.new_zeros(len(groups), self.width)
        for number, group in enumerate(groups):
            spread_UF[number, group] = 1.0
        found_STU = values_STF.new_zeros(*values_STF.shape[:2], len(groups))
        first = [group[0] for group in groups]
        for own_TU, raw_TF in zip(found_STU, values_STF, strict=True):
            own_TU[1:] = self(raw_TF[1:])[:, first]
        return DistinctFeatures(found_STU, spread_UF)


@dataclass(frozen=True, slots=True)
class DistinctFeatures:
    """Normalised features of T titles at S moments, without columns that repeat another one or are all zero."""

    values: Tensor  # [S, T, U]; those of the padding title are 0
    spread: Tensor
    """[U, 2F] 1 where a column stands for a feature: `values @ spread` is what a normaliser gives for each."""

    def weights(self, weights_2F: Tensor) -> Tensor:
        """Return weights [..., U] of the columns, from those [..., 2F] of the features."""
        return weights_2F @ self.spread.T


def compress(values: Tensor) -> Tensor:
    """Return `sign(x) * log(1 + |x|)`; nan stays nan."""
    return values.sign() * values.abs().log1p()


class Fields(nn.Module):
    """Indices of several fields -> the sum of their vectors [..., D].

    One table holds the fields' tables below each other, which on a CPU is several times faster than one look-up
    and one addition per field. All vectors start at zero: a value that training never saw adds nothing.

    Args:
        sizes: Rows of each field's table. A field of size 1 says nothing and is left out.
        dim: D.
        absent: Whether index 0 has a vector of its own; else it adds nothing.
    """

    starts: Tensor

    def __init__(self, sizes: Sequence[int], dim: int, absent: bool = True) -> None:
        super().__init__()
        self.absent = absent
        self.used = [position for position, size in enumerate(sizes) if size > 1]
        kept = [sizes[position] for position in self.used]
        self.table = nn.Embedding(max(sum(kept), 1), dim)
        nn.init.zeros_(self.table.weight)
        starts = torch.tensor([sum(kept[:position]) for position in range(len(kept))], dtype=torch.int64)
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, indices: Sequence[Tensor]) -> Tensor:
        """Embed fields given in the order of `sizes`, each of the same shape."""
        shape = indices[0].shape
        if not self.used:
            return self.table.weight.new_zeros(*shape, self.table.embedding_dim)
        chosen = torch.stack([indices[position] for position in self.used], dim=-1)
        rows, weight = (chosen + self.starts).flatten(0, -2), self.table.weight
        given = None if self.absent else chosen.gt(0).flatten(0, -2).to(weight)
        total = F.embedding_bag(rows, weight, mode="sum", per_sample_weights=given)
        return total.view(*shape, -1)


class EventTokens(nn.Module):
    """Histories -> tokens [B, L + 1, D]; token 0 is the learned begin-of-history.

    Every table but the title's starts at zero, so a field the data lacks changes nothing.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        events, dim = config.events, config.trunk.dim
        self.actions = nn.Linear(events.actions, dim, bias=False)
        sizes = (events.canvases, events.devices, events.languages, events.gaps, events.durations)
        self.fields = Fields(sizes, dim)
        self.position = nn.Embedding(config.length + 1, dim)
        self.begin = nn.Parameter(torch.zeros(dim))
        self.scale = dim**0.5
        self.register_buffer("bits", 1 << torch.arange(events.actions), persistent=False)
        nn.init.zeros_(self.actions.weight)
        nn.init.normal_(self.position.weight, std=0.1)
        nn.init.normal_(self.begin, std=0.1)

    bits: Tensor

    def forward(self, history: HistoryBatch, vectors_TD: Tensor) -> Tensor:
        """Embed every event. Padding gets tokens too; causality keeps them from being read."""
        done_BLA = (history.actions.unsqueeze(-1) & self.bits).ne(0).to(vectors_TD.dtype)
        tokens_BLD = F.embedding(history.title, vectors_TD) * self.scale + self.actions(done_BLA)
        fields = (history.canvas, history.device, history.language, history.gap, history.duration)
        tokens_BLD = tokens_BLD + self.fields(fields)
        begin = self.begin.expand(tokens_BLD.shape[0], 1, -1).to(tokens_BLD.dtype)
        tokens_BLD = torch.cat([begin, tokens_BLD], dim=1)
        return tokens_BLD + self.position.weight[: tokens_BLD.shape[1]]


WORD_BITS = 64
_STEP, _MIX_1, _MIX_2 = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@lru_cache(maxsize=1)
def sign_patterns(buckets: int, dim: int) -> Tensor:
    """Return [buckets, M] float32 patterns of -1 and 1; row 0 (no gram) is zero. All networks of a size have the same.

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
        """Set `rarity` to the inverse document frequency of the grams of all T names, flat with their starts."""
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
