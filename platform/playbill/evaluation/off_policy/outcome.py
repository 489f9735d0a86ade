"""What impressions were worth: plays, or a reward of the zoo, known as of the end of the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from playbill.definitions.specs import LabelSpec, RewardSpec, split_reference
from playbill.definitions.specs.measures import PLAYED
from playbill.definitions.specs.reward import REWARDED
from playbill.definitions.specs.reward_terms import matures_after
from playbill.evaluation.cases.data import EvaluationTables
from playbill.labels import label_events
from playbill.rewards import DelayedPredictor, reward_values, reward_version, slate_values

_PLAYED_WITHIN = timedelta(days=1)
"""A play comes at most this long after its impression; later ones are immature at the edge of the log."""


@dataclass(frozen=True)
class Outcome:
    """What each impression was worth.

    Args:
        name: Such as `long_term`.
        version: The reward's version id, or a sentence that defines the outcome.
        values: event_id, value, matured; one row per impression.
        final_after: How old an impression must be for nothing that came of it to change. Younger ones are dropped
            whether something came of them or not: dropping only those whose play is not mature would leave mostly
            impressions without plays.
    """

    name: str
    version: str
    values: pl.DataFrame
    final_after: timedelta


OutcomeRule = Callable[[EvaluationTables], Outcome]
"""Says what impressions were worth, from the events of whole members."""


def played_outcome(window: timedelta = timedelta(days=1)) -> OutcomeRule:
    """Outcome 1 where the title was played in the same request within a window, else 0.

    Args:
        window: How long after the impression a play counts; younger impressions are not mature.
    """
    return lambda tables: _played(tables.interactions, tables.end, window)


def _played(interactions: pl.DataFrame, as_of: datetime, window: timedelta) -> Outcome:
    key = ["request_id", "title_id"]
    first = (
        interactions.filter((pl.col("action") == "play") & pl.all_horizontal(pl.col(key).is_not_null()))
        .group_by(key)
        .agg(pl.col("event_at").min().alias("played_at"))
    )
    shown = interactions.filter(pl.col("action") == "impression").join(first, on=key, how="left", maintain_order="left")
    played = ((pl.col("played_at") - pl.col("event_at")) <= window).fill_null(value=False)
    old = pl.col("event_at") + window <= as_of
    values = shown.select("event_id", value=played.cast(pl.Float32), matured=old)
    hours = window / timedelta(hours=1)
    return Outcome(PLAYED, f"played in the same request within {hours:g} h", values, window)


def reward_outcome(
    reward: RewardSpec, labels: Mapping[str, LabelSpec], predictor: DelayedPredictor | None = None
) -> OutcomeRule:
    """Outcome = the reward of an impression and of the plays it led to, as known at the tables' end.

    Args:
        reward: The reward.
        labels: Its labels by plain name.
        predictor: Stands in for delayed terms; such rows still count as immature.
    """
    names = dict.fromkeys(split_reference(reference)[0] for reference in reward.terms)
    wanted = [labels[name] for name in names if name in labels]

    def rule(tables: EvaluationTables) -> Outcome:
        log, as_of = tables.interactions, tables.end
        outcomes = label_events(wanted, log, as_of, tables.availability, tables.titles)
        values = reward_values(reward, labels, outcomes, log, as_of, predictor)
        return Outcome(reward.name, reward_version(reward, labels), slate_values(values, log), final)

    final = _PLAYED_WITHIN + max(
        matures_after(term, labels[split_reference(name)[0]], action)
        for name, term in reward.terms.items()
        for action in REWARDED
        if split_reference(name)[0] in labels
    )
    return rule
