"""The one place that reads the time.

A workspace has one injected clock: `wall` for a live service, `data_end` for a historical data set (the
moment after its last event), or a fixed time. Features, ttl, candidates, fallbacks and validation all ask it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from playbill.errors import ConfigError

ClockSetting = Literal["wall", "data_end"] | datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
"""The resolution of all timestamps."""


def to_microseconds(moment: datetime) -> int:
    """Return exact microseconds since 1970 of a zone-aware moment."""
    return (moment - EPOCH) // MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """Return the moment in UTC of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=microseconds)


class Clock(Protocol):
    """Anything that can say what time it is."""

    def now(self) -> datetime:
        """Return the current moment, zone-aware, in UTC."""
        ...


@dataclass(frozen=True, slots=True)
class WallClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """Return the machine's time in UTC."""
        return datetime.now(tz=UTC)


@dataclass(frozen=True, slots=True)
class FixedClock:
    """A clock that stands still, for historical data and tests."""

    at: datetime

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ConfigError(f"a fixed clock needs a time zone, got {self.at.isoformat()} (append 'Z' for UTC)")

    def now(self) -> datetime:
        """Return the fixed moment in UTC."""
        return self.at.astimezone(UTC)


def parse_moment(text: str) -> datetime:
    """Read an ISO 8601 moment with a zone and return it in UTC.

    Raises:
        ConfigError: The text is no moment, or it has no zone.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"'{text}' is no ISO 8601 moment, expected one such as 1998-04-22T00:00:00Z") from None
    if moment.tzinfo is None:
        raise ConfigError(f"'{text}' has no time zone, append 'Z' for UTC")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ConfigError(f"'{text}' is no moment in UTC: its year would be below 1 or above 9999") from None


def parse_clock(text: str) -> ClockSetting:
    """Read the `clock` setting of a workspace: `wall`, `data_end` or an ISO moment with a zone."""
    match text:
        case "wall":
            return "wall"
        case "data_end":
            return "data_end"
        case _:
            return parse_moment(text)
