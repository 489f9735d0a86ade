"""Columns a label may ask for beyond those of `interactions`: what was true just before each event.

"Before" is the order of (member_id, seq), which also settles events at the same moment.
"""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from playbill.errors import StateError

EVERYWHERE = "*"

_DAY_US = 86_400_000_000
_LAUNCH = "__launch"


def add_derived(
    events: pl.DataFrame, wanted: Collection[str], availability: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Add the derived columns among `wanted`.

    Args:
        events: Rows of the log, sorted by member_id and seq. A member's events must be complete from the start,
            or what came before is not known.
        wanted: Column names; those of `interactions` are left to the frame.
        availability: The canonical table, needed for `title_age_days` only.

    Raises:
        StateError: `title_age_days` is wanted and there is no availability.
    """
    added = events.with_columns(_before(name) for name in _BEFORE if name in wanted)
    if "title_age_days" in wanted:
        if availability is None:
            raise StateError("title_age_days needs the availability table; run `playbill ingest` first")
        added = _add_title_age(added, availability)
    return added


def _before(name: str) -> pl.Expr:
    return _BEFORE[name].alias(name)


def _plays() -> pl.Expr:
    return (pl.col("action") == "play").cast(pl.Int64)


def _days_since_last_play() -> pl.Expr:
    played_at = pl.when(pl.col("action") == "play").then(pl.col("event_at"))
    last = played_at.forward_fill().shift(1).over("member_id")
    return (pl.col("event_at") - last).dt.total_microseconds() / _DAY_US


_BEFORE = {
    "prior_plays_of_title": pl.when(pl.col("title_id").is_not_null()).then(
        _plays().cum_sum().over("member_id", "title_id") - _plays()
    ),
    "prior_plays": _plays().cum_sum().over("member_id") - _plays(),
    "days_since_last_play": _days_since_last_play(),
}


def _add_title_age(events: pl.DataFrame, availability: pl.DataFrame) -> pl.DataFrame:
    """Add days from launch: the first `available_from` in the event's country or everywhere."""
    first = availability.group_by("title_id", "country").agg(pl.col("available_from").min().alias(_LAUNCH))
    everywhere = first.filter(pl.col("country") == EVERYWHERE).select("title_id", pl.col(_LAUNCH).alias("__all"))
    joined = events.join(first, on=["title_id", "country"], how="left", maintain_order="left").join(
        everywhere, on="title_id", how="left", maintain_order="left"
    )
    age = pl.col("event_at") - pl.min_horizontal(_LAUNCH, "__all")
    days = (age.dt.total_microseconds() / _DAY_US).alias("title_age_days")
    return joined.with_columns(days).drop(_LAUNCH, "__all")
