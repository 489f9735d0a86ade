"""What training examples are worth: labels -> outcomes -> rewards, young outcomes predicted -> loss weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl

from playbill.arrays import Bools, Floats32
from playbill.definitions.specs import LabelSpec, ResolvedModel, RewardSpec
from playbill.definitions.specs.head import LOSSES, ranks
from playbill.errors import DataError, Problem
from playbill.labels import label_events
from playbill.rewards import DelayedFeedback, DelayedSettings, reward_values


@dataclass(frozen=True, slots=True)
class RewardWeights:
    """Weighs examples by the rewards of a model's heads; what `datasets.ExampleWeights` asks for."""

    settings: DelayedSettings = field(default_factory=DelayedSettings)  # of the models that tell delayed terms

    def rewards(
        self,
        resolved: ResolvedModel,
        events: pl.DataFrame,
        availability: pl.DataFrame,
        titles: pl.DataFrame,
        as_of: datetime,
    ) -> dict[str, Floats32]:
        """Return the reward of each of E events for every head that has one, see `example_rewards`."""
        return example_rewards(resolved, events, availability, titles, as_of, self.settings)

    def weigh(self, values: Floats32, labels: Floats32, loss: str) -> tuple[Floats32, Floats32]:
        """Return labels and weights of R rows, see `loss_weights`."""
        return loss_weights(values, labels, loss)


def example_weights(resolved: ResolvedModel) -> RewardWeights | None:
    """Return what weighs a model's examples; None when none of its heads has a reward."""
    if any(head.reward is not None for head in resolved.model.heads.values()):
        return RewardWeights(DelayedSettings(seed=resolved.model.training.seed))
    return None


def example_rewards(
    resolved: ResolvedModel,
    events: pl.DataFrame,
    availability: pl.DataFrame,
    titles: pl.DataFrame,
    as_of: datetime,
    settings: DelayedSettings | None = None,
) -> dict[str, Floats32]:
    """Return what every event was worth to every head with a reward.

    Delayed terms of plays too young at `as_of` are predicted from what has been seen of them, by models fitted here on
    the plays that are mature. Nothing but `events` is looked at, so a held-out part stays unseen.

    Events are [E] rows of `interactions`, each member's complete from the start. Returns head -> [E] float32, nan where
    an event is neither play nor impression.

    Raises:
        StateError: No play is old enough to learn a delayed term from.
        DataError: A term's label cannot be told from this log.
    """
    names = {name: head.reward for name, head in resolved.model.heads.items() if head.reward is not None}
    made = {
        name: _event_values(resolved.rewards[name], resolved, events, availability, titles, as_of, settings)
        for name in sorted(set(names.values()))
    }
    return {head: made[name] for head, name in names.items()}


def _event_values(
    reward: RewardSpec,
    resolved: ResolvedModel,
    events: pl.DataFrame,
    availability: pl.DataFrame,
    titles: pl.DataFrame,
    as_of: datetime,
    settings: DelayedSettings | None,
) -> Floats32:
    labels: dict[str, LabelSpec] = {name: resolved.labels[name] for name in reward.terms}
    outcomes = label_events(list(labels.values()), events, as_of, availability, titles)
    predictor = None
    if reward.delayed:
        predictor = DelayedFeedback.fit(reward, labels, outcomes, events, as_of, availability, settings)
    values = reward_values(reward, labels, outcomes, events, as_of, predictor)
    joined = events.select("event_id").join(
        values.select("event_id", "value"), on="event_id", how="left", maintain_order="left"
    )
    return joined["value"].fill_null(float("nan")).to_numpy().astype(np.float32)


_BINARY = "bce"


def loss_weights(values: Floats32, labels: Floats32, loss: str) -> tuple[Floats32, Floats32]:
    """Turn rewards of labelled examples into their labels and weights.

    A ranking loss (`softmax`, `sampled_softmax`, `pairwise`, `gbce`) weighs an example by label x max(0, reward), and
    labels stay.
    The binary loss takes the sign as the label and the magnitude as the weight: a label of 1 with a negative reward
    becomes 0, everything else stays, and the weight is |reward|. Weights are divided by the mean of those above zero,
    so that a reward changes which examples teach and not how fast.

    Source: GenPage, arXiv 2606.31031 (label = sign, weight = magnitude); GenRec, Netflix 2026 (reward-weighted
    softmax).

    Rewards and labels are [m]; an unlabelled example (nan) keeps its nan and has weight 0.

    Raises:
        DataError: A labelled example has no reward, no example has any weight, or the loss has no rule.
    """
    labelled = ~np.isnan(labels)
    _check(values, labelled, loss)
    worth = np.where(labelled, np.nan_to_num(values), 0.0).astype(np.float32)
    kept = labels.astype(np.float32, copy=True)
    if ranks(loss):
        weights = np.where(labelled, np.nan_to_num(labels), 0.0) * np.maximum(worth, 0.0)
    else:
        kept[labelled & (worth < 0)] = 0.0
        weights = np.abs(worth)
    weighted = weights > 0
    if labelled.any() and not weighted.any():
        what = f"all {int(labelled.sum())} labelled examples have a reward that gives a '{loss}' loss no weight"
        raise DataError("reward weights", [Problem("values", what, "Check the reward's terms and their signs.")])
    mean = weights[weighted].mean(dtype=np.float64) if weighted.any() else 1.0
    return kept, (weights / mean).astype(np.float32)


def _check(values: Floats32, labelled: Bools, loss: str) -> None:
    problems = []
    if values.shape != labelled.shape:
        problems.append(Problem("values", f"are {values.shape}, labels {labelled.shape}"))
    elif without := int((labelled & ~np.isfinite(values)).sum()):
        what = f"{without} of {int(labelled.sum())} labelled examples have no reward"
        problems.append(Problem("values", what, "Only plays and impressions have one."))
    if loss not in LOSSES or not (loss == _BINARY or ranks(loss)):
        known = ", ".join(name for name in LOSSES.names() if name == _BINARY or ranks(name))
        problems.append(Problem("loss", f"'{loss}' has no rule for rewards.", f"Known: {known}."))
    if problems:
        raise DataError("reward weights", problems)
