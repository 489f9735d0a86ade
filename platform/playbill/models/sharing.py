"""How heads share the state of a request: as it is, through adapters of their own, or as mixtures of experts.

Everything here is neutral at the start: what experts add to a state begins at zero.
Axis letters: N requests, K heads, D width, E experts, H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.definitions.specs.sharing import AdaptersOptions, MmoeOptions, PleOptions, SharingOptions


class Shared(nn.Module):
    """Every head reads the state itself."""

    def __init__(self, dim: int, heads: int, options: SharingOptions) -> None:
        super().__init__()

    def forward(self, state_ND: Tensor) -> Tensor | None:
        """Return None: there is one state for all."""
        return None


class Experts(nn.Module):
    """E small networks side by side: `down(gelu(up(x)))`."""

    def __init__(self, count: int, dim: int, width: int, *, neutral: bool) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(count, dim, width) * dim**-0.5)
        self.up_bias = nn.Parameter(torch.zeros(count, 1, width))
        self.down = nn.Parameter(torch.randn(count, width, dim) * width**-0.5)
        self.down_bias = nn.Parameter(torch.zeros(count, 1, dim))
        if neutral:
            nn.init.zeros_(self.down)

    def forward(self, x: Tensor) -> Tensor:
        """Return [E, N, D] for [N, D], or for [E, N, D] what each expert says of its own."""
        hidden_ENH = F.gelu(torch.matmul(x, self.up.to(x.dtype)) + self.up_bias.to(x.dtype))
        result: Tensor = torch.matmul(hidden_ENH, self.down.to(x.dtype)) + self.down_bias.to(x.dtype)
        return result


class Adapters(nn.Module):
    """A small network for each head, beside the shared state."""

    def __init__(self, dim: int, heads: int, options: AdaptersOptions) -> None:
        super().__init__()
        self.own = Experts(heads, dim, options.width, neutral=True)

    def forward(self, state_ND: Tensor) -> Tensor:
        """Return each head's state [K, N, D]."""
        adapted: Tensor = state_ND + self.own(state_ND)
        return adapted


class Mmoe(nn.Module):
    """Multi-gate mixture of experts (Ma et al., KDD 2018): each head mixes the same experts by a gate of its own."""

    def __init__(self, dim: int, heads: int, options: MmoeOptions) -> None:
        super().__init__()
        self.experts = Experts(options.experts, dim, options.width, neutral=True)
        self.gates = nn.Linear(dim, heads * options.experts)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)

    def forward(self, state_ND: Tensor) -> Tensor:
        """Return each head's state [K, N, D]."""
        found_END = self.experts(state_ND)
        share_NKE = self.gates(state_ND).float().unflatten(-1, (-1, found_END.shape[0])).softmax(-1)
        mixed_KND = torch.einsum("nke,end->knd", share_NKE.to(found_END.dtype), found_END)
        found_KND: Tensor = state_ND + mixed_KND
        return found_KND


class Ple(nn.Module):
    """Progressive layered extraction (Tang et al., RecSys 2020): levels of shared and own experts."""

    def __init__(self, dim: int, heads: int, options: PleOptions) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            _Extraction(dim, heads, options, last=level + 1 == options.levels) for level in range(options.levels)
        )

    def forward(self, state_ND: Tensor) -> Tensor:
        """Return each head's state [K, N, D]."""
        common_ND, own_KND = state_ND, None
        for level in self.levels:
            common_ND, own_KND = level(common_ND, own_KND)
        assert own_KND is not None
        found_KND: Tensor = own_KND
        return found_KND


class _Extraction(nn.Module):
    """One level. A head's gate mixes its own experts and the shared ones, the shared gate all of them."""

    def __init__(self, dim: int, heads: int, options: PleOptions, *, last: bool) -> None:
        super().__init__()
        self.heads, self.count, self.own_count = heads, options.experts, options.own
        self.shared = Experts(options.experts, dim, options.width, neutral=True)
        self.own = Experts(heads * options.own, dim, options.width, neutral=True)
        self.gates = nn.Parameter(torch.zeros(heads, dim, options.experts + options.own))
        self.common_gate = None if last else nn.Linear(dim, options.experts + heads * options.own)
        if self.common_gate is not None:
            nn.init.zeros_(self.common_gate.weight)
            nn.init.zeros_(self.common_gate.bias)

    def forward(self, common_ND: Tensor, own_KND: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the next shared state [N, D] and the heads' states [K, N, D]."""
        state_KND = common_ND.expand(self.heads, -1, -1) if own_KND is None else own_KND
        shared_END = self.shared(common_ND)
        own_XND = self.own(state_KND.repeat_interleave(self.own_count, dim=0))
        own_KOND = own_XND.unflatten(0, (self.heads, self.own_count))
        every_KEND = torch.cat([shared_END.expand(self.heads, -1, -1, -1), own_KOND], dim=1)
        share_KNE = torch.matmul(state_KND, self.gates.to(state_KND.dtype)).float().softmax(-1)
        mixed_KND = torch.einsum("kne,kend->knd", share_KNE.to(every_KEND.dtype), every_KEND)
        if self.common_gate is not None:
            share_NE = self.common_gate(common_ND).float().softmax(-1)
            all_END = torch.cat([shared_END, own_XND])
            common_ND = common_ND + torch.einsum("ne,end->nd", share_NE.to(all_END.dtype), all_END)
        return common_ND, state_KND + mixed_KND
