"""What each head is trained on: which rows, with which weight, against which loss.

Heads about titles rank against the whole catalogue (`softmax_loss`), against drawn titles, or against titles that were
not chosen; heads about rows and pages, and heads whose label is a number, have losses of their own. The targets of a
row may be a set, each title with its share of the row's weight: one row of logits teaches all of them.

Drawn titles: Bengio and Senecal, "Adaptive importance sampling to accelerate training of a neural probabilistic
language model" (2008): each drawn title counts for as many as it stands for, one over how often it was to be expected
in the draw, so that the sum over drawn titles is on average the sum over all. Yi et al. (2019) do so for titles of the
same batch. The error of the gradient falls with the number of draws; it is nothing when every title is drawn.
Calibrated odds: Petrov and Macdonald, "gSASRec: reducing overconfidence in sequential recommendation trained with
negative sampling" (RecSys 2023, arXiv 2308.07192).
Pairs: Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback" (UAI 2009).
Axis letters: N prediction rows, n rows that train a head, A rows above, T titles, S drawn titles, C shown titles of a
row, F further targets of a row, D width, M matching space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from playbill.definitions.specs.head import GbceOptions, HuberOptions, loss_plugin
from playbill.models.batch import FurtherBatch, NegativeBatch, TargetBatch
from playbill.models.config import HeadConfig, NetworkConfig
from playbill.models.heads import AttributeHead, Head
from playbill.models.row_tower import FORGET_SHARE, PageHead, RowHead, row_logits
from playbill.models.scoring_batch import ScoringBatch, chosen_rows, target_logits
from playbill.models.softmax_loss import Hidden, MomentFeatures, Names, binary_loss, softmax_loss


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


def head_sum(settings: HeadConfig, head: Head, scene: ScoringBatch, targets: TargetBatch) -> tuple[Tensor, Tensor]:
    """Return one head's weighted sum of losses and the weight it stands for."""
    weight_N = row_weights(settings, targets)
    total: Tensor = loss_plugin(settings.loss).load()(settings, head, scene, targets, weight_N)
    return total, weight_N.sum()


def softmax_sum(
    settings: HeadConfig, head: Head, scene: ScoringBatch, targets: TargetBatch, weight_N: Tensor
) -> Tensor:
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
        requested, typed_mM = scene.queries.requested(chosen)
        names = Names(requested, (head.match * typed_mM).to(low), prepared.names.to(low))
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
        else MomentFeatures(weights_CF, prepared.snapshots.values, scene.context.snapshot[chosen]),
        names=names,
        further=_further(settings, targets, chosen),
    )


def _further(settings: HeadConfig, targets: TargetBatch, chosen: Tensor) -> FurtherBatch | None:
    """Return the further targets of chosen rows, None for a head without a horizon."""
    own = targets.further.get(settings.name)
    return None if own is None else own.of(chosen)


def _by_moment(scene: ScoringBatch, chosen: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Return chosen rows and their weights with rows of one moment side by side."""
    order = torch.argsort(scene.rows.row[chosen], stable=True)
    return chosen[order], share[order]


def binary_sum(settings: HeadConfig, head: Head, scene: ScoringBatch, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Learn the probability of the label for the target title, and where asked for that drawn titles have none."""
    chosen, share = chosen_rows(weight_N)
    label_n = targets.labels[settings.name][chosen].nan_to_num()
    total = binary_loss(target_logits(head, scene, targets.title, chosen), label_n, share)
    if settings.name not in targets.negatives:
        return total
    positive_N = torch.where(targets.labels[settings.name].gt(0), weight_N, 0.0)
    return total + settings.negative_weight * negatives_sum(settings, head, scene, targets, positive_N)


def page_head_sum(
    settings: HeadConfig, head: RowHead | PageHead, scene: ScoringBatch, targets: TargetBatch
) -> tuple[Tensor, Tensor]:
    """Return a row or page head's weighted sum of binary cross-entropies, and the weight that it stands for."""
    weight_N = row_weights(settings, targets)
    chosen, share = chosen_rows(weight_N)
    label_n = targets.labels[settings.name][chosen].nan_to_num()
    state = scene.page_states(head, chosen)
    if isinstance(head, PageHead):
        return binary_loss(head(state), label_n, share), weight_N.sum()
    assert scene.embed is not None
    rows = {name: values[chosen] for name, values in targets.rows.items()}
    forget = FORGET_SHARE if head.training else 0.0
    logits = row_logits(head, state, rows, scene.embed, forget=forget)
    return binary_loss(logits, label_n, share), weight_N.sum()


def huber_loss(value_n: Tensor, label_n: Tensor, weight_n: Tensor, delta: float) -> Tensor:
    """Return the weighted sum of Huber losses (Huber 1964), a float32 scalar.

    An error e costs `e² / 2` up to `delta` and `delta (|e| - delta / 2)` beyond.
    """
    losses_n = F.huber_loss(value_n.float(), label_n, reduction="none", delta=delta)
    return (losses_n * weight_n).sum()


def scaled(label: Tensor, options: HuberOptions) -> Tensor:
    """Return labels as the head says them: cut off at `cap`, in units of `scale`."""
    return (label if options.cap is None else label.clamp(max=options.cap)) / options.scale


def huber_sum(settings: HeadConfig, head: Head, scene: ScoringBatch, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Learn the number that the label says of the target title."""
    options = HuberOptions.model_validate(settings.options)
    chosen, share = chosen_rows(weight_N)
    label_n = scaled(targets.labels[settings.name][chosen].nan_to_num(), options)
    return huber_loss(target_logits(head, scene, targets.title, chosen), label_n, share, options.delta)


def pairwise_loss(target_n: Tensor, others_nX: Tensor, weight_n: Tensor) -> Tensor:
    """Return the weighted sum over rows of the mean of `softplus(other - target)`, a float32 scalar.

    Scores of others are minus infinity where a row may not use one; a row without any counts 0.
    """
    usable_nX = torch.isfinite(others_nX)
    losses_nX = F.softplus(others_nX.float().masked_fill(~usable_nX, 0.0) - target_n.float().unsqueeze(-1))
    total_n = torch.where(usable_nX, losses_nX, 0.0).sum(-1)
    return (total_n / usable_nX.sum(-1).clamp(min=1) * weight_n).sum()


def pairwise_sum(
    settings: HeadConfig, head: Head, scene: ScoringBatch, targets: TargetBatch, weight_N: Tensor
) -> Tensor:
    """Rank the target above drawn and shown titles, pair by pair; drawn ones count as often as they are drawn."""
    chosen, share = chosen_rows(weight_N)
    if not chosen.numel():
        return weight_N.new_zeros(())
    others_nX = negative_scores(head, scene, targets.negatives[settings.name], chosen)
    return pairwise_loss(target_logits(head, scene, targets.title, chosen), others_nX, share)


def gbce_power(negatives: Tensor, others: Tensor, calibration: float) -> Tensor:
    """Return the power that a positive's probability is raised to, by numbers of negatives and of all other titles.

    With alpha the share of the other titles that were drawn, it is `alpha * (t * (1 - 1 / alpha) + 1 / alpha)`, which
    is `1 - t * (1 - alpha)`: 1 without calibration, alpha with all of it. More draws than titles count as all of them.
    """
    alpha = (negatives / others.clamp(min=1)).clamp(max=1)
    return 1 - calibration * (1 - alpha)


Scored = tuple[Tensor, Tensor]
"""[n, F] scores of further targets, and their shares of each row's weight; 0 = there is none."""


def gbce_loss(
    target_n: Tensor, others_nX: Tensor, power_n: Tensor, weight_n: Tensor, further: Scored | None = None
) -> Tensor:
    """Return the weighted sum of `-(power * log p(target) + sum log(1 - p(other))) / (1 + others)`, a float32 scalar.

    Scores of others are minus infinity where a row may not use one. Of several targets the mean by share counts.
    """
    usable_nX = torch.isfinite(others_nX)
    negative_n = torch.where(usable_nX, F.softplus(others_nX.float()), 0.0).sum(-1)
    positive_n = _mean_of_targets(F.softplus(-target_n.float()), further, lambda score: F.softplus(-score.float()))
    losses_n = power_n * positive_n + negative_n
    return (losses_n / (1 + usable_nX.sum(-1)) * weight_n).sum()


def gbce_sum(settings: HeadConfig, head: Head, scene: ScoringBatch, targets: TargetBatch, weight_N: Tensor) -> Tensor:
    """Learn calibrated odds of the target against drawn and shown titles, which should be drawn `uniform`ly."""
    chosen, share = chosen_rows(weight_N)
    if not chosen.numel():
        return weight_N.new_zeros(())
    others_nX = negative_scores(head, scene, targets.negatives[settings.name], chosen)
    seen_n = weight_N.new_full((len(chosen),), scene.catalogue)
    if targets.available.shape[0]:
        seen_n = targets.available.sum(-1)[targets.group[chosen]].to(weight_N)
    calibration = GbceOptions.model_validate(settings.options).calibration
    power_n = gbce_power(torch.isfinite(others_nX).sum(-1), seen_n - 1, calibration)
    further = _scored(head, scene, _further(settings, targets, chosen), chosen)
    return gbce_loss(target_logits(head, scene, targets.title, chosen), others_nX, power_n, share, further)


def _mean_of_targets(own_n: Tensor, further: Scored | None, of: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean by share of what each row's own title has and what `of` makes of the scores of the others."""
    if further is None:
        return own_n
    scores_nF, share_nF = further
    mean_n: Tensor = own_n * (1 - share_nF.sum(-1)) + (of(scores_nF) * share_nF).sum(-1)
    return mean_n


def _scored(head: Head, scene: ScoringBatch, own: FurtherBatch | None, chosen: Tensor) -> Scored | None:
    if own is None:
        return None
    state_nD = scene.state_of(head)[chosen]
    scores_nF = _shown_scores(head, scene, own.title, head.queries(state_nD), chosen)
    return scores_nF + head.levels(state_nD).unsqueeze(-1), own.share


LEAST_EXPECTED = 1e-9  # a title that was drawn although nobody expected it counts for no more than one over this


def sampled_softmax_loss(
    target_n: Tensor, drawn_nS: Tensor, expected_S: Tensor, weight_n: Tensor, further: Scored | None = None
) -> Tensor:
    """Return the weighted sum of `log(exp(t) + sum_s exp(d_s) / expected_s) - t`, a float32 scalar.

    Scores of drawn titles are minus infinity where a row may not use one. `expected_S` is how often each was to be
    expected in the draw; titles that are always there have 1. Of several targets all are in the sum, and t is their
    mean by share.
    """
    corrected_nS = drawn_nS.float() - expected_S.clamp(min=LEAST_EXPECTED).log()
    every = [target_n.float().unsqueeze(-1), corrected_nS]
    if further is not None:
        every.append(further[0].float().masked_fill(further[1] <= 0, -torch.inf))
    wanted_n = _mean_of_targets(target_n.float(), further, Tensor.float)
    return ((torch.logsumexp(torch.cat(every, dim=-1), dim=-1) - wanted_n) * weight_n).sum()


def sampled_sum(
    settings: HeadConfig, head: Head, scene: ScoringBatch, targets: TargetBatch, weight_N: Tensor
) -> Tensor:
    """Rank the targets against drawn titles."""
    chosen, share = chosen_rows(weight_N)
    if not chosen.numel():
        return weight_N.new_zeros(())
    own = targets.negatives[settings.name]
    scores_nX = negative_scores(head, scene, own, chosen)
    expected = torch.cat([own.expected, own.expected.new_ones(own.shown.shape[1])])
    further = _scored(head, scene, _further(settings, targets, chosen), chosen)
    return sampled_softmax_loss(target_logits(head, scene, targets.title, chosen), scores_nX, expected, share, further)


def negatives_sum(
    settings: HeadConfig, head: Head, scene: ScoringBatch, targets: TargetBatch, weight_N: Tensor
) -> Tensor:
    """Learn that drawn titles would not have had the label: mean binary loss of each row's, times its weight."""
    chosen, share = chosen_rows(weight_N)
    if not chosen.numel():
        return weight_N.new_zeros(())
    scores_nX = negative_scores(head, scene, targets.negatives[settings.name], chosen)
    usable_nX = torch.isfinite(scores_nX)
    losses_nX = torch.where(usable_nX, F.softplus(scores_nX), 0.0)
    return (losses_nX.sum(-1) / usable_nX.sum(-1).clamp(min=1) * share).sum()


def negative_scores(head: Head, scene: ScoringBatch, own: NegativeBatch, chosen: Tensor) -> Tensor:
    """Return [n, S + C] scores of drawn and then of shown titles, minus infinity where a row has no use for one."""
    state_nD = scene.state_of(head)[chosen]
    q_nD = head.queries(state_nD)
    drawn = _drawn_scores(head, scene, own, q_nD, chosen)
    shown = _shown_scores(head, scene, own.shown[chosen], q_nD, chosen)
    usable = torch.cat([own.usable[chosen], own.shown[chosen].gt(0)], dim=-1)
    scores_nX = torch.cat([drawn, shown], dim=-1) + head.levels(state_nD).unsqueeze(-1)
    return scores_nX.masked_fill(~usable, -torch.inf)


def _drawn_scores(head: Head, scene: ScoringBatch, own: NegativeBatch, q_nD: Tensor, chosen: Tensor) -> Tensor:
    e_SD = scene.titles.vectors[own.title]
    bias_PS = head.bias_of(scene.titles, scene.rows, own.title)
    scores: Tensor = (q_nD @ e_SD.to(q_nD.dtype).T).float() + bias_PS[scene.rows.row[chosen]]
    if scene.queries is not None:
        names_SM = scene.titles.prepared.names[own.title]
        scores = scores + (scene.queries.of(chosen) @ names_SM.T).float() * head.match
    return scores


def _shown_scores(head: Head, scene: ScoringBatch, shown_nC: Tensor, q_nD: Tensor, chosen: Tensor) -> Tensor:
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


def attribute_sum(
    settings: HeadConfig, head: AttributeHead, scene: ScoringBatch, targets: TargetBatch
) -> tuple[Tensor, Tensor]:
    """Return an auxiliary head's weighted sum of losses, and the weight that it stands for.

    A title has a set of genres, so each genre is a question of its own: a row's loss is the sum over all of them of
    binary cross-entropies, the likelihood of the whole set.
    """
    weight_N = row_weights(settings, targets)
    chosen, share = chosen_rows(weight_N)
    logits_nG = head(scene.state_of(head)[chosen])
    truth_nG = torch.zeros_like(logits_nG).scatter_(1, targets.attributes[settings.name][chosen], 1.0)
    losses_nG = F.binary_cross_entropy_with_logits(logits_nG[:, 1:], truth_nG[:, 1:], reduction="none")
    return (losses_nG.sum(-1) * share).sum(), weight_N.sum()


@dataclass(frozen=True, slots=True)
class TargetKind:
    """Heads about one kind of thing."""

    module: Callable[[NetworkConfig, int], nn.Module]
    """Made of the configuration and the head's place in it, which it keeps as `position`."""
    total: Callable[[HeadConfig, Any, ScoringBatch, TargetBatch], tuple[Tensor, Tensor]]
    """A head's weighted sum of losses, and the weight that it stands for."""


KINDS: dict[str, TargetKind] = {
    "title": TargetKind(Head, head_sum),
    "row": TargetKind(RowHead, page_head_sum),
    "page": TargetKind(PageHead, page_head_sum),
    "genres": TargetKind(AttributeHead, attribute_sum),
    "kind": TargetKind(AttributeHead, attribute_sum),
}
"""By `HeadConfig.target`."""
