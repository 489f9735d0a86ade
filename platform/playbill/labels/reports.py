"""Labels in reports: counts of ones, zeros and events without a value over a log, and definitions in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from playbill.definitions.specs import LabelSpec
from playbill.definitions.specs.base import format_duration
from playbill.definitions.specs.label import EventRule
from playbill.labels.rules import IMPRESSION
from playbill.tables.frames import utc_literal

_COUNTS = pl.Schema(
    {
        "label": pl.String(),
        "positives": pl.Int64(),
        "zeros": pl.Int64(),
        "too_young": pl.Int64(),
        "unlabelled": pl.Int64(),
        "first": pl.Datetime("us", "UTC"),
        "last": pl.Datetime("us", "UTC"),
    }
)


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """One label over one log, as known at one moment."""

    name: str
    """The label."""
    version: str
    """Its version; of an extractor's label the extractor's too, as in `1 (played_from:1)`."""
    level: str
    """What a value is about."""
    window: timedelta | None
    """How long after an event its outcome counts."""
    matures_after: timedelta
    """Age below which an event is unlabelled."""
    zeros_mature_after: timedelta
    """The same of an event that can only be a zero."""
    positives: int
    """Events with a value above zero."""
    zeros: int
    """Events with the value zero."""
    too_young: int
    """Events of the actions it speaks of without a value because they are younger than they must be."""
    unlabelled: int
    """All events of these actions without a value. An extractor that does not say of which actions it speaks is taken
    to speak of all."""
    first: date | None
    """Day of the first event with a value."""
    last: date | None
    """Day of the last one."""

    @property
    def rate(self) -> float | None:
        """Share of positives among events with a value; None without any."""
        total = self.positives + self.zeros
        return self.positives / total if total else None


def labeler(label: LabelSpec) -> str:
    """Return who a value comes from: `name:version`, and the extractor's with it."""
    return f"{label.name}:{version_of(label)}"


def version_of(label: LabelSpec) -> str:
    """Return a label's version, and its extractor's: `1`, or `1 (played_from:1)`."""
    return f"{label.version} ({label.extractor}:{label.plugin.version})" if label.plugin else str(label.version)


def summarise(labels: Sequence[LabelSpec], parts: Iterable[pl.DataFrame], as_of: datetime) -> list[LabelSummary]:
    """Count labels' values over a log, of which `parts` are what `label_parts` gave for them at `as_of`."""
    moment = as_of.astimezone(UTC)
    counts = [_COUNTS.to_frame(), *(_counts(label, part, moment) for part in parts for label in labels)]
    sums = pl.col("positives", "zeros", "too_young", "unlabelled").sum()
    totals = pl.concat(counts).group_by("label").agg(sums, pl.col("first").min(), pl.col("last").max())
    found = {row["label"]: row for row in totals.iter_rows(named=True)}
    return [_summary(label, found.get(label.name, {})) for label in labels]


def published_rows(label: LabelSpec, part: pl.DataFrame) -> pl.DataFrame:
    """Return one label's values of a part as they are published.

    Returns:
        event_id, member_id, title_id, value and known_at: when the event was old enough, and recorded.
    """
    value = pl.col(label.name)
    age = pl.when(value == 0).then(label.zeros_mature_after).otherwise(label.matures_after)
    mature = pl.col("event_at") + age
    known_at = pl.max_horizontal(mature, "recorded_at") if "recorded_at" in part.columns else mature
    some = part.lazy().filter(value.is_not_null())
    return some.select("event_id", "member_id", "title_id", known_at.alias("known_at"), value.alias("value")).collect()


def ages(label: LabelSpec) -> dict[str, timedelta] | None:
    """Return how old an event of each action that a label speaks of must be; None if it may speak of any.

    An action that gives ones and zeros waits for the longer of the two.
    """
    if label.events is None:
        actions = label.plugin.actions if label.plugin else ()
        return dict.fromkeys(actions, label.matures_after) or None
    shown = (IMPRESSION,) if label.negatives.shown_not_played else ()
    zeros = dict.fromkeys((*label.negatives.actions, *shown), label.zeros_mature_after)
    ones = dict.fromkeys(label.events.action, label.matures_after)
    return {action: max(ones.get(action, timedelta(0)), zeros.get(action, timedelta(0))) for action in {*ones, *zeros}}


def _counts(label: LabelSpec, part: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    value, at = pl.col(label.name), pl.col("event_at")
    needed, spoken = pl.lit(label.matures_after), pl.lit(True)
    if (by_action := ages(label)) is not None:
        action = pl.col("action").cast(pl.String)
        needed = action.replace_strict(by_action, default=None, return_dtype=pl.Duration("us"))
        spoken = action.is_in(list(by_action))
    without = spoken & value.is_null()
    return part.select(
        pl.lit(label.name).alias("label"),
        (value > 0).sum().alias("positives"),
        (value == 0).sum().alias("zeros"),
        (without & (at + needed > utc_literal(as_of))).sum().alias("too_young"),
        without.sum().alias("unlabelled"),
        at.filter(value.is_not_null()).min().alias("first"),
        at.filter(value.is_not_null()).max().alias("last"),
    ).cast(_COUNTS)


def _summary(label: LabelSpec, found: Mapping[str, Any]) -> LabelSummary:
    return LabelSummary(
        name=label.name,
        version=version_of(label),
        level=label.level,
        window=label.attribution_window,
        matures_after=label.matures_after,
        zeros_mature_after=label.zeros_mature_after,
        positives=found.get("positives", 0),
        zeros=found.get("zeros", 0),
        too_young=found.get("too_young", 0),
        unlabelled=found.get("unlabelled", 0),
        first=_day(found.get("first")),
        last=_day(found.get("last")),
    )


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment is not None else None


@dataclass(frozen=True, slots=True)
class LabelDescription:
    """One label, for readers."""

    name: str
    """The label."""
    version: str
    """Its version, and its extractor's."""
    level: str
    """What a value is about."""
    about: str
    """Its own `description`, or the first sentence of its extractor's docstring; empty without either."""
    ones: str
    """Which events get 1."""
    zeros: str
    """Which events get 0."""
    window: str
    """How long after an event its outcome counts."""
    ones_known: str
    """When a 1 is told."""
    zeros_known: str
    """When a 0 is told."""


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
        ones_known=_duration(label.matures_after),
        zeros_known=_duration(label.zeros_mature_after) if zeros != _NONE else "",
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


def _duration(age: timedelta) -> str:
    return f"after {format_duration(age)}" if age else "at once"
