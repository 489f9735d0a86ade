"""The one encoder of member features: what builds the files also answers for one member at one moment.

Pure functions of an event log and a catalogue of titles. A build, an increment, a backfill and a push call the same
ones, so a served value can only differ from a trained one where the events they were given differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import polars as pl

from playbill.errors import DataError, Problem, UnknownNameError
from playbill.features.axis import Span
from playbill.features.genres import member_genres
from playbill.features.members import member_activity
from playbill.features.sessions import member_session
from playbill.tables.frames import utc_literal

MemberEncoder = Callable[..., pl.DataFrame]
"""(events, titles, span=EVER) -> the states of every member in the events, sorted by member and moment."""

MEMBER_VIEWS: Mapping[str, MemberEncoder] = {
    "member_activity": member_activity,
    "member_genres": member_genres,
    "member_session": member_session,
}
"""View -> its encoder."""

EVENT_COLUMNS = ("member_id", "event_at", "recorded_at", "action", "title_id", "country", "progress")
"""Columns of `interactions` that the encoders read."""


def encode_member(
    events: pl.DataFrame,
    titles: pl.DataFrame,
    at: datetime,
    views: Iterable[str] | None = None,
    encoders: Mapping[str, MemberEncoder] = MEMBER_VIEWS,
) -> dict[str, pl.DataFrame]:
    """Return the state of one or several members that holds at a moment, strictly before it.

    Args:
        events: All events of the members up to `at`, as `Tables.member_events` gives them; later ones are ignored.
        titles: The catalogue.
        at: The moment, with a zone.
        views: Names of encoders (default: all).
        encoders: View -> its encoder: the shipped ones, or those of views of one's own too.

    Returns:
        View -> at most one row per member, as the view's file has it: keys, event_timestamp (when the state began),
        created_timestamp and the features. A member without events has no row.

    Raises:
        UnknownNameError: There is no such view.
        DataError: `at` has no zone.
    """
    if at.tzinfo is None:
        raise DataError("features of a member", [Problem("at", f"{at.isoformat()} has no time zone.")])
    names = list(encoders if views is None else views)
    for name in names:
        if name not in encoders:
            raise UnknownNameError("member view", name, encoders)
    moment = at.astimezone(UTC)
    past = events.filter(pl.col("event_at") < utc_literal(moment))
    states = {name: encoders[name](past, titles, Span(until=moment)) for name in names}
    return {name: rows.unique("member_id", keep="last", maintain_order=True) for name, rows in states.items()}
