"""Outcomes -> rewards: what a recommendation was worth, and what it will be worth once its outcomes are known.

Nothing that answers requests may import this room: its predictor reads what happened after a recommendation.
"""

from __future__ import annotations

from playbill.definitions.specs import reward_version
from playbill.rewards.attribution import row_values, slate_values
from playbill.rewards.delayed import DelayedFeedback, DelayedSettings
from playbill.rewards.description import RewardDescription, describe_reward
from playbill.rewards.reports import DelayedReport, delayed_report
from playbill.rewards.values import DelayedPredictor, reward_values
from playbill.training.reward_weights import loss_weights

__all__ = [
    "DelayedFeedback",
    "DelayedPredictor",
    "DelayedReport",
    "DelayedSettings",
    "RewardDescription",
    "delayed_report",
    "describe_reward",
    "loss_weights",
    "reward_values",
    "reward_version",
    "row_values",
    "slate_values",
]
