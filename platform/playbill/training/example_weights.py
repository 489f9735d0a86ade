"""What training examples are worth: labels -> outcomes -> rewards, young outcomes predicted -> loss weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl

from playbill.datasets.arrays import Float
from playbill.definitions.specs import LabelSpec, ResolvedModel, RewardSpec
from playbill.labels import label_events
from playbill.rewards import DelayedFeedback, DelayedSettings, loss_weights, reward_values


@dataclass(frozen=True, slots=True)
class RewardWeights:
    """Weighs examples by the rewards of a model's heads; what `datasets.ExampleWeights` asks for."""

    settings: DelayedSettings = field(default_factory=DelayedSettings)
    """Of the models that tell delayed terms."""

    def rewards(
        self,
        resolved: ResolvedModel,
        events: pl.DataFrame,
        availability: pl.DataFrame,
        titles: pl.DataFrame,
        as_of: datetime,
    ) -> dict[str, Float]:
        """Return the reward of each of E events for every head that has one, see `example_rewards`."""
        return example_rewards(resolved, events, availability, titles, as_of, self.settings)

    def weigh(self, values: Float, labels: Float, loss: str) -> tuple[Float, Float]:
        """Return labels and weights of R rows, see `rewards.loss_weights`."""
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
) -> dict[str, Float]:
    """Return what every event was worth to every head with a reward.

    Delayed terms of plays too young at `as_of` are predicted from what has been seen of them, by models fitted here on
    the plays that are mature. Nothing but `events` is looked at, so a held-out part stays unseen.

    Args:
        resolved: The model.
        events: [E] rows of `interactions`, each member's complete from the start.
        availability: The canonical table.
        titles: The canonical table.
        as_of: What was known then.
        settings: Of the models of delayed terms.

    Returns:
        Head -> [E] float32, nan where an event is neither play nor impression.

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
) -> Float:
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
