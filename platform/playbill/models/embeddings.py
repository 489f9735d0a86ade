"""Several categorical fields as the sum of their embeddings, in one look-up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


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
        said = None if self.absent else chosen.gt(0).flatten(0, -2).to(weight)
        total = F.embedding_bag(rows, weight, mode="sum", per_sample_weights=said)
        return total.view(*shape, -1)
