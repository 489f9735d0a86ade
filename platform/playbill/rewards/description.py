"""What a reward says, as facts to print: its id, when it is final, and what each term counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from playbill.definitions.specs import LabelSpec, RewardSpec, reward_version
from playbill.definitions.specs.reward import REWARDED
from playbill.definitions.specs.reward_terms import attribution, attribution_window, matures_after, speaks_of
from playbill.rewards.values import BoundTerm, bound_terms


@dataclass(frozen=True, slots=True)
class TermDescription:
    """One term.

    Args:
        label: Such as `completion:1`.
        weight: Worth of a 1.
        otherwise: Worth of a 0.
        counts_for: `itself`, or which play another event counts for.
        of: Actions of the events it can speak of.
        final_after: Age at which nothing changes it any more.
        delayed: Whether it is predicted until then.
    """

    label: str
    weight: float
    otherwise: float
    counts_for: str
    of: tuple[str, ...]
    final_after: timedelta
    delayed: bool


@dataclass(frozen=True, slots=True)
class RewardDescription:
    """A reward: its id (`specs.reward_version`), when it is final, its bounds and its terms."""

    id: str
    final_after: timedelta
    clip: tuple[float, float] | None
    terms: tuple[TermDescription, ...]


def describe_reward(reward: RewardSpec, labels: Mapping[str, LabelSpec]) -> RewardDescription:
    """Describe a reward.

    Args:
        reward: In plain names.
        labels: Its labels by plain name.

    Raises:
        DataError: A term has no label.
    """
    terms = tuple(_described(term) for term in bound_terms(reward, labels))
    return RewardDescription(
        reward_version(reward, labels), max(term.final_after for term in terms), reward.clip, terms
    )


def _described(term: BoundTerm) -> TermDescription:
    of = tuple(action for action in REWARDED if action in speaks_of(term.spec, term.label))
    return TermDescription(
        label=f"{term.label.name}:{term.label.version}",
        weight=term.spec.weight,
        otherwise=term.spec.otherwise,
        counts_for=_counts_for(term),
        of=of,
        final_after=max(matures_after(term.spec, term.label, action) for action in of),
        delayed=term.delayed,
    )


def _counts_for(term: BoundTerm) -> str:
    if attribution(term.spec, term.label) == "event":
        return "itself"
    window = attribution_window(term.spec, term.label)
    days = "" if window is None else f" within {window / timedelta(days=1):g} days"
    return f"the title's latest play before it{days}"
