"""`Tables`: reading the canonical tables of a workspace, and replacing them as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from playbill.clock import Clock, WallClock
from playbill.config import Workspace
from playbill.errors import StateError
from playbill.schema import TABLES
from playbill.tables.event_log import (
    append_log,
    bucket_files,
    bucket_of,
    bucket_path,
    day_files,
    days_between,
)
from playbill.tables.frames import TIMESTAMP, empty_frame
from playbill.tables.generations import INTERACTIONS, Generations, Manifest, file_digest, link_file
from playbill.tables.journal import Journal
from playbill.tables.vocabulary import Vocabulary, VocabularyFolder
from playbill.tables.writer import TableWriter, manifest_of, vocabulary_values

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=8)
def _manifest(generation: Path) -> Manifest:
    # Generations are immutable once published, so their manifests can be kept.
    return Manifest.load(generation)


class Tables:
    """The canonical tables of a workspace. Every read sees one published state, never a write in progress.

    Args:
        workspace: Whose tables. Nothing is read or made until a method is called.
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
        """Return the newest row of every title, sorted by title_id.

        Args:
            as_of: Only rows valid and recorded at this moment.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        return self._newest("titles", as_of)

    def members(self, as_of: datetime | None = None) -> pl.DataFrame:
        """Return the newest row of every member, sorted by member_id, with the source's own columns.

        Args:
            as_of: Only rows valid and recorded at this moment.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        return self._newest("members", as_of)

    def title_versions(self) -> pl.DataFrame:
        """Return every row of every title, sorted by title_id, valid_from and recorded_at.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        return self._versions("titles").collect()

    def member_versions(self) -> pl.DataFrame:
        """Return every row of every member, sorted by member_id, valid_from and recorded_at.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        return self._versions("members").collect()

    def availability(self) -> pl.DataFrame:
        """Return every span in which a title can be watched, sorted by title_id and country.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        return pl.read_parquet(self._current() / "availability.parquet")

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

        Raises:
            StateError: Nothing has been ingested yet.
        """
        if not include_journal:
            return self._read_log(since, until, members, columns)
        live = _filtered(self.journal.read(since=since).lazy(), since, until, members).collect()
        log = _merged(self._read_log(since, until, members), live)
        return log if columns is None else log.select(columns)

    def log_parts(self) -> dict[str, str]:
        """Return the files of the event log with their digests: what a later state has beyond this is new.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        files = _manifest(self._current()).files
        return {path: digest for path, digest in files.items() if path.startswith(f"{INTERACTIONS}/")}

    def read_log_parts(self, parts: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
        """Return some columns of some files of `log_parts`, sorted by member_id and seq.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        generation = self._current()
        if not parts:
            return empty_frame(INTERACTIONS).select(columns)
        rows = pl.scan_parquet([generation / part for part in parts], hive_partitioning=False)
        return rows.sort("member_id", "seq").select(columns).collect()

    def member_events(self, member_id: str, *, include_journal: bool = True) -> pl.DataFrame:
        """Return one member's whole history, sorted by seq; empty for a member never seen.

        Reads a few row groups of one file, some milliseconds whatever the size of the log.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        generation = self._current()
        path = bucket_path(generation, bucket_of(_manifest(generation).bucket_starts, member_id))
        log = pl.scan_parquet(path).filter(pl.col("member_id") == member_id).collect()
        return _merged(log, self.journal.read(member_id)) if include_journal else log

    def data_end(self) -> datetime:
        """Return the moment one second after the last ingested or compacted event.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        last = _manifest(self._current()).last_event_us
        return _EPOCH + timedelta(microseconds=last, seconds=1)

    def snapshot_id(self) -> str:
        """Return a hash of the content of the tables. The journal is not part of it.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        return _manifest(self._current()).snapshot_id

    def row_counts(self) -> dict[str, int]:
        """Return the number of rows by table.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        return dict(_manifest(self._current()).rows)

    def vocabulary(self, kind: str) -> Vocabulary:
        """Return a vocabulary: title, member, country, genre, language, action, canvas, device and more.

        It holds everything ever ingested or compacted into this workspace, in the order first seen.
        """
        return self._vocabularies.load(kind)

    @contextmanager
    def replace(self, clock: Clock | None = None) -> Iterator[TableWriter]:
        """Lend a writer; at the end of the block everything is checked, then published in one rename.

        An error in the block, a mistake in the data, or a kill at any moment leaves the tables as they were.

        Args:
            clock: Event times after it are mistakes (default: the wall clock).

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

        Args:
            clock: Event times after it are mistakes (default: the wall clock).

        Raises:
            DataError: Anything written was wrong; every mistake is named.
        """
        with TemporaryDirectory(prefix="playbill-") as building:
            writer = TableWriter(Path(building), (clock or WallClock()).now())
            yield writer
            writer.check()

    def append_events(self, events: pl.DataFrame) -> int:
        """Add canonical, checked events to the log; those whose event_id is there already are left out.

        Events go through `Journal`, which checks them and calls this to compact itself.

        Returns:
            How many events were new.

        Raises:
            StateError: Nothing has been ingested yet, or another process is writing the tables.
        """
        self.require()
        with self._generations.writing() as building:
            generation = self._current()
            manifest = _manifest(generation)
            fresh = _unknown_events(generation, manifest, events)
            if fresh.is_empty():
                return 0
            for relative in manifest.files:
                link_file(generation / relative, building / relative)
            summary, added = append_log(generation, manifest, fresh, building)
            files = {**manifest.files, **{path.as_posix(): file_digest(building / path) for path in added}}
            rows = {name: count for name, count in manifest.rows.items() if name != INTERACTIONS}
            for kind, values in vocabulary_values(INTERACTIONS, fresh).items():
                self._vocabularies.grow(kind, values)
            manifest_of(files, rows, summary).save(building)
            self._generations.publish(building)
        return fresh.height

    def _current(self) -> Path:
        generation = self._generations.current()
        if generation is None:
            raise StateError(
                f"workspace '{self.workspace.name}' has no data. "
                f"Run `playbill -w {self.workspace.name} ingest movielens_100k` or another source first."
            )
        return generation

    def _versions(self, table: str) -> pl.LazyFrame:
        rows = pl.scan_parquet(self._current() / f"{table}.parquet")
        return rows.sort(TABLES[table].key[0], "valid_from", "recorded_at", maintain_order=True)

    def _newest(self, table: str, as_of: datetime | None) -> pl.DataFrame:
        rows = self._versions(table)
        if as_of is not None:
            moment = pl.lit(as_of, dtype=TIMESTAMP)
            rows = rows.filter((pl.col("valid_from") <= moment) & (pl.col("recorded_at") <= moment))
        return rows.unique(TABLES[table].key[0], keep="last", maintain_order=True).collect()

    def _read_log(
        self,
        since: datetime | None,
        until: datetime | None,
        members: Sequence[str] | None,
        columns: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        generation = self._current()
        manifest = _manifest(generation)
        days = days_between(list(manifest.days), since, until)
        rows_in_days = sum(manifest.days[day] for day in days)
        # Sorting a short span is cheaper than decoding every member's history to find it.
        by_day = members is None and rows_in_days < manifest.rows[INTERACTIONS] / 2
        files = day_files(generation, days) if by_day else bucket_files(generation, manifest.bucket_starts, members)
        if not files or not days:
            return empty_frame(INTERACTIONS).select(columns or pl.all())
        rows = _filtered(pl.scan_parquet(files), since, until, members)
        return (rows.sort("member_id", "seq") if by_day else rows).select(columns or pl.all()).collect()


def _filtered(
    rows: pl.LazyFrame, since: datetime | None, until: datetime | None, members: Sequence[str] | None
) -> pl.LazyFrame:
    if since is not None:
        rows = rows.filter(pl.col("event_at") >= pl.lit(since, dtype=TIMESTAMP))
    if until is not None:
        rows = rows.filter(pl.col("event_at") < pl.lit(until, dtype=TIMESTAMP))
    if members is not None:
        rows = rows.filter(pl.col("member_id").is_in(list(members)))
    return rows


def _merged(log: pl.DataFrame, live: pl.DataFrame) -> pl.DataFrame:
    if live.is_empty():
        return log
    # A compaction killed halfway leaves events in both; they are one event.
    fresh = live.join(log.select("event_id"), on="event_id", how="anti")
    return pl.concat([log, fresh]).sort("member_id", "seq", maintain_order=True)


def _unknown_events(generation: Path, manifest: Manifest, events: pl.DataFrame) -> pl.DataFrame:
    touched = events.get_column("event_at").dt.date().cast(pl.String).unique().to_list()
    files = day_files(generation, [day for day in touched if day in manifest.days])
    if not files:
        return events
    known = pl.scan_parquet(files).select("event_id").collect()
    return events.join(known, on="event_id", how="anti")
