"""Reading one published generation of the tables, which never changes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from pathlib import Path
from threading import Lock

import polars as pl
from cachetools import LRUCache

from playbill.clock import from_microseconds
from playbill.errors import IntegrityError
from playbill.files import content_digest
from playbill.schema import TABLES
from playbill.tables.event_log import ORDER, bucket_files, bucket_of, bucket_paths, day_files, days_between
from playbill.tables.frames import columns_of, log_schema, scan_files, scan_table, utc_literal
from playbill.tables.generations import INTERACTIONS, MANIFEST, GenerationManifest

PAGE_ROWS = 8_192  # as many as a row group of `by_member`, so that one page is one read
PAGE_BYTES = 128 * 2**20  # memory of this process for pages that may be asked for again


class MemberPage:
    """Rows of a file by members: what each member has there.

    Args:
        rows: With `member_id`, each member's together.
    """

    def __init__(self, rows: pl.DataFrame) -> None:
        self.rows, self.nbytes = rows, int(rows.estimated_size())
        runs = rows.get_column("member_id").rle().struct.unnest()
        lengths = runs.get_column("len").to_list()
        places = zip(accumulate(lengths, initial=0), lengths, strict=False)
        self._places = dict(zip(runs.get_column("value").to_list(), places, strict=False))

    def of(self, member_id: str) -> pl.DataFrame | None:
        """Return a member's rows, None where they have none here."""
        place = self._places.get(member_id)
        return None if place is None else self.rows.slice(*place)


class MemberPages:
    """Parts of files, those asked for last (in bytes). Safe to share between threads."""

    def __init__(self, most: int = PAGE_BYTES) -> None:
        self._kept: LRUCache[object, MemberPage] = LRUCache(most, getsizeof=lambda page: page.nbytes)
        self._lock = Lock()

    def page(self, key: object, read: Callable[[], pl.DataFrame]) -> MemberPage:
        """Return the page of a key, read where it is not in memory."""
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            found = MemberPage(read())
            with self._lock:
                if found.nbytes <= self._kept.maxsize:
                    self._kept[key] = found
        return found


member_pages = MemberPages()
"""Those of every workspace of this process."""


class Published:
    """One generation.

    Raises:
        IntegrityError: Its manifest is damaged, or its log cannot be read by this version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = GenerationManifest.load(folder)
        self.log_schema = log_schema(INTERACTIONS, self.manifest.columns or self._columns_of_a_file(), folder)
        self._buckets = lru_cache(maxsize=None)(lambda number: bucket_paths(folder, number))
        self._page_starts = lru_cache(maxsize=None)(self._first_members)

    @property
    def data_end(self) -> datetime:
        """The moment one second after the last event."""
        return from_microseconds(self.manifest.last_event_us) + timedelta(seconds=1)

    def log_parts(self) -> dict[str, str]:
        """Return the log's files by day, with their digests."""
        return {path: digest for path, digest in self.manifest.files.items() if path.startswith(f"{INTERACTIONS}/")}

    def table(self, name: str) -> pl.LazyFrame:
        """Return titles, members or availability as stored, with the source's own columns."""
        path = self.folder / f"{name}.parquet"
        self.require_sound([path])
        return scan_table(name, path)

    def versions(self, table: str) -> pl.LazyFrame:
        """Return every row of titles or members in the order of id, validity and knowledge."""
        rows = self.table(table)
        return rows.sort(TABLES[table].key[0], "valid_from", "recorded_at", maintain_order=True)

    def newest(self, table: str, as_of: datetime | None) -> pl.LazyFrame:
        """Return the newest row of every title or member, of those valid and recorded at a moment."""
        rows = self.versions(table)
        if as_of is not None:
            moment = utc_literal(as_of)
            rows = rows.filter((pl.col("valid_from") <= moment) & (pl.col("recorded_at") <= moment))
        return rows.unique(TABLES[table].key[0], keep="last", maintain_order=True)

    def log(self, since: datetime | None, until: datetime | None, members: Sequence[str] | None) -> pl.LazyFrame:
        """Return events in the log's order; only the files that can match are opened."""
        days = days_between(list(self.manifest.days), since, until)
        rows_in_days = sum(self.manifest.days[day] for day in days)
        if not days:
            return self.log_schema.to_frame().lazy()
        # Sorting a short span is cheaper than decoding every member's history to find it.
        if members is None and rows_in_days < self.manifest.rows[INTERACTIONS] / 2:
            rows = filtered(self._scan(day_files(self.folder, days)), since, until, members)
            return rows.sort(ORDER, maintain_order=True)
        buckets = bucket_files(self.folder, self.manifest.bucket_starts, members)
        parts = [filtered(self._scan(paths), since, until, members) for paths in buckets]
        # One file is in order; what was added to it is in files of its own.
        ordered = [
            part if len(paths) == 1 else part.sort(ORDER, maintain_order=True)
            for part, paths in zip(parts, buckets, strict=True)
        ]
        return pl.concat(ordered) if ordered else self.log_schema.to_frame().lazy()

    def of_member(self, member_id: str) -> pl.DataFrame:
        """Return one member's events in the log's order; the pages that they are on stay in memory."""
        if not self.manifest.bucket_starts:
            return self.log_schema.to_frame()
        paths = self._buckets(bucket_of(self.manifest.bucket_starts, member_id))
        self.require_sound(paths)
        parts = [part for path in paths for part in self._on_pages(path, member_id)]
        rows = parts[0] if len(parts) == 1 else pl.concat([self.log_schema.to_frame(), *parts])
        return rows if len(paths) == 1 else rows.sort(ORDER, maintain_order=True)

    def _on_pages(self, path: Path, member_id: str) -> list[pl.DataFrame]:
        """Return a member's events on each page of a file that has any."""
        digest, starts, parts = content_digest(path), self._page_starts(path), []
        # The page before the first one that begins with the member may end with events of theirs.
        for number in range(max(bisect_left(starts, member_id) - 1, 0), bisect_right(starts, member_id)):
            page = member_pages.page((digest, self._schema_text, number), partial(self._page, path, number))
            if (rows := page.of(member_id)) is not None:
                parts.append(rows)
        return parts

    def _page(self, path: Path, number: int) -> pl.DataFrame:
        return self._scan([path]).slice(number * PAGE_ROWS, PAGE_ROWS).collect()

    def _first_members(self, path: Path) -> list[str]:
        members = self._scan([path]).select("member_id").gather_every(PAGE_ROWS).collect()
        return members.get_column("member_id").to_list()

    @cached_property
    def _schema_text(self) -> str:
        return str(self.log_schema)

    def member_ranges(self, events: int) -> list[tuple[str, str]]:
        """Return the first and the last member of ranges of about `events` events, in the log's order.

        A range is within a file by members, and each member in one range: it has more events than that by a member's
        at most.
        """
        found = []
        for number in range(len(self.manifest.bucket_starts)):
            members = self._scan(bucket_paths(self.folder, number)).select("member_id")
            counts = members.group_by("member_id").len().sort("member_id").collect(engine="streaming")
            numbered = counts.select("member_id", number=(pl.col("len").cum_sum().cast(pl.Int64) - 1) // events)
            edges = numbered.group_by("number").agg(first=pl.col("member_id").first(), last=pl.col("member_id").last())
            found += edges.sort("number").select("first", "last").rows()
        return found

    def between(self, first: str, last: str) -> pl.LazyFrame:
        """Return the events of one of `member_ranges` in the log's order."""
        paths = bucket_paths(self.folder, bucket_of(self.manifest.bucket_starts, first))
        rows = self._scan(paths).filter(pl.col("member_id").is_between(pl.lit(first), pl.lit(last)))
        return rows if len(paths) == 1 else rows.sort(ORDER, maintain_order=True)

    def parts(self, relative: Sequence[str]) -> pl.LazyFrame:
        """Return the events of some of `log_parts` in the log's order."""
        return self._scan([self.folder / path for path in relative]).sort(ORDER, maintain_order=True)

    def places(self, member_ids: pl.Series) -> pl.DataFrame:
        """Return member_id, event_at and seq of every event of some members, unsorted."""
        files = [path for paths in bucket_files(self.folder, self.manifest.bucket_starts, None) for path in paths]
        wanted = member_ids.unique().to_frame("member_id").lazy()
        rows = self._scan(files).select("member_id", "event_at", "seq")
        return rows.join(wanted, on="member_id", how="semi").collect(engine="streaming")

    def events_with_ids(self, event_ids: pl.Series) -> pl.DataFrame:
        """Return the events that have one of some ids."""
        log = self._scan(day_files(self.folder, list(self.manifest.days)))
        # Reading the ids alone first leaves the other columns of a long log untouched, most often altogether.
        wanted = event_ids.unique().to_frame("event_id").lazy()
        found = log.select("event_id").join(wanted, on="event_id", how="semi").collect(engine="streaming")
        if found.is_empty():
            return self.log_schema.to_frame()
        return log.filter(pl.col("event_id").is_in(found.get_column("event_id").implode())).collect()

    def require_sound(self, files: Sequence[Path]) -> None:
        """Compare files with their digests, each once in this process.

        Raises:
            IntegrityError: Some are missing or are not what was written; each is named.
        """
        wrong = []
        for path in files:
            relative = path.relative_to(self.folder).as_posix()
            digest = self.manifest.files.get(relative) or self.manifest.buckets.get(relative)
            try:
                if digest is not None and content_digest(path) != digest:
                    wrong.append(f"{path} was changed since it was written")
            except OSError as error:
                wrong.append(f"{path} cannot be read ({error.strerror})")
        if wrong:
            workspace = self.folder.parent.parent.name
            advice = f"Put a copy in its place, or run `playbill -w {workspace} ingest` again."
            raise IntegrityError(f"the tables are damaged: {'; '.join(wrong)}. {advice}")

    def _scan(self, files: Sequence[Path]) -> pl.LazyFrame:
        self.require_sound(files)
        return scan_files(files, self.log_schema)

    def _columns_of_a_file(self) -> dict[str, str]:
        # Generations that do not list the log's columns were written in one go: every file has the same.
        first = bucket_files(self.folder, self.manifest.bucket_starts, None)[0][0]
        return columns_of(pl.read_parquet_schema(first))


def open_generation(folder: Path) -> Published:
    """Return a generation. It never changes, so its manifest is read once; another one in its place is read anew."""
    try:
        state = (folder / MANIFEST).stat()
    except OSError:
        return Published(folder)  # Which says what is wrong.
    return opened(folder, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=8)
def opened(folder: Path, _changed_ns: int, _inode: int) -> Published:
    """Return a generation by its folder and the state of its manifest there."""
    return Published(folder)


def filtered(
    rows: pl.LazyFrame, since: datetime | None, until: datetime | None, members: Sequence[str] | None
) -> pl.LazyFrame:
    """Return the events of some members with `since <= event_at < until`."""
    if since is not None:
        rows = rows.filter(pl.col("event_at") >= utc_literal(since))
    if until is not None:
        rows = rows.filter(pl.col("event_at") < utc_literal(until))
    if members is not None:
        rows = rows.filter(pl.col("member_id").is_in(list(members)))
    return rows
