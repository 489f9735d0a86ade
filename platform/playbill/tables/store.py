"""The canonical tables of a workspace: read, appended to, and replaced as a whole; and its clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from playbill.clock import Clock, FixedClock, WallClock
from playbill.config import Workspace
from playbill.errors import StateError
from playbill.tables.appending import Added, build_appended, canonical_events, checked_rows, new_rows, with_own_seq
from playbill.tables.event_log import ORDER
from playbill.tables.generations import INTERACTIONS, Generations
from playbill.tables.journal import Journal
from playbill.tables.published import Published, filtered, open_generation
from playbill.tables.vocabulary import Vocabulary, VocabularyFolder
from playbill.tables.writer import TableWriter


class Tables:
    """The canonical tables of a workspace. Every read sees one published state, never a write in progress.

    Nothing is read or made until a method is called. A method that reads raises StateError before the first ingest.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._generations = Generations(workspace.tables)
        self._vocabularies = VocabularyFolder(workspace.vocabularies)

    @cached_property
    def journal(self) -> Journal:
        """The workspace's event journal."""
        return Journal(self.workspace.database_url)

    def exists(self) -> bool:
        """Say whether something has been ingested."""
        return self._generations.current() is not None

    def require(self) -> Tables:
        """Return these tables, which must hold something.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        self._current()
        return self

    def titles(self, as_of: datetime | None = None) -> pl.DataFrame:
        """Return the newest row of every title, of those valid and recorded at `as_of`, sorted by title_id."""
        return self.published().newest("titles", as_of).collect()

    def members(self, as_of: datetime | None = None) -> pl.DataFrame:
        """Return members likewise, sorted by member_id, with the source's own columns."""
        return self.published().newest("members", as_of).collect()

    def title_versions(self) -> pl.DataFrame:
        """Return every row of every title, sorted by title_id, valid_from and recorded_at."""
        return self.published().versions("titles").collect()

    def member_versions(self) -> pl.DataFrame:
        """Return every row of every member, sorted by member_id, valid_from and recorded_at."""
        return self.published().versions("members").collect()

    def availability(self) -> pl.DataFrame:
        """Return every span in which a title can be watched, sorted by title_id and country."""
        return self.published().table("availability").collect()

    def interactions(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        members: Sequence[str] | None = None,
        include_journal: bool = False,
        columns: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """Return the event log, sorted by member_id and seq. Only the files that can match are read.

        Args:
            since: First moment, inclusive.
            until: Last moment, exclusive.
            members: Only these members.
            include_journal: Also events that are still in the journal.
            columns: Only these columns, in this order; a long log then takes a fraction of the memory.
        """
        log = self.published().log(since, until, members)
        if not include_journal:
            return log.select(columns or pl.all()).collect()
        live = filtered(self.journal.read(since=since).lazy(), since, until, members).collect()
        return _merged(log.collect(), live).select(columns or pl.all())

    def member_ranges(self, events: int) -> list[tuple[str, str]]:
        """Return ranges of members, by the first and the last, of about `events` events, at most a million, each."""
        return self.published().member_ranges(events)

    def interactions_of(self, members: tuple[str, str], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the events of one of `member_ranges`, sorted by member_id and seq; the journal's are not among them.

        Takes the memory of those events, whatever the size of the log.
        """
        return self.published().between(*members).select(columns or pl.all()).collect()

    def event_count(self) -> int:
        """Return the number of events in the log."""
        return self.published().manifest.rows[INTERACTIONS]

    def log_parts(self) -> dict[str, str]:
        """Return the files of the event log with their digests: what a later state has beyond this is new."""
        return self.published().log_parts()

    def read_log_parts(self, parts: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
        """Return some columns of some files of `log_parts`, sorted by member_id and seq."""
        return self.published().parts(parts).select(columns).collect()

    def member_events(self, member_id: str, *, include_journal: bool = True) -> pl.DataFrame:
        """Return one member's whole history, sorted by seq; empty for a member never seen.

        Reads a few row groups of one file, some milliseconds whatever the size of the log, once: they stay in memory.
        """
        log = self.published().of_member(member_id)
        return _merged(log, self.journal.read(member_id)) if include_journal else log

    def data_end(self) -> datetime:
        """Return the moment one second after the last ingested or compacted event."""
        return self.published().data_end

    def snapshot_id(self) -> str:
        """Return a hash of the content of the tables. The journal is not part of it."""
        return self.published().manifest.snapshot_id

    def digest(self, table: str) -> str:
        """Return a hash of the content of one of titles, availability and members."""
        return self.published().manifest.files[f"{table}.parquet"]

    def row_counts(self) -> dict[str, int]:
        """Return the number of rows by table."""
        return dict(self.published().manifest.rows)

    def vocabulary(self, kind: str) -> Vocabulary:
        """Return a vocabulary: title, member, country, genre, language, action, canvas, device and more.

        It holds everything ever ingested or compacted into this workspace, in the order first seen.
        """
        return self._vocabularies.load(kind)

    @contextmanager
    def replace(self, clock: Clock | None = None) -> Iterator[TableWriter]:
        """Lend a writer; at the end of the block everything is checked, then published in one rename.

        An error in the block, a mistake in the data, or a kill at any moment leaves the tables as they were. Event
        times after the clock (default: the wall's) are mistakes.

        Raises:
            DataError: Anything written was wrong; every mistake is named.
            StateError: Another process is writing the tables.
        """
        with self._generations.writing() as building:
            writer = TableWriter(building, (clock or WallClock()).now())
            yield writer
            writer.finish(self._vocabularies).save(building)
            self._generations.publish(building)

    @contextmanager
    def rehearse(self, clock: Clock | None = None) -> Iterator[TableWriter]:
        """Lend a writer that checks everything `replace` would and then throws the rows away: a dry run.

        Raises:
            DataError: Anything written was wrong; every mistake is named.
        """
        with TemporaryDirectory(prefix="playbill-") as building:
            writer = TableWriter(Path(building), (clock or WallClock()).now())
            yield writer
            writer.check()

    def append_events(self, events: pl.DataFrame) -> int:
        """Add canonical, checked events to the log, without those there already; return how many were new.

        Live events go through `Journal`, which checks them and calls this to compact itself; files of events go through
        `playbill.sources.push_events`. Errors are those of `append`.
        """
        return self.append({INTERACTIONS: canonical_events(events)})[INTERACTIONS].added

    def append_rows(self, table: str, frame: pl.DataFrame, clock: Clock | None = None) -> Added:
        """Add rows to titles, members or availability: new ones, and new versions of old ones (`valid_from`).

        A row that is there already is left out; one whose key is there with other content is left out too, and counted.
        Columns that may be null can be left out, and columns of a new kind are null in older rows. Moments after the
        clock (default: the wall's) are mistakes.

        Raises:
            DataError: Rows are not canonical, or speak of titles that are not there. Other errors are as in `append`.
        """
        rows = checked_rows(self.published(), table, frame, (clock or WallClock()).now())
        return self.append({table: rows})[table]

    def append(self, offered: Mapping[str, pl.DataFrame]) -> dict[str, Added]:
        """Add canonical rows, checked already, of several tables as one: readers see all of it or nothing.

        Raises:
            DataError: A column comes with another type than it is stored with.
            StateError: Nothing has been ingested yet, or another process is writing the tables.
            ServiceError: The disk is full or cannot be written. Nothing was changed.
        """
        self.require()
        with self._generations.writing() as building:
            published = self.published()
            found = {table: new_rows(published, table, rows) for table, rows in offered.items()}
            fresh = {table: rows.fresh for table, rows in found.items() if rows.fresh.height}
            if INTERACTIONS in fresh:
                fresh[INTERACTIONS] = with_own_seq(published, fresh[INTERACTIONS])
            if fresh:
                build_appended(published, fresh, building, self._vocabularies).save(building)
                self._generations.publish(building)
        return {table: Added(rows.fresh.height, rows.duplicates, rows.conflicting) for table, rows in found.items()}

    def published(self) -> Published:
        """Return the published generation: one state of the tables, whatever is written meanwhile.

        Raises:
            IntegrityError: It cannot be read.
        """
        return open_generation(self._current())

    def _current(self) -> Path:
        generation = self._generations.current()
        if generation is None:
            raise StateError(
                f"workspace '{self.workspace.name}' has no data. "
                f"Run `playbill -w {self.workspace.name} ingest movielens_100k` or another source first."
            )
        return generation


def _merged(log: pl.DataFrame, live: pl.DataFrame) -> pl.DataFrame:
    if live.is_empty():
        return log
    # A compaction killed halfway leaves events in both; they are one event.
    fresh = live.join(log.select("event_id"), on="event_id", how="anti")
    return pl.concat([log, fresh], how="diagonal").sort(ORDER, maintain_order=True)


def workspace_clock(workspace: Workspace) -> Clock:
    """Return the workspace's clock: the wall's, a fixed one, or one standing at the end of the data.

    Raises:
        StateError: The clock is `data_end` and nothing has been ingested yet.
    """
    setting = workspace.clock_setting
    if isinstance(setting, datetime):
        return FixedClock(setting)
    return WallClock() if setting == "wall" else FixedClock(Tables(workspace).data_end())
