"""From what a source offers to full canonical tables: what the source leaves out is derived here, for all alike.

- An interaction's `recorded_at` is its time: a historical set was known as it happened.
- A member joins, and is known, from the first event on. Members that only occur in the log are added.
- Their country and language are those of most of their events, the more recent where two are as frequent.
- A title can be watched everywhere from its release or its first event, whichever is earlier.
- The catalogue is taken as known from the start of the log, so titles still to come can be announced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Protocol

import numpy as np
import polars as pl

from playbill.schema import UNKNOWN_COUNTRY
from playbill.sources.cleaning import Cleaner, RowsSetAside
from playbill.sources.observing import Observations, plural
from playbill.sources.ratings import ORDER, RATING, RatingRule, rating_events, with_rank
from playbill.sources.value_parsing import SameTitles
from playbill.tables import TIMESTAMP, RowMistake, empty_frame
from playbill.tables.frames import utc_literal

_PROFILE_OF_EVENTS = ("country", "language")
"""Columns of members that their events have too."""

_MEMBER_DATES = ("joined_at", "valid_from", "recorded_at")

Progress = Callable[[str, int, int | None], None]
"""Called with a stage, the amount done, and the total where it is known."""

SLICE_ROWS = 1_000_000
"""Interactions in one batch, unless one member alone has more."""


class Writer(Protocol):
    """What takes canonical rows: a table writer, or something that watches one."""

    def write(self, table: str, frame: pl.DataFrame) -> None:
        """Take one batch."""
        ...

    def note(self, table: str, mistakes: list[RowMistake]) -> None:
        """Take mistakes found while a batch was read."""
        ...


@dataclass(frozen=True, slots=True)
class Noted:
    """Rows of a table that a source could not read."""

    table: str
    mistake: RowMistake


@dataclass
class SourceData:
    """What a source has. Frames hold canonical columns; columns that can be derived may be missing."""

    titles: pl.DataFrame
    """title_id, name, kind and more; without valid_from and recorded_at they are derived."""
    batches: Iterable[pl.DataFrame]
    """Interactions, every member's rows within one batch, with `RATING` when `rule` is set."""
    total_rows: int | None = None
    """Rows in all batches, where known."""
    members: pl.DataFrame | None = None
    """member_id, country and the source's own columns, or None."""
    availability: pl.DataFrame | None = None
    """Spans, or None to derive them."""
    rule: RatingRule | None = None
    """Makes events of ratings; None when the batches are events."""
    noted: list[Noted] = field(default_factory=list)
    """Rows that could not be read, and are in no frame; it may grow while `batches` is consumed."""
    same: SameTitles | None = None
    """Titles that are one, to be merged."""
    cleaners: list[Cleaner] = field(default_factory=list)
    """What set rows aside; complete once `batches` is consumed."""
    ordered: bool = False
    """The source gives the order of a member's events, `ORDER` or `seq`."""
    notes: list[str] = field(default_factory=list)
    """What the source itself has to say to whoever runs the ingest."""


@dataclass(frozen=True, slots=True)
class WriteSummary:
    """What there is to say about an offer once it is written."""

    notes: tuple[str, ...]
    """One sentence each."""
    observed: Observations
    """What its events looked like."""
    set_aside: tuple[RowsSetAside, ...]
    """Rows that were left out, by table."""


def write_offer(offer: SourceData, writer: Writer, progress: Progress) -> WriteSummary:
    """Complete an offer and hand it to a writer."""
    notes = _merge(offer)
    members = offer.members if offer.members is not None else empty_frame("members").select("member_id", "country")
    countries = members.select("member_id", "country") if "country" in members.columns else None
    seen, observed = _Seen(), Observations(offer.ordered)
    done = 0
    for batch in offer.batches:
        events = _events(_renamed(batch, offer.same), offer.rule)
        writer.write("interactions", _with_country(events, countries))
        seen.add(events)
        observed.add(events)
        done += batch.height
        progress("interactions", done, offer.total_rows)
    for unread in offer.noted:
        writer.note(unread.table, [unread.mistake])
    # Without a single event the load is refused anyway; a stand-in keeps that the only complaint.
    start = seen.first_moment() or datetime(1970, 1, 1, tzinfo=UTC)
    launches = _launches(offer.titles, seen.of("title_id"), start)
    writer.write("titles", _dated_titles(offer.titles, launches, start))
    spans = offer.availability if offer.availability is not None else _everywhere(offer.titles, launches)
    writer.write("availability", _dated_availability(spans, start))
    writer.write("members", _dated_members(members, seen, start))
    set_aside = [rows for cleaner in offer.cleaners if (rows := cleaner.result()) is not None]
    return WriteSummary((*offer.notes, *notes, *observed.notes()), observed, tuple(set_aside))


def _merge(offer: SourceData) -> list[str]:
    """Make one title of those that are the same, in all tables but the events."""
    if offer.same is None:
        return []
    gone = offer.same.ids
    offer.titles = offer.titles.join(gone, on="title_id", how="anti", maintain_order="left")
    if offer.availability is not None:
        spans = _renamed(offer.availability, offer.same)
        offer.availability = spans.unique(["title_id", "country", "available_from"], keep="first", maintain_order=True)
    return [
        f"{plural(gone.height, 'title')} with the name, kind, release and genres of another one "
        f"({offer.same.example}): merged, and known by the smaller id"
    ]


def _renamed(rows: pl.DataFrame, same: SameTitles | None) -> pl.DataFrame:
    if same is None:
        return rows
    known = [name for name in ("title_id", "source_title_id") if name in rows.columns]
    old, new = same.ids.get_column("title_id"), same.ids.get_column("same_as")
    return rows.with_columns(pl.col(name).replace(old, new) for name in known)


def member_slices(log: pl.LazyFrame, member: str) -> Iterator[pl.DataFrame]:
    """Yield whole members' rows in batches of bounded size; rows without a member come with the first batch."""
    counts = log.group_by(member).len().sort(member).collect()
    names, sizes = counts.get_column(member), counts.get_column("len").cum_sum().to_numpy()
    if not len(names):
        return
    numbers = (sizes - 1) // SLICE_ROWS
    edges = [0, *(int(edge) + 1 for edge in np.flatnonzero(np.diff(numbers))), len(names)]
    if len(edges) == 2:
        yield log.collect()
        return
    for start, end in pairwise(edges):
        wanted = names[start:end]
        inside = pl.col(member).is_in(wanted.drop_nulls().implode())
        if wanted.null_count():
            inside = inside | pl.col(member).is_null()
        yield log.filter(inside).collect()


def _events(batch: pl.DataFrame, rule: RatingRule | None) -> pl.DataFrame:
    if rule is not None:
        events = rating_events(batch, rule)
    elif "seq" in batch.columns:
        events = batch
    else:
        events = with_rank(batch).rename({"_rank": "seq"})
    if "event_id" not in events.columns:
        events = events.with_columns(event_id=pl.concat_str(pl.lit("e-"), "member_id", pl.lit("-"), "seq"))
    if "recorded_at" not in events.columns:
        events = events.with_columns(recorded_at="event_at")
    return events.drop(ORDER, RATING, strict=False)


def _with_country(events: pl.DataFrame, countries: pl.DataFrame | None) -> pl.DataFrame:
    if "country" in events.columns:
        return events
    if countries is None:
        return events.with_columns(country=pl.lit(UNKNOWN_COUNTRY))
    known = countries.unique("member_id", keep="first")
    joined = events.join(known, on="member_id", how="left", maintain_order="left")
    return joined.with_columns(pl.col("country").fill_null(UNKNOWN_COUNTRY))


class _Seen:
    """The first event of every title and member, and where members were, gathered batch by batch."""

    def __init__(self) -> None:
        self._parts: dict[str, list[pl.DataFrame]] = {"title_id": [], "member_id": []}
        self._profiles: dict[str, list[pl.DataFrame]] = {name: [] for name in _PROFILE_OF_EVENTS}

    def add(self, events: pl.DataFrame) -> None:
        """Look at further events; all events of a member come together."""
        for column, parts in self._parts.items():
            if column in events.columns:
                first = pl.col("event_at").min().alias("first_event")
                parts.append(events.drop_nulls(column).group_by(column).agg(first))
        for column, parts in self._profiles.items():
            if column in events.columns:
                parts.append(_most_frequent(events, column))

    def of(self, column: str) -> pl.DataFrame:
        """Return each value of a column with its first event."""
        schema = pl.Schema({column: pl.String(), "first_event": TIMESTAMP})
        parts = [schema.to_frame(), *self._parts[column]]
        return pl.concat(parts).group_by(column).agg(pl.col("first_event").min())

    def profiled(self, members: pl.DataFrame) -> pl.DataFrame:
        """Add what events say of members in the columns that `members` does not have; a country is never null."""
        found = members
        for column, parts in self._profiles.items():
            if parts and column not in members.columns:
                found = found.join(pl.concat(parts), on="member_id", how="left", maintain_order="left")
        if "country" in members.columns:  # one that the source gives as null stays a mistake
            return found
        country = pl.col("country") if "country" in found.columns else pl.lit(None, dtype=pl.String)
        return found.with_columns(country=country.fill_null(UNKNOWN_COUNTRY))

    def first_moment(self) -> datetime | None:
        """Return the moment of the first event."""
        moment = self.of("member_id").get_column("first_event").min()
        return moment if isinstance(moment, datetime) else None


def _most_frequent(events: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return each member's most frequent known value of a column; of equally frequent ones the most recent."""
    known = events.filter(pl.col(column).is_not_null() & (pl.col(column) != UNKNOWN_COUNTRY))
    counts = known.group_by("member_id", column).agg(pl.len().alias("events"), pl.col("event_at").max())
    best = counts.sort("events", "event_at", column, descending=True).unique("member_id", keep="first")
    return best.select("member_id", column)


def _launches(titles: pl.DataFrame, first: pl.DataFrame, start: datetime) -> pl.Series:
    """Return when each title could first be watched: its release or first event, else the start of the log."""
    rows = titles.join(first, on="title_id", how="left", maintain_order="left")
    known = [name for name in ("first_event", "release_date") if name in rows.columns]
    moments = rows.select(pl.min_horizontal(known).fill_null(utc_literal(start)).alias("launch"))
    return moments.get_column("launch")


def _dated_titles(titles: pl.DataFrame, launches: pl.Series, start: datetime) -> pl.DataFrame:
    known = pl.min_horizontal(launches, utc_literal(start))
    missing = [name for name in ("valid_from", "recorded_at") if name not in titles.columns]
    return titles.with_columns(known.alias(name) for name in missing)


def _dated_availability(spans: pl.DataFrame, start: datetime) -> pl.DataFrame:
    if "recorded_at" in spans.columns:
        return spans
    return spans.with_columns(recorded_at=pl.min_horizontal("available_from", utc_literal(start)))


def _everywhere(titles: pl.DataFrame, launches: pl.Series) -> pl.DataFrame:
    return titles.select("title_id").with_columns(country=pl.lit("*"), available_from=launches)


def _dated_members(members: pl.DataFrame, seen: _Seen, start: datetime) -> pl.DataFrame:
    first = seen.of("member_id")
    strangers = first.join(members, on="member_id", how="anti").sort("member_id")
    strangers = strangers.select("member_id", *(pl.col("first_event").alias(name) for name in _MEMBER_DATES))
    known = seen.profiled(members).join(first, on="member_id", how="left", maintain_order="left")
    joined = pl.col("first_event").fill_null(utc_literal(start))
    missing = [name for name in _MEMBER_DATES if name not in members.columns]
    dated = known.with_columns(joined.alias(name) for name in missing).drop("first_event")
    return pl.concat([dated, seen.profiled(strangers)], how="diagonal_relaxed")
