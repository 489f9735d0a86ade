"""The event log as arrays: where each member's past ends, what was played, and what a protocol allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self

import numpy as np
import polars as pl

from playbill.datasets import Split, request_context
from playbill.datasets.splits import TIME_PROTOCOLS
from playbill.evaluation.cases.order import TitleOrder
from playbill.metrics.topk import Indices, Mask

PLAY = "play"
TRAIN = "train"
MOST_PASTS = 20_000
"""Histories, and states of them, that are kept for the next canvas."""


@dataclass(frozen=True)
class EventLog:
    """Events sorted by member and seq, with their folds. Axis E counts events.

    Args:
        frame: Interactions with the columns `place` (row number) and `fold` (null outside the split), and with what
            their requests had said before them: `query`, `row` and `row_position`, see `request_context`.
        events: The same rows without these columns: what a history is a slice of.
        column: [E] title column, -1 where an event has no title of the catalogue.
        starts: [E] position of the member's first event.
        plays: [E] whether the event is a play of a catalogue title.
        protocol: Protocol of the split.
        pasts: Histories given out before, by position: the same frame again lets a scorer read it once.
        fitted_until: Where a replay has got to: fitting may use every play before it. None = the train fold.
    """

    frame: pl.DataFrame
    events: pl.DataFrame
    column: Indices
    starts: Indices
    plays: Mask
    protocol: str
    fitted_until: datetime | None = None
    pasts: dict[int, pl.DataFrame] = field(default_factory=dict, compare=False, repr=False)

    def until(self, moment: datetime) -> EventLog:
        """Return the log of a replay that has got to a moment: `fitted_plays` are all plays before it."""
        return replace(self, fitted_until=moment)

    def under(self, protocol: str) -> EventLog:
        """Return the log under another protocol that holds out the same rows."""
        return replace(self, protocol=protocol)

    def counting(self, actions: Sequence[str]) -> EventLog:
        """Return the log with events of other actions counted as plays, for baselines of titles without any."""
        counted = self.frame["action"].cast(pl.String).is_in(actions).to_numpy()
        return replace(self, plays=counted & (self.column >= 0))

    @classmethod
    def of(cls, interactions: pl.DataFrame, split: Split, catalogue: TitleOrder) -> Self:
        """Sort the events and mark each with its fold."""
        folds = split.frame.select("event_id", "fold")
        frame = (
            interactions.sort("member_id", "seq")
            .join(folds, on="event_id", how="left", maintain_order="left")
            .with_row_index("place")
            .with_columns(pl.col("place").cast(pl.Int64), pl.col("fold").cast(pl.String))
        )
        events = frame.drop("place", "fold")
        frame = request_context(frame, frame)
        column = catalogue.codes(frame["title_id"])
        starts = frame.select(pl.col("place").min().over("member_id"))["place"].to_numpy()
        plays = (frame["action"] == PLAY).to_numpy() & (column >= 0)
        return cls(frame, events, column, starts, plays, split.protocol)

    def past(self, position: int) -> pl.DataFrame:
        """Return the member's events strictly before the event at `position`, oldest first."""
        if position in self.pasts:
            return self.pasts[position]
        past = self.events[int(self.starts[position]) : position]
        if len(self.pasts) < MOST_PASTS:
            self.pasts[position] = past
        return past

    def watched(self, positions: Indices) -> tuple[Indices, Indices]:
        """Return pairs (request, title column) of plays strictly before each position."""
        starts = self.starts[positions]
        lengths = positions - starts
        request = np.repeat(np.arange(positions.size, dtype=np.int64), lengths)
        offset = np.arange(lengths.sum(), dtype=np.int64) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        event = np.repeat(starts, lengths) + offset
        played = self.plays[event]
        return request[played], self.column[event[played]]

    def fitted_plays(self) -> pl.DataFrame:
        """Return the plays a baseline may be fitted on, in log order: the train fold, or all before `fitted_until`.

        Columns member_id, title_id, event_at.
        """
        return self._play_frame(self.fitted())

    def fitted(self) -> Mask:
        """[E] events that fitting may read: the train fold, or all before `fitted_until`."""
        if self.fitted_until is not None:
            return (self.frame["event_at"] < self.fitted_until).to_numpy()
        return self.trained()

    def trained(self) -> Mask:
        """[E] events of the train fold."""
        return (self.frame["fold"] == TRAIN).fill_null(False).to_numpy()

    def known_plays(self) -> pl.DataFrame:
        """Return the plays that may be counted up to a request's moment; the counter cuts at the moment.

        Under `leave_one_out` that is the train fold. Under the time protocols it is the whole log: what others
        played between the cut-off and the moment is known when the request is answered.
        """
        if self.protocol not in TIME_PROTOCOLS:
            return self.fitted_plays()
        return self._play_frame(np.ones(self.plays.size, dtype=np.bool_))

    def known_events(self) -> pl.DataFrame:
        """Return every event that may be counted up to a request's moment, see `known_plays`, in log order."""
        return self.events if self.protocol in TIME_PROTOCOLS else self.events.filter(pl.Series(self.fitted()))

    def _play_frame(self, allowed: Mask) -> pl.DataFrame:
        kept = pl.Series(allowed & self.plays)
        return self.frame.filter(kept).select("member_id", "title_id", "event_at")
