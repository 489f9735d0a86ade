"""What of a source will be used, so that no more of it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a source will be used.

    Attributes:
        at: The source's time column, under its own name.
        since: Earliest event time, included; rows before it never come back.
        until: Latest event time, included; rows after it never come back.
        keys: Column under its own name -> the values that matter. Databases are asked by them, files are not.
    """

    at: str
    since: datetime | None = None
    until: datetime | None = None
    keys: Mapping[str, Sequence[Any]] = field(default_factory=dict)
