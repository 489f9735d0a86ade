"""Outcomes -> rewards: what a recommendation was worth, and what it will be worth once its outcomes are known.

Nothing that answers requests may import this room: its predictor reads what happened after a recommendation.
"""

from __future__ import annotations

from playbill.definitions.specs import reward_version
from playbill.rewards.delayed import DelayedFeedback, DelayedSettings
from playbill.rewards.reports import DelayedReport, RewardDescription, delayed_report, describe_reward
from playbill.rewards.values import DelayedPredictor, reward_values, slate_values

__all__ = [
    "DelayedFeedback",
    "DelayedPredictor",
    "DelayedReport",
    "DelayedSettings",
    "RewardDescription",
    "delayed_report",
    "describe_reward",
    "reward_values",
    "reward_version",
    "slate_values",
]
