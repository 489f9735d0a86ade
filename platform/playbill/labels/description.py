"""A label's definition in words: of which events it speaks, when it says one or zero, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from playbill.definitions.specs import LabelSpec
from playbill.definitions.specs.base import format_duration
from playbill.definitions.specs.label import EventRule
from playbill.labels.reports import version_of


@dataclass(frozen=True, slots=True)
class LabelDescription:
    """One label, for readers.

    Attributes:
        name: The label.
        version: Its version, and its extractor's.
        level: What a value is about.
        about: Its own `description`, or the first sentence of its extractor's docstring; empty without either.
        ones: Which events get 1.
        zeros: Which events get 0.
        window: How long after an event its outcome counts.
        ones_told: When a 1 is told.
        zeros_told: When a 0 is told.
    """

    name: str
    version: str
    level: str
    about: str
    ones: str
    zeros: str
    window: str
    ones_told: str
    zeros_told: str


def describe(label: LabelSpec) -> LabelDescription:
    """Put a label's definition into words."""
    ones, zeros = _values(label)
    return LabelDescription(
        name=label.name,
        version=version_of(label),
        level=label.level,
        about=label.description or _docstring(label),
        ones=ones,
        zeros=zeros,
        window=_window(label),
        ones_told=_told(label.matures_after),
        zeros_told=_told(label.zeros_mature_after) if zeros != _NONE else "",
    )


_NONE = "none"


def _values(label: LabelSpec) -> tuple[str, str]:
    if label.events is None:
        options = ", ".join(f"{key}: {_plain(value)}" for key, value in label.options.items())
        says = f"extractor {label.extractor}" + (f" with {options}" if options else "")
        return says, says
    return _rule(list(label.events.action), label.events.where), _zeros(label, label.events)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _docstring(label: LabelSpec) -> str:
    text = (label.plugin.load().__doc__ or "") if label.plugin else ""
    return " ".join(text.split("\n\n")[0].split())


def _zeros(label: LabelSpec, events: EventRule) -> str:
    negatives = label.negatives
    kinds = [f"any other {action}" if action in events.action else action for action in negatives.actions]
    kinds += ["impression without a play of the title in its request"] if negatives.shown_not_played else []
    return _rule(kinds, negatives.where) if kinds else _NONE


def _rule(kinds: list[str], where: str | None) -> str:
    return " or ".join(kinds) + (f" where {where}" if where else "")


def _window(label: LabelSpec) -> str:
    own, zeros = label.attribution_window, label.negatives.window
    if own is None and zeros is not None:
        return f"{format_duration(zeros)} for zeros"
    return format_duration(own) if own is not None else ""


def _told(age: timedelta) -> str:
    return f"after {format_duration(age)}" if age else "at once"
