"""Events of the history as tokens: which title, what was done with it, where, and for how long.

Axis letters: B members, L history, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.models.batch import HistoryBatch
from playbill.models.config import NetworkConfig
from playbill.models.embeddings import Fields


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
