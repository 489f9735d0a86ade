"""Heads whose label is a number.

Axis letters: N prediction rows, n rows that train the head.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playbill.definitions.specs.losses import HuberOptions
from playbill.models.batch import TargetBatch
from playbill.models.config import HeadConfig
from playbill.models.heads import Head
from playbill.models.scoring_batch import Scene, chosen_rows, target_logits


def huber_loss(value_n: Tensor, label_n: Tensor, weight_n: Tensor, delta: float) -> Tensor:
    """Return the weighted sum of Huber losses (Huber 1964), a float32 scalar.

    An error e costs `e² / 2` up to `delta` and `delta (|e| - delta / 2)` beyond.
    """
    losses_n = F.huber_loss(value_n.float(), label_n, reduction="none", delta=delta)
    return (losses_n * weight_n).sum()


def scaled(label: Tensor, options: HuberOptions) -> Tensor:
    """Return labels as the head says them: cut off at `cap`, in units of `scale`."""
    return (label if options.cap is None else label.clamp(max=options.cap)) / options.scale


def huber_sum(settings: HeadConfig, head: Head, scene: Scene, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Learn the number that the label says of the target title."""
    options = HuberOptions.model_validate(settings.options)
    chosen, share = chosen_rows(weight_N)
    label_n = scaled(targets.labels[settings.name][chosen].nan_to_num(), options)
    return huber_loss(target_logits(head, scene, targets.title, chosen), label_n, share, options.delta)
