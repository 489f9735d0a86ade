"""N requests as the heads see them, and what every objective asks of them.

Axis letters: N prediction rows, n rows that train a head, D width, M matching space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from playbill.models.batch import ContextBatch
from playbill.models.context import Queries
from playbill.models.heads import AttributeHead, BiasRows, Head, TitleVectors
from playbill.models.row_tower import PageHead, RowHead, RowReader

ROWS = 64  # rows of a product come in multiples of it: see `batch.pad_rows`


@dataclass(frozen=True, slots=True)
class PageStates:
    """States in their context but for the row a request is asked in, for heads about rows and pages.

    A row is what such a head is asked about, and a page is asked before there is a row.
    """

    state: Tensor  # [p, D] of the requests that train such a head
    own: Tensor | None  # [K, p, D] likewise, as each head sees it
    place: Tensor  # [N] where each request's state is; 0 for the others


@dataclass(frozen=True, slots=True)
class ScoringBatch:
    """N requests, as the heads see them."""

    state: Tensor  # [N, D] states in their context
    queries: Queries | None  # what was typed; None when no row has a query
    context: ContextBatch
    rows: BiasRows
    titles: TitleVectors
    embed: RowReader | None = None  # rows by `rows.FIELDS` -> their vectors; None where no head is about rows
    page: PageStates | None = None
    """What heads about rows and pages read; None where no request says its row, and they read `state`."""
    own: Tensor | None = None  # [K, N, D] the state as each head sees it; None where all see `state`
    catalogue: int = 0  # titles there are, whether or not the batch names them

    def state_of(self, head: Head | RowHead | PageHead | AttributeHead) -> Tensor:
        """Return [N, D] the state as one head sees it."""
        return self.state if self.own is None else self.own[head.position]

    def page_states(self, head: Head | RowHead | PageHead, chosen_n: Tensor) -> Tensor:
        """Return [n, D] the states of some requests as a head about rows or pages sees them."""
        if self.page is None:
            return self.state_of(head)[chosen_n]
        states = self.page.state if self.page.own is None else self.page.own[head.position]
        return states[self.page.place[chosen_n]]

    @property
    def canvases(self) -> tuple[Tensor, Tensor]:
        """[C] canvases that titles have biases of their own on, and [N] which of them each request is on."""
        canvas_P, back_P = torch.unique(self.rows.canvas, return_inverse=True)
        return canvas_P, back_P[self.rows.row]


def chosen_rows(weight_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers and weights of rows above 0, filled up with rows of weight 0 to a multiple of `ROWS`."""
    chosen = torch.nonzero(weight_N.gt(0)).squeeze(-1)
    extra = -chosen.shape[0] % ROWS
    filler = chosen.new_zeros(extra)
    return torch.cat([chosen, filler]), torch.cat([weight_N[chosen], weight_N.new_zeros(extra)])


def target_logits(head: Head, scene: ScoringBatch, title_N: Tensor, chosen: Tensor) -> Tensor:
    """Return [n] the score of each chosen row's own title, float32; `chosen` are n numbers of the N rows."""
    title, context = title_N[chosen], scene.context
    state = scene.state_of(head)[chosen]
    q, e = head.queries(state), scene.titles.vectors[title]
    bias = head.target_bias(scene.titles, context.canvas[chosen], context.snapshot[chosen], title)
    logit = (q * e).sum(-1, dtype=torch.float32) + bias + head.levels(state)
    if scene.queries is not None:
        requested, matched_kM = scene.queries.requested(chosen)
        names_kM = scene.titles.prepared.names[title[requested]]
        logit = logit.index_add(0, requested, (matched_kM * names_kM).sum(-1) * head.match)
    return logit
