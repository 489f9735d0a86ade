"""What labels say of a whole log: how many ones and zeros, and how many events they leave unlabelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from playbill.labels.rules import Rule
from playbill.specs import LabelSpec


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """One label over one log, as known at one moment.

    Attributes:
        name: The label.
        version: Its version; of an extractor's label the extractor's too, as in `1 (played_from:1)`.
        level: What a value is about.
        window: How long after an event its outcome counts.
        matures_after: Age below which an event is unlabelled.
        positives: Events with a value above zero.
        zeros: Events with the value zero.
        unlabelled: Events of the actions it speaks of without a value; for an extractor, all events without one.
        first: Day of the first event with a value.
        last: Day of the last one.
    """

    name: str
    version: str
    level: str
    window: timedelta | None
    matures_after: timedelta
    positives: int
    zeros: int
    unlabelled: int
    first: date | None
    last: date | None

    @property
    def rate(self) -> float | None:
        """Share of positives among events with a value; None without any."""
        total = self.positives + self.zeros
        return self.positives / total if total else None


def labeler(label: LabelSpec) -> str:
    """Return who a value comes from: `name:version`, and the extractor's with it."""
    return f"{label.name}:{_version(label)}"


def summarise(labels: Sequence[LabelSpec], log: pl.DataFrame, values: pl.DataFrame) -> list[LabelSummary]:
    """Count labels' values over a log.

    Args:
        labels: Definitions.
        log: Rows of `interactions`.
        values: A column per label with a row for each row of the log, see `label_columns`.
    """
    events = log.select("event_at", "action").with_columns(values)
    return [_summary(label, events) for label in labels]


def published_rows(label: LabelSpec, log: pl.DataFrame, values: pl.Series) -> pl.DataFrame:
    """Return one label's values as they are published.

    Args:
        label: The definition.
        log: n rows of `interactions`.
        values: [n] its values; null is unlabelled.

    Returns:
        event_id, member_id, title_id, value and known_at: when the event was old enough, and recorded.
    """
    age = pl.when(values == 0).then(label.zeros_mature_after).otherwise(label.matures_after)
    mature = pl.col("event_at") + age
    known_at = pl.max_horizontal(mature, "recorded_at") if "recorded_at" in log.columns else mature
    rows = log.select("event_id", "member_id", "title_id", known_at.alias("known_at"), values.alias("value"))
    return rows.filter(pl.col("value").is_not_null())


def _summary(label: LabelSpec, events: pl.DataFrame) -> LabelSummary:
    value = pl.col(label.name)
    known = value.is_not_null()
    spoken = pl.lit(True) if label.extractor else pl.col("action").is_in(Rule(label).actions)
    first, last = (getattr(pl.col("event_at").filter(known), end)() for end in ("min", "max"))
    positives, zeros, unlabelled, begin, end = events.select(
        (value > 0).sum(),
        (value == 0).sum().alias("zeros"),
        (spoken & ~known).sum().alias("unlabelled"),
        first.alias("first"),
        last.alias("last"),
    ).row(0)
    return LabelSummary(
        name=label.name,
        version=_version(label),
        level=label.level,
        window=label.attribution_window,
        matures_after=label.matures_after,
        positives=positives,
        zeros=zeros,
        unlabelled=unlabelled,
        first=begin.date() if isinstance(begin, datetime) else None,
        last=end.date() if isinstance(end, datetime) else None,
    )


def _version(label: LabelSpec) -> str:
    return f"{label.version} ({label.extractor}:{label.plugin.version})" if label.plugin else str(label.version)
