"""Rows that arrive later: appended to the tables as they are, however often they are sent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from playbill.clock import Clock, WallClock
from playbill.config import Workspace
from playbill.errors import UnknownNameError
from playbill.schema import INTERACTIONS, TABLES
from playbill.sources.pushed_rows import EVENTS, VERSIONED, KnowledgeBounds, Offered, check_offered, read_pushed
from playbill.sources.ratings import continued
from playbill.tables import TIMESTAMP, Tables, empty_frame, example_row, polars_schema, workspace_clock
from playbill.tables.appending import KNOWN_LATER, SortedOut, refuse_changed_types, sort_out
from playbill.tables.frames import aligned, columns_of
from playbill.tables.journal import PendingEvents, RejectedEvent
from playbill.tables.ordering import with_seq
from playbill.tables.validation import ProblemLog

PUSHABLE = ("titles", "availability", "members", "interactions")
FILLED = ("seq", "recorded_at", "country")
"""Columns of events that are filled in where they are null."""

_SAMPLES = 5


@dataclass(frozen=True)
class PushReport:
    """What became of a push."""

    workspace: str
    """Name of the workspace."""
    rows: dict[str, int]
    """Table -> rows added."""
    duplicates: dict[str, int]
    """Table -> rows that were there already."""
    conflicting: dict[str, int]
    """Table -> rows whose key was there with other content; what was there first stays."""
    late: int
    """Events added that happened before the newest one stored."""
    journalled: int
    """Events added that wait in the journal."""
    compacted: int
    """Events moved into the day partitions, those of earlier pushes too."""
    conflicts: tuple[str, ...] = field(repr=False)
    """Some of the conflicting rows, in words."""
    seconds: float
    """How long it took."""
    set_aside: tuple[str, ...] = ()
    """Events of the journal that the tables cannot hold, with the reason; see `Journal.waiting`."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything ready for JSON; the numbers of events are at the top level too."""
        return {
            "workspace": self.workspace,
            "accepted": self.rows.get(EVENTS, 0),
            "rows": self.rows,
            "duplicates": self.duplicates,
            "conflicting": self.conflicting,
            "late": self.late,
            "journalled": self.journalled,
            "compacted": self.compacted,
            "set_aside": len(self.set_aside),
            "set_aside_events": list(self.set_aside),
            "conflicts": list(self.conflicts),
            "seconds": round(self.seconds, 3),
        }


def push_events(
    workspace: Workspace, frame: pl.DataFrame, *, compact: bool = False, clock: Clock | None = None
) -> PushReport:
    """Append events; all are durable when this returns. Pushing them again, even from another process, changes nothing.

    Args:
        workspace: Whose log.
        frame: Canonical interactions; columns that may be null can be left out, and so can `seq`, `recorded_at` (the
            event becomes known now) and `country` (the member's). The source's own columns have a namespace.
        compact: Write them, and what waits in the journal, into the day partitions. Without it they go to the
            journal, where every reader that asks for live events finds them at once.
        clock: Events after it are refused, and it stamps `recorded_at`. The workspace's, where that is the wall's
            or fixed. A clock that stands at the end of the data moves on with it, so only the wall's can refuse.

    Raises:
        DataError: Any row is wrong; all mistakes are named and nothing is written.
        StateError: Nothing has been ingested yet, or another process is writing the tables.
        ServiceError: The database does not answer, or the disk is full. What was there is as it was.
    """
    return push_rows(workspace, {EVENTS: Offered(frame)}, compact=compact, clock=clock)


def push_rows(
    workspace: Workspace,
    offered: Mapping[str, Offered],
    *,
    compact: bool = False,
    clock: Clock | None = None,
    problems: ProblemLog | None = None,
) -> PushReport:
    """Append events, and titles, members and availability with them. See `push_events`.

    New rows of titles and members are new versions (`valid_from`, now where it is left out); a row that says what
    the newest version says changes nothing. Columns left out are taken over from it. A new title without
    availability can be watched everywhere from its release, or from now on. Mistakes found while the rows were read
    (`problems`) are reported with all others.
    """
    started = time.perf_counter()
    if strangers := [name for name in offered if name not in PUSHABLE]:
        raise UnknownNameError("table", strangers[0], PUSHABLE)
    tables = Tables(workspace).require()
    moments = _moments(workspace, clock)
    if EVENTS in offered and offered[EVENTS].rated:
        offered = {**offered, EVENTS: _after_the_log(tables, offered[EVENTS])}
    rows = check_offered(tables, offered, moments, problems or ProblemLog())
    profiles = {table: frame for table, frame in rows.items() if table != EVENTS}
    if "titles" in profiles:
        profiles["availability"] = _with_launches(tables, profiles)
    found = {table: _changes(tables, table, frame, offered) for table, frame in profiles.items()}
    events = rows.get(EVENTS, empty_frame(EVENTS))
    given = offered[EVENTS].frame if EVENTS in offered else events
    found[EVENTS] = _new_events(tables, events, given)
    end = tables.data_end()
    written = _write(tables, {table: sorted_out.fresh for table, sorted_out in found.items()}, compact)
    return PushReport(
        workspace=workspace.name,
        rows={table: sorted_out.fresh.height for table, sorted_out in found.items()},
        duplicates={table: sorted_out.duplicates for table, sorted_out in found.items()},
        conflicting={table: sorted_out.conflicting.height for table, sorted_out in found.items()},
        late=found[EVENTS].fresh.filter(pl.col("event_at") < end).height,
        journalled=written.journalled,
        compacted=written.compacted,
        set_aside=tuple(f"{event.event_id}: {event.reason}" for event in written.rejected),
        conflicts=tuple(_conflicts(found)),
        seconds=time.perf_counter() - started,
    )


def push_files(
    workspace: Workspace,
    files: Mapping[str, Path | BinaryIO],
    *,
    mapping: Path | None = None,
    compact: bool = False,
    clock: Clock | None = None,
) -> PushReport:
    """Append the rows of files, or of streams of ndjson. See `push_rows`; mistakes are named with their lines.

    Raises:
        DefinitionError: The `mapping` of file columns to canonical ones has mistakes.
    """
    problems = ProblemLog()
    offered = read_pushed(files, mapping, problems)
    return push_rows(workspace, offered, compact=compact, clock=clock, problems=problems)


def _moments(workspace: Workspace, clock: Clock | None) -> KnowledgeBounds:
    if clock is None and workspace.clock_setting == "data_end":
        return KnowledgeBounds(Tables(workspace).data_end(), WallClock().now())
    now = (clock or workspace_clock(workspace)).now()
    return KnowledgeBounds(now, now)


def _after_the_log(tables: Tables, rated: Offered) -> Offered:
    """Number ratings after those of their members in the log and in the journal."""
    members = rated.frame.get_column("member_id").drop_nulls().unique()
    columns = ["event_id", "member_id", "title_id", "event_at", "action"]
    stored = tables.published().log(None, None, members.to_list()).select(columns).collect()
    log = pl.concat([stored, tables.journal.of_members(members).select(columns)]).unique("event_id")
    return replace(rated, frame=continued(rated.frame, log))


def _new_events(tables: Tables, events: pl.DataFrame, given: pl.DataFrame) -> SortedOut:
    """Tell new events from old ones; `seq` is null where the sender gave none."""
    if events.is_empty():
        return SortedOut(events, 0, events)
    refuse_changed_types(EVENTS, columns_of(dict(tables.published().log_schema)), events)
    ids = events.get_column("event_id")
    stored = aligned(tables.published().events_with_ids(ids), events.schema)
    live = aligned(tables.journal.with_ids(ids), events.schema)
    stored = pl.concat([stored, live.join(stored, on="event_id", how="anti")])
    filled = [name for name in given.columns if not (name in FILLED and given.get_column(name).null_count())]
    # The tables may have moved an event's number: see `with_own_seq`.
    ignored = [*KNOWN_LATER, "seq", *(name for name in events.columns if name not in filled)]
    found = sort_out(events, stored, INTERACTIONS.key, ignored)
    return SortedOut(_with_given_seq(found.fresh, given), found.duplicates, found.conflicting)


def _with_given_seq(fresh: pl.DataFrame, given: pl.DataFrame) -> pl.DataFrame:
    if "seq" not in given.columns:
        return fresh.with_columns(seq=pl.lit(None, dtype=pl.Int64))
    if not given.get_column("seq").null_count():
        return fresh
    own = given.select("event_id", pl.col("seq").cast(pl.Int64)).unique("event_id", keep="first")
    return fresh.drop("seq").join(own, on="event_id", how="left", maintain_order="left").select(fresh.columns)


def _changes(tables: Tables, table: str, rows: pl.DataFrame, offered: Mapping[str, Offered]) -> SortedOut:
    """Tell new rows from those that say what is there; without `valid_from`, what the newest version says."""
    published = tables.published()
    refuse_changed_types(table, columns_of(dict(published.table(table).collect_schema())), rows)
    dated = table in offered and "valid_from" in offered[table].frame.columns
    if table not in VERSIONED or dated:
        stored = aligned(published.table(table).collect(), rows.schema)
        return sort_out(rows, stored, TABLES[table].key, KNOWN_LATER)
    newest = aligned(published.newest(table, None).collect(), rows.schema)
    identity = TABLES[table].key[:1]
    same = sort_out(rows, newest, identity, ("valid_from", *KNOWN_LATER))
    changed = pl.concat([same.fresh, same.conflicting.join(same.fresh, on=identity, how="anti")])
    repeated = same.conflicting.join(same.fresh, on=identity, how="semi")
    found = sort_out(changed, aligned(published.table(table).collect(), rows.schema), TABLES[table].key, KNOWN_LATER)
    return SortedOut(found.fresh, same.duplicates + found.duplicates, pl.concat([found.conflicting, repeated]))


def _with_launches(tables: Tables, profiles: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Add a span everywhere for new titles without one: from the release, else from when they are valid."""
    spans = profiles.get("availability", empty_frame("availability"))
    known = [frame.select("title_id") for frame in (tables.titles(), spans)]
    bare = profiles["titles"].sort("valid_from").unique("title_id", keep="first", maintain_order=True)
    bare = bare.join(pl.concat(known), on="title_id", how="anti", maintain_order="left")
    launches = bare.select(
        "title_id",
        country=pl.lit("*"),
        available_from=pl.coalesce("release_date", "valid_from"),
        available_until=pl.lit(None, dtype=TIMESTAMP),
        recorded_at="recorded_at",
    )
    return pl.concat([spans, launches])


@dataclass(frozen=True, slots=True)
class _Written:
    """How many events wait in the journal and went into the partitions, and which were set aside."""

    journalled: int = 0
    compacted: int = 0
    rejected: tuple[RejectedEvent, ...] = ()


def _write(tables: Tables, fresh: Mapping[str, pl.DataFrame], compact: bool) -> _Written:
    events = fresh[EVENTS]
    members = events.get_column("member_id").unique()
    stored = tables.published().places(members)
    profiles = {table: frame for table, frame in fresh.items() if table != EVENTS and frame.height}
    own_columns = len(events.columns) > len(polars_schema(EVENTS))
    if compact or (own_columns and events.height):
        waiting = tables.journal.waiting() if compact else PendingEvents(empty_frame(EVENTS), ())
        live = tables.journal.of_members(members).select(stored.columns)
        placed = with_seq(events, pl.concat([stored, live]))
        together = pl.concat([waiting.events, placed], how="diagonal")
        added = tables.append({**profiles, EVENTS: together})
        tables.journal.forget(waiting.events.get_column("event_id"))
        return _Written(compacted=added[EVENTS].added, rejected=waiting.rejected)
    if profiles:
        tables.append(profiles)
    return _Written(journalled=tables.journal.append_frame(events, stored).accepted)


def _conflicts(found: Mapping[str, SortedOut]) -> list[str]:
    samples = []
    for table, rows in found.items():
        key = TABLES[table].key
        for place in range(min(_SAMPLES, rows.conflicting.height)):
            row = rows.conflicting.slice(place, 1)
            samples.append(f"{table} {example_row(row.select(*key, pl.exclude(key)))}")
    return samples
