"""What a reward's terms mean together with the labels they name, and the one id of a reward."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from playbill.definitions.specs.base import Definition, split_reference
from playbill.definitions.specs.label import LabelSpec
from playbill.definitions.specs.resolved import ResolvedModel, content_hash
from playbill.definitions.specs.reward import REWARDED, Attribution, RewardSpec, TermSpec


def attribution(term: TermSpec, label: LabelSpec) -> Attribution:
    """Return which event a term's label speaks of.

    Without word from the term the label's actions decide: `same_title` when none of them can have a reward. An
    extractor is taken to speak of the play or impression itself.
    """
    if term.attribute is not None:
        return term.attribute
    if label.events is None or set(label.events.action) & set(REWARDED):
        return "event"
    return "same_title"


def attribution_window(term: TermSpec, label: LabelSpec) -> timedelta | None:
    """Return how long after a play something on another event counts for it; None = however long."""
    return term.within if term.within is not None else label.attribution_window


def matures_after(term: TermSpec, label: LabelSpec, action: str) -> timedelta:
    """Return how old a row must be for nothing to change this term any more.

    Args:
        term: How the label counts.
        label: Its definition.
        action: Of the row: `play` or `impression`.
    """
    spans = [timedelta(0)]
    if attribution(term, label) == "same_title":
        spans.append((attribution_window(term, label) or timedelta(0)) + label.matures_after)
    elif label.events is None or action in label.events.action:
        spans.append(label.matures_after)
    if action in label.negatives.actions or (action == "impression" and label.negatives.shown_not_played):
        spans.append(label.zeros_mature_after)
    return max(spans)


def reward_version(reward: RewardSpec, labels: Mapping[str, LabelSpec]) -> str:
    """Return the one id of a reward that loss weights, reports, off-policy estimates and gates carry.

    Args:
        reward: The reward.
        labels: Definitions of its terms by plain name; others are not looked at.

    Returns:
        `name:version:hash`, the hash being twelve digits over everything the reward and its labels say beyond the
        defaults: it changes when a label does although the reward's own version stays.
    """
    terms = {name: _said(labels[split_reference(name)[0]]) for name in reward.terms}
    content = {"reward": _said(reward), "labels": terms}
    return f"{reward.reference}:{content_hash(content)[:12]}"


def _said(definition: Definition) -> dict[str, Any]:
    return definition.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def reward_versions(resolved: ResolvedModel) -> dict[str, str]:
    """Return name -> version id of every reward of a model: those that weigh heads, and the one it is judged by."""
    return {name: reward_version(reward, resolved.labels) for name, reward in resolved.rewards.items()}


def speaks_of(term: TermSpec, label: LabelSpec) -> frozenset[str]:
    """Return the actions of the rows this term can say something about, now or later: plays, impressions or both.

    An extractor is taken to speak of plays.
    """
    if attribution(term, label) == "same_title":
        return frozenset(REWARDED)
    if label.events is None:
        return frozenset(("play",))
    shown = ("impression",) if label.negatives.shown_not_played else ()
    return frozenset((*label.events.action, *label.negatives.actions, *shown)) & frozenset(REWARDED)
