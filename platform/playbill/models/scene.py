"""N requests as the heads see them, and what every objective asks of them.

Axis letters: N prediction rows, n rows that train a head, D width, M matching space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from playbill.models.batch import ContextBatch
from playbill.models.heads import BiasRows, Head, TitleVectors
from playbill.models.text import bag_sizes

ROWS = 64
"""Rows of a product come in multiples of it: see `batch.pad_rows`."""


@dataclass(frozen=True, slots=True)
class Scene:
    """N requests, as the heads see them."""

    state: Tensor
    """[N, D] states in their context."""
    queries: Tensor | None
    """[N, M] unit vectors of the queries, zero where a row has none; None when no row has one."""
    context: ContextBatch
    rows: BiasRows
    titles: TitleVectors

    @property
    def has_query(self) -> Tensor:
        """[N] whether the request has a query."""
        return bag_sizes(self.context.query_grams, self.context.query_offsets) > 0


def chosen_rows(weight_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers and weights of rows above 0, filled up with rows of weight 0 to a multiple of `ROWS`."""
    chosen = torch.nonzero(weight_N.gt(0)).squeeze(-1)
    extra = -chosen.shape[0] % ROWS
    filler = chosen.new_zeros(extra)
    return torch.cat([chosen, filler]), torch.cat([weight_N[chosen], weight_N.new_zeros(extra)])


def target_logits(head: Head, scene: Scene, title_N: Tensor, chosen: Tensor) -> Tensor:
    """Return [n] the score of each chosen row's own title, float32.

    Args:
        head: The head.
        scene: N requests.
        title_N: [N] title of each.
        chosen: [n] numbers of rows.
    """
    title, context = title_N[chosen], scene.context
    q, e = head.queries(scene.state[chosen]), scene.titles.vectors[title]
    bias = head.target_bias(scene.titles, context.canvas[chosen], context.snapshot[chosen], title)
    logit = (q * e).sum(-1, dtype=torch.float32) + bias
    if scene.queries is not None:
        names_NM = scene.titles.prepared.names[title]
        logit = logit + (scene.queries[chosen] * names_NM).sum(-1) * head.match
    return logit
