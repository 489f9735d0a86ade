"""What each head is trained on: which rows, with which weight, against which loss.

Axis letters: N prediction rows, T titles, D width, M matching space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from playbill.models.batch import ContextBatch, TargetBatch
from playbill.models.config import HeadConfig
from playbill.models.heads import BiasRows, Head, TitleVectors
from playbill.models.loss import binary_loss, softmax_loss
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


def row_weights(head: HeadConfig, targets: TargetBatch) -> Tensor:
    """Return [N] the weight of each row in a head; 0 = the row does not train it.

    A `bce` row counts when it is labelled. A `softmax` row counts when its label is above 0, times the label.
    """
    label_N = targets.labels[head.name]
    usable_N = ~torch.isnan(label_N) & targets.title.gt(0)
    strength_N = label_N.clamp(min=0) if head.loss == "softmax" else torch.ones_like(label_N)
    return torch.where(usable_N, strength_N * targets.weight, 0.0)


def chosen_rows(weight_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers and weights of rows above 0, filled up with rows of weight 0 to a multiple of `ROWS`."""
    chosen = torch.nonzero(weight_N.gt(0)).squeeze(-1)
    extra = -chosen.shape[0] % ROWS
    filler = chosen.new_zeros(extra)
    return torch.cat([chosen, filler]), torch.cat([weight_N[chosen], weight_N.new_zeros(extra)])


def head_sum(settings: HeadConfig, head: Head, scene: Scene, targets: TargetBatch) -> tuple[Tensor, Tensor]:
    """Return one head's weighted sum of losses and the weight it stands for."""
    weight_N = row_weights(settings, targets)
    objective = _softmax_sum if settings.loss == "softmax" else _binary_sum
    return objective(settings, head, scene, targets, weight_N), weight_N.sum()


def _softmax_sum(settings: HeadConfig, head: Head, scene: Scene, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Rank the target against every title. Rows with a query take the wider product, so they go apart."""
    bias_PT = head.bias(scene.titles, scene.rows)
    total = bias_PT.new_zeros(())
    low = scene.state.dtype
    for with_query in (False, True):
        chosen, share = chosen_rows(torch.where(scene.has_query.eq(with_query), weight_N, 0.0))
        if not chosen.numel():
            continue
        q, e = head.queries(scene.state[chosen]), scene.titles.vectors
        if with_query and scene.queries is not None:
            q, e = head.with_match(q, scene.queries[chosen], scene.titles)
        total = total + softmax_loss(
            q.to(low), e.to(low), bias_PT, scene.rows.row[chosen], targets.title[chosen], share
        )
    return total


def _binary_sum(settings: HeadConfig, head: Head, scene: Scene, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Learn the probability of the label for the target title alone."""
    chosen, share = chosen_rows(weight_N)
    title, context = targets.title[chosen], scene.context
    q, e = head.queries(scene.state[chosen]), scene.titles.vectors[title]
    bias = head.target_bias(scene.titles, context.canvas[chosen], context.snapshot[chosen], title)
    logit = (q * e).sum(-1, dtype=torch.float32) + bias
    if scene.queries is not None:
        names_NM = scene.titles.prepared.names[title]
        logit = logit + (scene.queries[chosen] * names_NM).sum(-1) * head.match
    return binary_loss(logit, targets.labels[settings.name][chosen].nan_to_num(), share)
