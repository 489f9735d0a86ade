"""What each head is trained on: which rows, with which weight, against which loss.

Axis letters: N prediction rows, T titles, D width, M matching space.
"""

from __future__ import annotations

import torch
from torch import Tensor

from playbill.definitions.specs.losses import loss_plugin
from playbill.models.batch import TargetBatch
from playbill.models.config import HeadConfig
from playbill.models.heads import Head
from playbill.models.sampled import negatives_sum, sampled_sum
from playbill.models.scoring_batch import Scene, chosen_rows, target_logits
from playbill.models.softmax_loss import Hidden, Moments, Names, binary_loss, softmax_loss


def row_weights(head: HeadConfig, targets: TargetBatch) -> Tensor:
    """Return [N] the weight of each row in a head; 0 = the row does not train it.

    A row counts when it is labelled. A row of a ranking head counts when its label is above 0, times the label.
    Both count as much as the row weighs in all heads and in this one.
    """
    label_N = targets.labels[head.name]
    usable_N = ~torch.isnan(label_N) & targets.title.gt(0)
    strength_N = label_N.clamp(min=0) if head.ranks else torch.ones_like(label_N)
    own = targets.weights.get(head.name)
    weight_N = targets.weight if own is None else targets.weight * own
    return torch.where(usable_N, strength_N * weight_N, 0.0)


def head_sum(settings: HeadConfig, head: Head, scene: Scene, targets: TargetBatch) -> tuple[Tensor, Tensor]:
    """Return one head's weighted sum of losses and the weight it stands for."""
    weight_N = row_weights(settings, targets)
    total: Tensor = loss_plugin(settings.loss).load()(settings, head, scene, targets, weight_N)
    return total, weight_N.sum()


def softmax_sum(settings: HeadConfig, head: Head, scene: Scene, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Rank the target against every title there was, or against drawn ones where some were drawn for the head."""
    if settings.name in targets.negatives:
        return sampled_sum(settings, head, scene, targets, weight_N)
    chosen, share = _by_moment(scene, *chosen_rows(weight_N))
    if not chosen.numel():
        return weight_N.new_zeros(())
    canvases_C, canvas_N = scene.canvases
    low, prepared = scene.state.dtype, scene.titles.prepared
    weights_CF, names = head.snapshot_weights(scene.titles, canvases_C), None
    if scene.queries is not None:
        asked, typed_mM = scene.queries.asked(chosen)
        names = Names(asked, (head.match * typed_mM).to(low), prepared.names.to(low))
    return softmax_loss(
        head.queries(scene.state_of(head)[chosen]).to(low),
        scene.titles.vectors.to(low),
        head.canvas_bias(scene.titles, canvases_C),
        canvas_N[chosen],
        targets.title[chosen],
        share,
        hidden=Hidden(~targets.available, targets.group[chosen]) if targets.available.shape[0] else None,
        moments=None
        if weights_CF is None
        else Moments(weights_CF, prepared.snapshots.values, scene.context.snapshot[chosen]),
        names=names,
    )


def _by_moment(scene: Scene, chosen: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Return chosen rows and their weights with rows of one moment side by side."""
    order = torch.argsort(scene.rows.row[chosen], stable=True)
    return chosen[order], share[order]


def binary_sum(settings: HeadConfig, head: Head, scene: Scene, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Learn the probability of the label for the target title, and where asked for that drawn titles have none."""
    chosen, share = chosen_rows(weight_N)
    label_n = targets.labels[settings.name][chosen].nan_to_num()
    total = binary_loss(target_logits(head, scene, targets.title, chosen), label_n, share)
    if settings.name not in targets.negatives:
        return total
    positive_N = torch.where(targets.labels[settings.name].gt(0), weight_N, 0.0)
    return total + settings.negative_weight * negatives_sum(settings, head, scene, targets, positive_N)
