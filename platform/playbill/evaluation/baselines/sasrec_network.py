"""The network of plain SASRec, its batches and its loss. Imports torch.

Source: Kang and McAuley, "Self-attentive sequential recommendation", ICDM 2018 (arXiv 1808.09781), sections 3 and 4.
`plus` is SASRec+ as in the code of Klenitskiy and Vasilev (RecSys 2023, arXiv 2309.07602): attention has a projection
of its output, places are counted from the oldest title, and all weights start small.
Axis letters: B sequences, L places (oldest first, padding behind), D width, T titles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from playbill.arrays import Ints64
from playbill.models.softmax_loss import softmax_loss

Codes = Ints64
START = 0.02  # deviation of what the weights of SASRec+ start from


class AttentionBlock(nn.Module):
    """One self-attention block: causal attention with one head, then two layers on each place, both with a residual.

    As in the authors' code, the queries are normalised and the keys and values are not, and the residual starts from
    the normalised queries. `plus` projects what attention found.
    """

    def __init__(self, dim: int, dropout: float, plus: bool = False) -> None:
        super().__init__()
        self.norm, self.norm_after = nn.LayerNorm(dim, eps=1e-8), nn.LayerNorm(dim, eps=1e-8)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim) if plus else nn.Identity()
        self.wide, self.narrow = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return [B, L, D]; place l reads places up to l."""
        requested = self.norm(x_BLD)
        found = functional.scaled_dot_product_attention(
            self.query(requested),
            self.key(x_BLD),
            self.value(x_BLD),
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=True,
        )
        x_BLD = self.norm_after(requested + self.out(found))
        added: Tensor = self.dropout(self.narrow(self.dropout(functional.relu(self.wide(x_BLD)))))
        return x_BLD + added


class SasRecNetwork(nn.Module):
    """Title and place vectors, blocks, and one product with the same title vectors."""

    def __init__(self, titles: int, length: int, dim: int, blocks: int, dropout: float, plus: bool = False) -> None:
        super().__init__()
        self.plus = plus
        self.titles, self.places = nn.Embedding(titles, dim), nn.Embedding(length, dim)
        self.blocks = nn.ModuleList(AttentionBlock(dim, dropout, plus) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim, eps=1e-8)
        self.dropout = nn.Dropout(dropout)
        for table in (self.titles, self.places):
            nn.init.xavier_normal_(table.weight)
        if plus:
            self.apply(_start_small)

    def forward(self, titles_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Return the state after each place, [B, L, D].

        Places are counted from the newest title backwards; those of SASRec+ from the oldest.
        """
        dim, place = self.titles.embedding_dim, torch.arange(titles_BL.shape[1])[None, :]
        if not self.plus:
            place = (lengths_B[:, None] - 1 - place).clamp(min=0)
        x_BLD = self.dropout(self.titles(titles_BL) * dim**0.5 + self.places(place))
        for block in self.blocks:
            x_BLD = block(x_BLD)
        normed: Tensor = self.norm(x_BLD)
        return normed


def _start_small(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=START)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


class Sequences(NamedTuple):
    """Members' plays, one after the other: member u has codes[offsets[u]:offsets[u + 1]], oldest first."""

    codes: Codes
    offsets: Codes

    @property
    def lengths(self) -> Codes:
        """Plays of each member."""
        return np.diff(self.offsets)

    def newest(self, members: Codes, length: int) -> tuple[Codes, Codes]:
        """Return members' newest plays, [B, up to `length`] padded behind with title 0, and their number [B]."""
        counts = np.minimum(self.lengths[members], length)
        places = np.arange(max(1, int(counts.max(initial=0))))
        inside = places[None, :] < counts[:, None]
        where = np.where(inside, (self.offsets[members + 1] - counts)[:, None] + places[None, :], 0)
        codes = self.codes if self.codes.size else np.zeros(1, dtype=np.int64)
        return np.where(inside, codes[where], 0), counts


def batches(lengths: Codes, size: int, generator: np.random.Generator) -> Iterator[Codes]:
    """Yield every member with two plays or more once, those of like length together, in random order."""
    members = generator.permutation(np.nonzero(lengths >= 2)[0])
    # Sorted only within pools of some batches, so that who meets whom still changes from epoch to epoch.
    pools = [members[start : start + 16 * size] for start in range(0, members.size, 16 * size)]
    ordered = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
    found = [pool[start : start + size] for pool in ordered for start in range(0, pool.size, size)]
    yield from (found[place] for place in generator.permutation(len(found)))


class Negatives:
    """Titles that a member did not play, uniformly."""

    def __init__(self, sequences: Sequences, titles: int) -> None:
        members = np.repeat(np.arange(sequences.lengths.size), sequences.lengths)
        cells = np.unique(members * titles + sequences.codes)
        members, codes = np.divmod(cells, max(1, titles))
        self._titles = titles
        self._firsts = np.searchsorted(members, np.arange(sequences.lengths.size + 1))
        # Of a member's played titles in order, the j-th one, less j: how many titles not played stand before it.
        self._before = members * titles + codes - (np.arange(codes.size) - self._firsts[members])

    def draw(self, members: Codes, length: int, generator: np.random.Generator) -> Codes:
        """Return [B, length] title columns. A member who played everything gets played ones."""
        played = np.diff(self._firsts)[members]
        free = np.where(played < self._titles, self._titles - played, self._titles)
        place = (generator.random((members.size, length)) * free[:, None]).astype(np.int64)
        skipped = np.searchsorted(self._before, members[:, None] * self._titles + place, side="right")
        skipped -= self._firsts[members][:, None]
        return np.where(played[:, None] < self._titles, place + skipped, place)


def binary_loss(network: SasRecNetwork, titles_BL: Codes, counts_B: Codes, negatives_BL: Codes) -> Tensor:
    """Return the mean of the paper's equation 6: each next title against one that was not played.

    `titles_BL` are [B, L + 1] plays, oldest first, padded behind; negatives are [B, L].
    """
    h_ND, next_N, inside = _next_titles(network, titles_BL, counts_B)
    vectors = network.titles.weight
    played = (h_ND * vectors[next_N]).sum(-1)
    other = (h_ND * vectors[torch.from_numpy(negatives_BL)[inside]]).sum(-1)
    return -(functional.logsigmoid(played) + functional.logsigmoid(-other)).mean()


def full_loss(network: SasRecNetwork, titles_BL: Codes, counts_B: Codes, places: float) -> Tensor:
    """Return the sum of the cross-entropies of each next title among all of them, over a number of places.

    That number is of a usual batch, for all batches alike: with its own, a place in a batch of short histories would
    count more than one in a batch of long ones. `titles_BL` is [B, L + 1] as in `binary_loss`.
    """
    h_ND, next_N, _ = _next_titles(network, titles_BL, counts_B)
    vectors = network.titles.weight
    no_bias, one_row = torch.zeros(1, vectors.shape[0]), torch.zeros_like(next_N)
    return softmax_loss(h_ND, vectors, no_bias, one_row, next_N, torch.full(next_N.shape, 1 / places))


def _next_titles(network: SasRecNetwork, titles_BL: Codes, counts_B: Codes) -> tuple[Tensor, Tensor, Tensor]:
    """Return the states [N, D] that a title follows, those titles [N], and which of the [B, L] places they are."""
    titles, counts = torch.from_numpy(titles_BL), torch.from_numpy(counts_B)
    states = network(titles[:, :-1], counts - 1)
    inside = torch.arange(states.shape[1])[None, :] < counts[:, None] - 1
    return states[inside], titles[:, 1:][inside], inside


@torch.no_grad()
def last_states(network: SasRecNetwork, sequences: Sequences, members: Codes, length: int) -> Tensor:
    """Return the state after the newest play of some members, [B, D]."""
    network.eval()
    titles, counts = sequences.newest(members, length)
    states: Tensor = network(torch.from_numpy(titles), torch.from_numpy(counts))
    return states[torch.arange(members.size), torch.from_numpy(counts - 1).clamp(min=0)]


def in_pieces(members: Codes, lengths: Codes, size: int) -> Sequence[Codes]:
    """Return members in pieces of like length."""
    ordered = members[np.argsort(lengths[members], kind="stable")]
    return [ordered[start : start + size] for start in range(0, ordered.size, size)]
