"""Heads: the state in its context -> one query per head, and the terms of a score beside `q · e`.

`score = q_k · e + s_k * match(query, name) + b_k(title) + c_k(canvas, title) + w_k(canvas) · x(title, moment) +
l_k(state)`. The first two terms are one product of concatenated vectors. The last one is the same for every title: how
likely the member is to do it at all. Where titles compete it would say nothing, so such heads have none.
Axis letters: N prediction rows, T titles, C canvases, K heads, J heads that rank, D width, M matching space, P bias
rows, F snapshot features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.batch import ContextBatch
from playbill.models.config import NetworkConfig
from playbill.models.normalise import DistinctFeatures
from playbill.models.title_tower import PreparedTitles

MATCH_START = 16.0
"""Weight of a perfect match of query and name before training: far above any other term."""


PAIRS = 32
"""Bias rows come in multiples of it: see `batch.pad_rows`."""


@dataclass(frozen=True, slots=True)
class TitleVectors:
    """What a score needs of T titles; computed once per set of weights and titles, then kept."""

    vectors: Tensor
    """[T, D]."""
    bias: Tensor
    """[T, K] bias of each title in each head."""
    prepared: PreparedTitles
    canvas: Tensor | None = None
    """[J, C, T] bias of each title on each canvas in each head that ranks; None where they are not crossed."""


@dataclass(frozen=True, slots=True)
class BiasRows:
    """The different (snapshot, canvas) pairs of N rows. They share one additive bias each."""

    snapshot: Tensor
    """[P]."""
    canvas: Tensor
    """[P]."""
    row: Tensor
    """[N] which pair each row has."""


def bias_rows(context: ContextBatch, snapshot_features: int, title_crossing: bool = False) -> BiasRows:
    """Find the pairs; rows of one canvas share one without snapshot features, and all do where nothing is of a canvas.

    Args:
        context: N requests.
        snapshot_features: F.
        title_crossing: Whether titles have biases of their own on canvases.
    """
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
