"""What a parity check answers with. Plain dataclasses; nothing here imports Feast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Cause = Literal["from the future", "recorded later", "stale", "unexplained"]
"""Why a served value is not the regenerated one.

`from the future`: a value from after the request was served. `recorded later`: history as it was known at the request
gives the served value, so rows with earlier times were recorded since: late data, or a row stamped before its event.
`stale`: the online store held an earlier state of the member, materialized too long ago. `unexplained`: history gives
neither; the code that computes the values has changed, or a store is damaged.
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that was served and is not the regenerated one."""

    request_id: str
    member_id: str | None
    at: datetime
    view: str
    feature: str
    served: float | str | None
    regenerated: float | str | None
    cause: Cause


@dataclass(frozen=True, slots=True)
class ViewParity:
    """The values of one view."""

    view: str
    compared: int
    different: int
    causes: Mapping[Cause, int]
    """How many of the different values have which cause."""
    examples: tuple[Difference, ...]
    """The first differences, by time."""

    @property
    def equal(self) -> int:
        """Values that are the regenerated ones: numbers as float32 to the bit, missing as missing."""
        return self.compared - self.different


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Logged requests against what their features are now computed to have been."""

    workspace: str
    requests: int
    """Requests that were compared."""
    requests_different: int
    unanswered: int
    """Requests of the same time without features: fallbacks answered, or the store was down."""
    views: tuple[ViewParity, ...]
    only_logged: tuple[str, ...]
    """Columns that were served and that no service has any more."""
    only_registered: tuple[str, ...]
    """Columns that were added to a service since."""

    @property
    def compared(self) -> int:
        """Values that were compared."""
        return sum(view.compared for view in self.views)

    @property
    def different(self) -> int:
        """Values that differ."""
        return sum(view.different for view in self.views)
