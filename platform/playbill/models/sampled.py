"""Losses over drawn titles instead of the whole catalogue.

Bengio and Senecal, "Adaptive importance sampling to accelerate training of a neural probabilistic language model"
(2008): each drawn title counts for as many as it stands for, one over how often it was to be expected in the draw,
so that the sum over drawn titles is on average the sum over all. Yi et al. (2019) do so for titles of the same batch.
The error of the gradient falls with the number of draws; it is nothing when every title is drawn.
Axis letters: N prediction rows, n rows that train the head, S drawn titles, C shown titles of a row, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from playbill.models.batch import NegativeBatch, TargetBatch
from playbill.models.config import HeadConfig
from playbill.models.heads import Head
from playbill.models.scoring_batch import Scene, chosen_rows, target_logits

LEAST_EXPECTED = 1e-9
"""A title that was drawn although nobody expected it counts for no more than one over this."""


def sampled_softmax_loss(target_n: Tensor, drawn_nS: Tensor, expected_S: Tensor, weight_n: Tensor) -> Tensor:
    """Return the weighted sum of `log(exp(t) + sum_s exp(d_s) / expected_s) - t`, a float32 scalar.

    Args:
        target_n: Scores of the right titles, each of which is always there.
        drawn_nS: Scores of other titles, minus infinity where a row may not use one.
        expected_S: How often each was to be expected in the draw; titles that are always there have 1.
        weight_n: Weight of each row.
    """
    corrected_nS = drawn_nS.float() - expected_S.clamp(min=LEAST_EXPECTED).log()
    every = torch.cat([target_n.float().unsqueeze(-1), corrected_nS], dim=-1)
    return ((torch.logsumexp(every, dim=-1) - target_n.float()) * weight_n).sum()


def sampled_sum(settings: HeadConfig, head: Head, scene: Scene, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Rank the target against drawn titles."""
    chosen, share = chosen_rows(weight_N)
    if not chosen.numel():
        return weight_N.new_zeros(())
    own = targets.negatives[settings.name]
    scores_nX = negative_scores(head, scene, own, chosen)
    expected = torch.cat([own.expected, own.expected.new_ones(own.shown.shape[1])])
    return sampled_softmax_loss(target_logits(head, scene, targets.title, chosen), scores_nX, expected, share)


def negatives_sum(settings: HeadConfig, head: Head, scene: Scene, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Learn that drawn titles would not have had the label: mean binary loss of each row's, times its weight."""
    chosen, share = chosen_rows(weight_N)
    if not chosen.numel():
        return weight_N.new_zeros(())
    scores_nX = negative_scores(head, scene, targets.negatives[settings.name], chosen)
    usable_nX = torch.isfinite(scores_nX)
    losses_nX = torch.where(usable_nX, F.softplus(scores_nX), 0.0)
    return (losses_nX.sum(-1) / usable_nX.sum(-1).clamp(min=1) * share).sum()


def negative_scores(head: Head, scene: Scene, own: NegativeBatch, chosen: Tensor) -> Tensor:
    """Return [n, S + C] scores of drawn and then of shown titles, minus infinity where a row has no use for one."""
    state_nD = scene.state_of(head)[chosen]
    q_nD = head.queries(state_nD)
    drawn = _drawn_scores(head, scene, own, q_nD, chosen)
    shown = _shown_scores(head, scene, own.shown[chosen], q_nD, chosen)
    usable = torch.cat([own.usable[chosen], own.shown[chosen].gt(0)], dim=-1)
    scores_nX = torch.cat([drawn, shown], dim=-1) + head.levels(state_nD).unsqueeze(-1)
    return scores_nX.masked_fill(~usable, -torch.inf)


def _drawn_scores(head: Head, scene: Scene, own: NegativeBatch, q_nD: Tensor, chosen: Tensor) -> Tensor:
    e_SD = scene.titles.vectors[own.title]
    bias_PS = head.bias_of(scene.titles, scene.rows, own.title)
    scores: Tensor = (q_nD @ e_SD.to(q_nD.dtype).T).float() + bias_PS[scene.rows.row[chosen]]
    if scene.queries is not None:
        names_SM = scene.titles.prepared.names[own.title]
        scores = scores + (scene.queries.of(chosen) @ names_SM.T).float() * head.match
    return scores


def _shown_scores(head: Head, scene: Scene, shown_nC: Tensor, q_nD: Tensor, chosen: Tensor) -> Tensor:
    count = shown_nC.shape[1]
    if not count:
        return q_nD.new_zeros(len(chosen), 0, dtype=torch.float32)
    flat = shown_nC.flatten()
    canvas, snapshot = (getattr(scene.context, name)[chosen] for name in ("canvas", "snapshot"))
    e_nCD = scene.titles.vectors[flat].view(len(chosen), count, -1)
    bias = head.target_bias(scene.titles, canvas.repeat_interleave(count), snapshot.repeat_interleave(count), flat)
    scores: Tensor = (e_nCD * q_nD.unsqueeze(1)).sum(-1, dtype=torch.float32) + bias.view(-1, count)
    if scene.queries is not None:
        names_nCM = scene.titles.prepared.names[flat].view(len(chosen), count, -1)
        scores = scores + (names_nCM * scene.queries.of(chosen).unsqueeze(1)).sum(-1) * head.match
    return scores
