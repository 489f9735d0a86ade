"""Heads: the state in its context -> one query per head, and the terms of a score beside `q · e`.

`score = q_k · e + s_k * match(query, name) + b_k(title) + c_k(canvas, title) + w_k(canvas) · x(title, moment) +
l_k(state)`. The first two terms are one product of concatenated vectors. The last one is the same for every title: how
likely the member is to do it at all. Where titles compete it would say nothing, so such heads have none.
Axis letters: N prediction rows, T titles, C canvases, K heads, J heads that rank, D width, M matching space, P bias
rows, F snapshot features.

Heads share the state of a request as it is, through adapters of their own, or as mixtures of experts. Everything here
is neutral at the start: what experts add to a state begins at zero. More letters there: E experts, H hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.definitions.specs.network import AdaptersOptions, MmoeOptions, PleOptions, SharingOptions
from playbill.models.batch import ContextBatch
from playbill.models.config import NetworkConfig
from playbill.models.embeddings import DistinctFeatures
from playbill.models.title_tower import PreparedTitles

MATCH_START = 16.0  # weight of a perfect match of query and name before training: far above any other term


PAIRS = 32  # bias rows come in multiples of it: see `batch.pad_rows`


@dataclass(frozen=True, slots=True)
class TitleVectors:
    """What a score needs of T titles; computed once per set of weights and titles, then kept."""

    vectors: Tensor  # [T, D]
    bias: Tensor  # [T, K] bias of each title in each head
    prepared: PreparedTitles
    canvas: Tensor | None = None
    """[J, C, T] bias of each title on each canvas in each head that ranks; None where they are not crossed."""


@dataclass(frozen=True, slots=True)
class BiasRows:
    """The different (snapshot, canvas) pairs of N rows. They share one additive bias each."""

    snapshot: Tensor  # [P]
    canvas: Tensor  # [P]
    row: Tensor  # [N] which pair each row has


def bias_rows(context: ContextBatch, snapshot_features: int, title_crossing: bool = False) -> BiasRows:
    """Find the pairs: one for each canvas without snapshot features, one in all where nothing depends on the canvas."""
    zero = torch.zeros_like(context.snapshot)
    if not snapshot_features and not title_crossing:
        return BiasRows(zero[:1], zero[:1], zero)
    canvases = int(context.canvas.max()) + 1 if context.canvas.numel() else 1
    snapshot = context.snapshot if snapshot_features else zero
    pairs, row = torch.unique(snapshot * canvases + context.canvas, return_inverse=True)
    pairs = F.pad(pairs, (0, -pairs.shape[0] % PAIRS))
    return BiasRows(pairs // canvases, pairs % canvases, row)


class Head(nn.Module):
    """One head: its query, and the weights of a name match and of the snapshot features.

    Only heads that rank cross titles with canvases: one that says yes or no is told of what the canvas has shown.
    """

    def __init__(self, config: NetworkConfig, position: int) -> None:
        super().__init__()
        dim, self.position = config.trunk.dim, position
        self.query = nn.Linear(dim, dim)
        self.match = nn.Parameter(torch.tensor(MATCH_START))
        self.snapshot = nn.Parameter(torch.zeros(2 * config.titles.snapshot))
        self.snapshot_canvas = nn.Embedding(config.events.canvases, 2 * config.titles.snapshot)
        ranking = [place for place, head in enumerate(config.heads) if head.ranks]
        crosses = config.context.title_crossing and position in ranking
        self.crossed = ranking.index(position) if crosses else None
        self.level = nn.Linear(dim, 1) if config.heads[position].level else None
        level = () if self.level is None else self.level.parameters()
        for parameter in (*self.query.parameters(), self.snapshot_canvas.weight, *level):
            nn.init.zeros_(parameter)

    def queries(self, state_ND: Tensor) -> Tensor:
        """Return this head's query [N, D]; at the start it is the state itself."""
        query: Tensor = state_ND + self.query(state_ND)
        return query

    def levels(self, state_ND: Tensor) -> Tensor:
        """Return [N] the term of the state alone, float32; 0 for a head without one."""
        if self.level is None:
            return state_ND.new_zeros(state_ND.shape[0], dtype=torch.float32)
        level: Tensor = self.level(state_ND).squeeze(-1).float()
        return level

    def bias(self, titles: TitleVectors, rows: BiasRows) -> Tensor:
        """Return the additive bias [P, T], float32. The padding title can never win."""
        canvases_C, of_P = torch.unique(rows.canvas, return_inverse=True)
        total = self.canvas_bias(titles, canvases_C)[of_P]
        return total + self._snapshot_terms(titles.prepared.snapshots, rows)

    def bias_of(self, titles: TitleVectors, rows: BiasRows, title_S: Tensor) -> Tensor:
        """Return the additive bias [P, S] of some titles, float32."""
        total = titles.bias[title_S, self.position].float().expand(rows.snapshot.shape[0], -1)
        if self.crossed is not None and titles.canvas is not None:
            total = total + titles.canvas[self.crossed][rows.canvas[:, None], title_S].float()
        own = titles.prepared.snapshots
        return total + self._snapshot_terms(replace(own, values=own.values[:, title_S]), rows)

    def canvas_bias(self, titles: TitleVectors, canvas_C: Tensor) -> Tensor:
        """Return the additive bias [C, T] but for snapshot features, float32. The padding title can never win."""
        total = titles.bias[:, self.position].float().expand(canvas_C.shape[0], -1)
        if self.crossed is not None and titles.canvas is not None:
            total = total + titles.canvas[self.crossed, canvas_C].float()
        return torch.cat([torch.full_like(total[:, :1], -1e4), total[:, 1:]], dim=1)

    def snapshot_weights(self, titles: TitleVectors, canvas_C: Tensor) -> Tensor | None:
        """Return the weights [C, U] of snapshot features, None where there are none."""
        if not self.snapshot.shape[0]:
            return None
        with torch.autocast(canvas_C.device.type, enabled=False):
            return titles.prepared.snapshots.weights(self.snapshot + self.snapshot_canvas(canvas_C))

    def _snapshot_terms(self, features: DistinctFeatures, rows: BiasRows) -> Tensor | float:
        # Every snapshot under every canvas, then the pairs there are: no features are copied for each pair.
        if not self.snapshot.shape[0]:
            return 0.0
        snapshots_S, at_P = torch.unique(rows.snapshot, return_inverse=True)
        canvases_C, of_P = torch.unique(rows.canvas, return_inverse=True)
        with torch.autocast(canvases_C.device.type, enabled=False):
            weights_CU = features.weights(self.snapshot + self.snapshot_canvas(canvases_C))
            return (weights_CU @ features.values[snapshots_S].transpose(1, 2))[at_P, of_P]

    def target_bias(self, titles: TitleVectors, canvas_N: Tensor, snapshot_N: Tensor, title_N: Tensor) -> Tensor:
        """Return the additive bias [N] of one title per row."""
        bias_N = titles.bias[title_N, self.position]
        if self.crossed is not None and titles.canvas is not None:
            bias_N = bias_N + titles.canvas[self.crossed, canvas_N, title_N]
        if self.snapshot.shape[0]:
            own = titles.prepared.snapshots
            with torch.autocast(canvas_N.device.type, enabled=False):
                weights_NU = own.weights(self.snapshot + self.snapshot_canvas(canvas_N))
            bias_N = bias_N + (own.values[snapshot_N, title_N] * weights_NU).sum(-1)
        return bias_N


class AttributeHead(nn.Module):
    """Which genres, or which kind, the next title has, from the state alone: a regulariser, never served."""

    def __init__(self, config: NetworkConfig, position: int) -> None:
        super().__init__()
        self.position = position
        sizes = {"genres": config.titles.genres, "kind": config.titles.kinds}
        self.out = nn.Linear(config.trunk.dim, sizes[config.heads[position].target])
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, state_ND: Tensor) -> Tensor:
        """Return log odds [N, G] of each attribute, float32; index 0 is none."""
        found: Tensor = self.out(state_ND)
        return found.float()


class SharedState(nn.Module):
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
