"""Pairs: the target should score above titles that were not chosen.

Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback" (UAI 2009): `log(1 + exp(other - target))`.
Axis letters: N prediction rows, n rows that train the head, S drawn titles, C shown titles of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playbill.models.batch import TargetBatch
from playbill.models.config import HeadConfig
from playbill.models.heads import Head
from playbill.models.sampled import negative_scores
from playbill.models.scoring_batch import Scene, chosen_rows, target_logits


def pairwise_loss(target_n: Tensor, others_nX: Tensor, weight_n: Tensor) -> Tensor:
    """Return the weighted sum over rows of the mean of `softplus(other - target)`, a float32 scalar.

    Args:
        target_n: Scores of the right titles.
        others_nX: Scores of other titles, minus infinity where a row may not use one; a row without any counts 0.
        weight_n: Weight of each row.
    """
    usable_nX = torch.isfinite(others_nX)
    losses_nX = F.softplus(others_nX.float().masked_fill(~usable_nX, 0.0) - target_n.float().unsqueeze(-1))
    total_n = torch.where(usable_nX, losses_nX, 0.0).sum(-1)
    return (total_n / usable_nX.sum(-1).clamp(min=1) * weight_n).sum()


def pairwise_sum(settings: HeadConfig, head: Head, scene: Scene, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Rank the target above drawn and shown titles, pair by pair; drawn ones count as often as they are drawn."""
    chosen, share = chosen_rows(weight_N)
    if not chosen.numel():
        return weight_N.new_zeros(())
    others_nX = negative_scores(head, scene, targets.negatives[settings.name], chosen)
    return pairwise_loss(target_logits(head, scene, targets.title, chosen), others_nX, share)
