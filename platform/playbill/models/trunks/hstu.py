"""The causal trunk `hstu`: Zhai et al., "Actions speak louder than words", ICML 2024 (arXiv 2402.17152).

By equations 1 to 3, a block has one projection to gates U, values V, queries Q and keys K, all through SiLU; attention
weights are `SiLU(QK + bias) / length` rather than a softmax, so that how much there is to hear is not lost; what is
heard is normed, gated by U and projected; there is no feed-forward part. As in the authors' code the norms have no
parameters and the divisor is the longest history that the model reads. The bias is learned by head and distance; the
time between events is read from the tokens' gaps.
A CPU and an accelerator run the same products: torch's fused kernels have the softmax built in.
Axis letters: those of `causal`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.config import NetworkConfig
from playbill.models.trunks.causal import CausalBlock, CausalTrunk, Dropout, distance_bias

EPS = 1e-6
START = 0.02  # deviation of what projections and biases start from
LATER = -1e4  # a score whose SiLU is 0 and has a gradient of 0; that of -inf would be nan


class Hstu(CausalTrunk):
    """`trunk.layers` HSTU blocks and a last norm."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, HstuBlock, time_bias=config.trunk.own().time_bias)


class HstuBlock(CausalBlock):
    """One sequential transduction unit, beside a residual."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config.trunk.heads)
        self.dim, self.longest = config.trunk.dim, config.length + 1
        self.uqkv = nn.Linear(self.dim, 4 * self.dim, bias=False)
        self.distance = nn.Parameter(torch.empty(self.heads, self.longest))
        self.out = nn.Linear(self.dim, self.dim)
        self.dropout = Dropout(config.trunk.dropout)
        for weights in (self.uqkv.weight, self.distance):
            nn.init.normal_(weights, std=START)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def before(self, state_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return gates, and the other projections."""
        found = F.silu(self.uqkv(F.layer_norm(state_BLD, (self.dim,), eps=EPS)))
        return found[..., : self.dim], found[..., self.dim :]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, back_QK: Tensor, time: Tensor | None) -> Tensor:
        """Add up values by the SiLU of their scores."""
        bias = distance_bias(self.distance, back_QK, LATER)
        bias = bias if time is None else bias + time
        return silu_attention(q, k, v, bias.to(q.dtype), self.longest)

    def after(self, state_BLD: Tensor, x_BLD: Tensor, heard_BLD: Tensor) -> Tensor:
        """Norm and gate what attention heard."""
        heard_BLD = F.layer_norm(heard_BLD, (self.dim,), eps=EPS)
        after: Tensor = state_BLD + self.out(self.dropout(x_BLD * heard_BLD))
        return after


def silu_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, length: int) -> Tensor:
    """Return the sum of values times the SiLU of their scores, over a length."""
    weights = F.silu(torch.matmul(q, k.transpose(-1, -2)) + bias)
    # The result has fewer numbers to divide than the weights.
    return torch.matmul(weights, v) / length
