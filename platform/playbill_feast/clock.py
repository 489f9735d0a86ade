"""The one place of the stores that reads the time: ages of online values and of Feast's registry cache count to it."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the machine's time in UTC."""
    return datetime.now(tz=UTC)
