"""The causal trunk `sasrec`, the plain reference: Kang and McAuley, ICDM 2018 (arXiv 1808.09781), sections 3.2 and 3.3.

As in the authors' code, queries are of normed states and keys and values of states as they are, residuals start from
the normed states, and the two layers on each token have the width of the model; unlike there, attention weights are not
dropped out. Places are told by the tokens, so there is no bias for distance: on an accelerator attention runs as the
flash kernel.
The baseline `sasrec` of evaluations is that paper's whole model with its own loss; this is a network for ours.
Axis letters: those of `causal`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.config import NetworkConfig
from playbill.models.trunks.causal import CausalBlock, CausalTrunk, Dropout, fused_attention, softmax_attention

EPS = 1e-8


class SasRecTrunk(CausalTrunk):
    """`trunk.layers` self-attention blocks and a last norm."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, SasRecBlock, eps=EPS)


class SasRecBlock(CausalBlock):
    """Attention and a feed-forward part, each beside a residual from the normed state."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config.trunk.heads)
        dim = config.trunk.dim
        self.norm, self.feed_norm = nn.LayerNorm(dim, eps=EPS), nn.LayerNorm(dim, eps=EPS)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.wide, self.narrow = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = Dropout(config.trunk.dropout)
        for linear in (self.query, self.key_value, self.wide, self.narrow):
            nn.init.normal_(linear.weight, std=dim**-0.5)
            nn.init.zeros_(linear.bias)

    def before(self, state_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return normed states, and queries of them beside keys and values of the states."""
        x_BLD = self.norm(state_BLD)
        return x_BLD, torch.cat([self.query(x_BLD), self.key_value(state_BLD)], dim=-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, back_QK: Tensor, time: Tensor | None) -> Tensor:
        """Attend without a bias."""
        if q.device.type != "cpu" and q.shape[-2] == k.shape[-2]:
            return fused_attention(q, k, v, None)
        later = q.new_zeros(back_QK.shape).masked_fill(back_QK < 0, float("-inf"))
        return softmax_attention(q, k, v, later.unsqueeze(-3))

    def after(self, state_BLD: Tensor, x_BLD: Tensor, heard_BLD: Tensor) -> Tensor:
        """Add what attention heard to the normed state, and feed forward."""
        x_BLD = self.feed_norm(x_BLD + heard_BLD)
        thought = self.narrow(self.dropout(F.relu(self.wide(x_BLD))))
        after: Tensor = x_BLD + self.dropout(thought)
        return after
