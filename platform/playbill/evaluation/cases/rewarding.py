"""What the held-out targets of a case turned out to be worth, by a reward of the zoo."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from playbill.definitions.specs import LabelSpec, RewardSpec
from playbill.evaluation.cases.case import EvaluationCase
from playbill.labels import label_events
from playbill.metrics.ranking import Values
from playbill.rewards import reward_values


def target_rewards(case: EvaluationCase, reward: RewardSpec, labels: Mapping[str, LabelSpec]) -> Values:
    """Return each target's reward as known at the end of the log, [M].

    Delayed terms that are not mature by then are not predicted here: such a target's reward is NaN, and it gains
    nothing.

    Args:
        case: Requests, targets, candidates.
        reward: The reward.
        labels: Its terms' labels by name.
    """
    tables = case.tables
    outcomes = label_events(
        list(labels.values()), tables.interactions, tables.end, tables.availability, titles=tables.titles
    )
    values = reward_values(reward, labels, outcomes, tables.interactions, tables.end, None)
    ids = case.log.frame.select("event_id")[case.targets_at]
    joined = ids.join(values.select("event_id", "value", "matured"), on="event_id", how="left", maintain_order="left")
    worth = joined.select(pl.when(pl.col("matured")).then(pl.col("value").cast(pl.Float64)))
    return worth.to_series().fill_null(float("nan")).to_numpy().astype(np.float64)
