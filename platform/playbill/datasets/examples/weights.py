"""What examples are worth: the door through which rewards reach training, without this room knowing rewards."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import polars as pl

from playbill.datasets.arrays import Float
from playbill.definitions.specs import ResolvedModel, reward_version
from playbill.errors import StateError


class ExampleWeights(Protocol):
    """Rewards of events, and how a reward becomes a weight: `playbill.training.example_weights.example_weights`."""

    def rewards(
        self,
        resolved: ResolvedModel,
        events: pl.DataFrame,
        availability: pl.DataFrame,
        titles: pl.DataFrame,
        as_of: datetime,
    ) -> Mapping[str, Float]:
        """Return the reward of each of E events for every head that has one, nan where an event has none.

        Args:
            resolved: The model.
            events: [E] rows of `interactions`, sorted by member_id and seq. Nothing else may be looked at.
            availability: The canonical table.
            titles: The canonical table.
            as_of: What was known then.
        """
        ...

    def weigh(self, values: Float, labels: Float, loss: str) -> tuple[Float, Float]:
        """Return the labels and the weights of R rows, weights of mean 1, from their rewards and labels."""
        ...


def reward_versions(resolved: ResolvedModel) -> dict[str, str]:
    """Return head -> version of the reward that weighs its examples, for the heads that have one."""
    return {
        name: reward_version(resolved.rewards[head.reward], resolved.labels)
        for name, head in resolved.model.heads.items()
        if head.reward is not None
    }


def event_rewards(
    weights: ExampleWeights | None,
    resolved: ResolvedModel,
    events: pl.DataFrame,
    availability: pl.DataFrame,
    titles: pl.DataFrame,
    as_of: datetime,
) -> dict[str, Float]:
    """Return head -> [E] rewards, for the heads that have one.

    Raises:
        StateError: A head has a reward, and nobody said what it is worth.
    """
    wanted = reward_versions(resolved)
    if not wanted:
        return {}
    if weights is None:
        raise StateError(
            f"head '{next(iter(wanted))}' is weighed by reward '{next(iter(wanted.values()))}', so `weights` are needed"
        )
    found = weights.rewards(resolved, events, availability, titles, as_of)
    return {head: found[head] for head in wanted}
