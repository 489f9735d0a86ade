"""The line between what is trained on and what is held out, asserted in every builder.

By time, everything that training reads lies before the first held-out event. In `leave_one_out` the line is each
member's own: everything of a member that training reads comes before the member's first held-out event.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.datasets.arrays import AnyInt
from playbill.datasets.splits import Split
from playbill.errors import IntegrityError
from playbill.tables.frames import utc_literal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Boundary:
    """Where the held-out part of a log begins.

    Args:
        protocol: Of the split, for messages.
        end: First held-out moment, or the protocol's cutoff where that is earlier; None where each member has an
            end of its own.
        ends: member_id and `held`, the seq of each member's first held-out event.
    """

    protocol: str
    end: datetime | None
    ends: pl.DataFrame

    @classmethod
    def of(cls, split: Split, interactions: pl.DataFrame) -> Boundary:
        """Return the boundary of a split of these interactions."""
        later = split.frame.filter(pl.col("fold") != "train").select("event_id")
        held = interactions.select("event_id", "member_id", "seq", "event_at").join(later, on="event_id", how="semi")
        ends = held.group_by("member_id").agg(held=pl.col("seq").min())
        if split.validation_cutoff is None:
            return cls(split.protocol, None, ends)
        first = held["event_at"].min()
        end = min(first, split.validation_cutoff) if isinstance(first, datetime) else split.validation_cutoff
        return cls(split.protocol, end, ends)

    def events(self, what: str, rows: pl.DataFrame) -> None:
        """Check rows of `interactions` that something is made from.

        Args:
            what: Is made from them, for the message.
            rows: member_id, seq and event_at.

        Raises:
            IntegrityError: One is not before the held-out part.
        """
        if self.end is not None:
            self.moments(what, rows["event_at"])
            return
        late = rows.select("member_id", "seq").join(self.ends, on="member_id").filter(pl.col("seq") >= pl.col("held"))
        if late.height:
            member = late["member_id"][0]
            raise IntegrityError(
                f"split '{self.protocol}': {what} would read events after held-out ones, first for member '{member}'"
            )

    def moments(self, what: str, at: pl.Series | AnyInt | datetime) -> None:
        """Check moments that something is known as of.

        Args:
            what: Is known then, for the message.
            at: Moments, or microseconds since 1970.

        Raises:
            IntegrityError: One is at the first held-out moment or later.
        """
        latest = _latest(at)
        if self.end is not None and latest is not None and latest >= self.end:
            raise IntegrityError(
                f"split '{self.protocol}': {what} would know {latest.isoformat()}, and what is held out "
                f"begins at {self.end.isoformat()}"
            )

    def as_of(self, what: str, moment: datetime) -> None:
        """Check the moment up to which, itself left out, something is known.

        Raises:
            IntegrityError: It is after the first held-out moment.
        """
        self.moments(what, moment - timedelta(microseconds=1))

    def known(self, frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
        """Return the rows that were known before the held-out part began; all of them where each member has an end.

        Args:
            frame: Rows of a canonical table.
            columns: Its time columns, all of which must lie before; those it lacks are not asked for.
        """
        asked = [name for name in columns if name in frame.columns]
        if self.end is None or not asked:
            return frame
        end = utc_literal(self.end)
        return frame.filter(pl.all_horizontal(pl.col(name) < end for name in asked))


def _latest(at: pl.Series | AnyInt | datetime) -> datetime | None:
    if isinstance(at, np.ndarray):
        return _EPOCH + timedelta(microseconds=int(_array_max(at))) if at.size else None
    found = at.max() if isinstance(at, pl.Series) else at
    return found if isinstance(found, datetime) else None


def _array_max(values: NDArray[np.integer[np.typing.NBitBase]]) -> int:
    return int(values.max())
