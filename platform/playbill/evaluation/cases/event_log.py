"""What an evaluation reads: the event log as arrays with its folds, the canonical tables, titles in column order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Self

import numpy as np
import polars as pl

from playbill.arrays import Indices, Mask
from playbill.datasets import Split, request_context
from playbill.datasets.splits import TIME_PROTOCOLS
from playbill.tables import Tables

PLAY = "play"
TRAIN = "train"
MOST_PASTS = 20_000  # Histories, and states of them, that are kept for the next canvas


@dataclass(frozen=True)
class EventLog:
    """Events sorted by member and seq, with their folds. Axis E counts events."""

    # interactions with the columns `place` (row number) and `fold` (null outside the split), and with what their
    # requests had said before them: `query`, `row` and `row_position`, see `request_context`
    frame: pl.DataFrame
    events: pl.DataFrame  # the same rows without these columns: what a history is a slice of
    column: Indices  # [E] title column, -1 where an event has no title of the catalogue
    starts: Indices  # [E] position of the member's first event
    plays: Mask  # [E] whether the event is a play of a catalogue title
    protocol: str  # protocol of the split
    # Where a replay has got to: fitting may use every play before it. None = the train fold.
    fitted_until: datetime | None = None
    # histories given out before, by position: the same frame again lets a scorer read it once
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

    def from_countries(self, countries: Sequence[str]) -> EventLog:
        """Return the log with plays of requests from some countries alone counted as such."""
        return replace(self, plays=self.plays & self.frame["country"].cast(pl.String).is_in(countries).to_numpy())

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


@dataclass(frozen=True)
class EvaluationTables:
    """Frames of the canonical tables, read once."""

    titles: pl.DataFrame  # newest row of each title
    members: pl.DataFrame  # newest row of each member
    availability: pl.DataFrame  # every availability row
    interactions: pl.DataFrame  # every event, sorted by member_id and seq
    end: datetime  # the moment after the last event; labels mature against it
    title_versions: pl.DataFrame | None = None  # every row of every title; None = `titles` is all there is
    member_versions: pl.DataFrame | None = None  # every row of every member; None = `members` is all there is

    def titles_at(self, moment: datetime) -> pl.DataFrame:
        """Return each title as it was known at a zone-aware moment; a title first described later as first described.

        So what was changed in the catalogue after a model's training, or after a request, takes no part, and titles
        that launched in between still have the metadata that their launch came with.
        """
        if self.title_versions is None:
            return self.titles
        known_from = pl.max_horizontal("valid_from", "recorded_at")
        ordered = self.title_versions.sort("title_id", "valid_from", "recorded_at", maintain_order=True)
        known = ordered.filter(known_from <= moment).unique("title_id", keep="last", maintain_order=True)
        first = ordered.unique("title_id", keep="first", maintain_order=True)
        later = first.join(known, on="title_id", how="anti", maintain_order="left")
        return pl.concat([known, later]).sort("title_id")

    @classmethod
    def read(cls, tables: Tables) -> EvaluationTables:
        """Read a workspace's tables.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        tables.require()
        return cls(
            titles=tables.titles(),
            members=tables.members(),
            availability=tables.availability(),
            interactions=tables.interactions(),
            end=tables.data_end(),
            title_versions=tables.title_versions(),
            member_versions=tables.member_versions(),
        )


def as_frames(tables: Tables | EvaluationTables) -> EvaluationTables:
    """Return the frames of a workspace's tables; frames come back unchanged."""
    return tables if isinstance(tables, EvaluationTables) else EvaluationTables.read(tables)


UNKNOWN = -1


@dataclass(frozen=True)
class TitleOrder:
    """Title ids, one per column; equal scores are ranked in this order."""

    title_ids: tuple[str, ...]

    @classmethod
    def of(cls, title_ids: Sequence[str]) -> TitleOrder:
        """Order titles by id ascending: as numbers when every id is one, else as text."""
        unique = sorted(set(title_ids))
        if all(title.isdecimal() for title in unique):
            unique.sort(key=int)
        return cls(tuple(unique))

    def __len__(self) -> int:
        return len(self.title_ids)

    @cached_property
    def _columns(self) -> pl.DataFrame:
        columns = np.arange(len(self.title_ids), dtype=np.int64)
        return pl.DataFrame({"title_id": pl.Series(self.title_ids, dtype=pl.String), "column": columns})

    def codes(self, title_ids: pl.Series | Sequence[str | None]) -> Indices:
        """Return the column of each id, `UNKNOWN` (-1) for null and for ids that are no column."""
        requested = pl.DataFrame({"title_id": pl.Series(title_ids, dtype=pl.String)})
        joined = requested.join(self._columns, on="title_id", how="left", maintain_order="left")
        return joined["column"].fill_null(UNKNOWN).to_numpy().astype(np.int64)

    def places_in(self, other: Sequence[str]) -> Indices:
        """Return where each of our titles stands in another order, `UNKNOWN` where it does not."""
        return TitleOrder(tuple(other)).codes(self.title_ids)


def microseconds(moments: pl.Series) -> Indices:
    """Return moments as int64 microseconds since 1970 UTC. Nulls are not allowed."""
    return moments.dt.epoch("us").to_numpy().astype(np.int64)
