"""Live events: completed, checked against the catalogue, and committed to the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from playbill.clock import Clock
from playbill.errors import DataError, Problem
from playbill.schema import UNKNOWN_COUNTRY
from playbill.serving.active_model import Slot
from playbill.tables import AppendResult, Journal

FILLED_COLUMNS = ("event_at", "country")
"""What an event may leave out: it happened now, where the member's profile says."""
TITLE_COLUMNS = ("title_id", "source_title_id")


class EventDoor:
    """Takes events in. Safe to share between threads.

    Args:
        slot: Gives the catalogue and the members.
        journal: Where events are committed.
        clock: The workspace's; the time of events that come without one.
    """

    def __init__(self, slot: Slot, journal: Journal, clock: Clock) -> None:
        self._slot, self._journal, self._clock = slot, journal, clock

    def accept(self, events: Sequence[Mapping[str, Any]]) -> AppendResult:
        """Commit events; they are durable, and read by the member's next request, when this returns.

        An event without `event_at` happened now, one without `country` where the member's profile says.

        Args:
            events: As `interactions` has them. Sending one again changes nothing.

        Raises:
            DataError: Any event is wrong; all mistakes are named and none of the events is kept.
            ServiceError: The database does not answer.
        """
        completed = [self._completed(event) for event in events]
        strangers = self._strangers(events)
        if strangers:
            problems = [*self._journal.problems(completed), *strangers]
            raise DataError("the events were not accepted", sorted(problems, key=lambda problem: problem.where))
        return self._journal.append(completed)

    def _completed(self, event: Mapping[str, Any]) -> dict[str, Any]:
        completed = dict(event)
        completed.setdefault("event_at", self._clock.now())
        if "country" not in completed:
            completed["country"] = self._country(completed.get("member_id"))
        return completed

    def _country(self, member_id: object) -> str:
        profile = self._slot.current.shelf.members.profile(member_id) if isinstance(member_id, str) else None
        return (profile or {}).get("country") or UNKNOWN_COUNTRY

    def _strangers(self, events: Sequence[Mapping[str, Any]]) -> list[Problem]:
        catalogue = self._slot.current.shelf.catalogue
        return [
            Problem(f"events[{index}].{column}", f"unknown title '{event[column]}'.")
            for index, event in enumerate(events)
            for column in TITLE_COLUMNS
            if isinstance(event.get(column), str) and event[column] not in catalogue
        ]
