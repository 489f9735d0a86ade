"""Packed rows in a SQLite file: a table per view, its rows in the order of their keys."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from playbill_feast.errors import StoreServiceError, StoreStateError
from playbill_feast.online.backend import ReadRequest, RowBatch, WriteProgress

_LOG = logging.getLogger(__name__)
_ROWS_PER_CHUNK = 50_000
_KEYS_PER_STATEMENT = 10_000
"""Within the variables that a statement may have in any build of SQLite since 3.32 (32,766)."""
_SCHEMAS = "playbill_schemas"
_VIEWS = "playbill_views"

Result = TypeVar("Result")


class SqliteBackend:
    """A SQLite file, made by `create`, in write-ahead mode: readers never wait for the one writer.

    A statement waits `busy_timeout_s` seconds for another writer, and again once it has failed.
    """

    def __init__(self, path: Path, busy_timeout_s: float = 5.0) -> None:
        self.path, self.busy_timeout_s = path, busy_timeout_s
        self._local = threading.local()

    def _connection(self, create: bool = False) -> sqlite3.Connection:
        # A connection must not be carried over a fork, and each thread has its own.
        if getattr(self._local, "pid", None) == os.getpid() and self.path.exists():
            held: sqlite3.Connection = self._local.connection
            return held
        if create:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        elif not self.path.is_file():
            raise StoreStateError(
                f"the online store {self.path} does not exist. Run `feast apply`, then `feast materialize`."
            )
        connection = sqlite3.connect(self.path, timeout=self.busy_timeout_s, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        self._local.connection, self._local.pid = connection, os.getpid()
        return connection

    def _run(self, work: Callable[[sqlite3.Connection], Result], create: bool = False) -> Result:
        try:
            return self._patiently(work, create)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                view = str(error).rpartition(": ")[2]
                raise StoreStateError(
                    f"the online store {self.path} has no table of {view}. Run `feast apply`, then `feast materialize`."
                ) from error
            raise StoreServiceError(f"the online store {self.path} does not answer: {error}.") from error
        except sqlite3.Error as error:
            raise StoreServiceError(
                f"the online store {self.path} cannot be read: {error}. If it is damaged, remove it, "
                "run `feast apply`, then `feast materialize`."
            ) from error
        except OSError as error:
            raise StoreServiceError(
                f"the folder {self.path.parent} of the online store cannot be made: {error.strerror}."
            ) from error

    def _patiently(self, work: Callable[[sqlite3.Connection], Result], create: bool) -> Result:
        """Do the work, and once more when another writer held the file all the time that we waited."""
        try:
            return work(self._connection(create))
        except sqlite3.OperationalError as error:
            if not _is_locked(error):
                raise
            _LOG.warning("%s was locked for %s s, trying once more", self.path, self.busy_timeout_s)
        try:
            return work(self._connection(create))
        except sqlite3.OperationalError as error:
            if not _is_locked(error):
                raise
            raise StoreServiceError(
                f"the online store {self.path} stayed locked by another writer for {2 * self.busy_timeout_s:g} s "
                "(tried twice). Nothing of this write was stored: end the other writer, or raise busy_timeout_s."
            ) from error

    def create(self, view: str) -> None:
        """Make the file and the view's table, if they are not there."""
        self._run(lambda connection: _make_tables(connection, view), create=True)

    def drop(self, view: str) -> None:
        """Remove the view's table and schemas."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(f"DROP TABLE IF EXISTS {_quoted(view)}")
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_VIEWS,)).fetchone():
                connection.execute(f"DELETE FROM {_SCHEMAS} WHERE view = ?", (view,))
                connection.execute(f"DELETE FROM {_VIEWS} WHERE view = ?", (view,))

        if self.path.is_file():
            self._run(work)

    def read(self, requests: Sequence[ReadRequest]) -> list[list[bytes | None]]:
        """Read the rows of several views in one statement."""
        keys_by_view = [list(dict.fromkeys(key for key in request.keys if key is not None)) for request in requests]
        if sum(map(len, keys_by_view)) > _KEYS_PER_STATEMENT:
            return [self._read_in_parts(request, keys) for request, keys in zip(requests, keys_by_view, strict=True)]
        rows_by_view = self._run(lambda connection: _select(connection, requests, keys_by_view))
        return [list(map(rows.get, request.keys)) for request, rows in zip(requests, rows_by_view, strict=True)]  # type: ignore[arg-type]

    def _read_in_parts(self, request: ReadRequest, keys: list[bytes]) -> list[bytes | None]:
        rows: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _KEYS_PER_STATEMENT):
            part = keys[start : start + _KEYS_PER_STATEMENT]
            rows |= self._run(lambda connection, part=part: _select(connection, [request], [part]))[0]  # type: ignore[misc]
        return list(map(rows.get, request.keys))  # type: ignore[arg-type]

    async def read_async(self, requests: Sequence[ReadRequest]) -> list[list[bytes | None]]:
        """Read in a thread: SQLite has no waiting that an event loop could do."""
        return await asyncio.to_thread(self.read, requests)

    def write(self, view: str, batches: Iterable[RowBatch], progress: WriteProgress | None) -> None:
        """Write all rows or, when anything fails, none."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                _make_tables(connection, view)
                connection.execute(f"INSERT OR REPLACE INTO {_VIEWS} VALUES (?, randomblob(8))", (view,))
                for batch in batches:
                    _insert(connection, view, batch, progress)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

        self._run(work, create=True)

    async def write_async(self, view: str, batches: Iterable[RowBatch], progress: WriteProgress | None) -> None:
        """Write in a thread."""
        await asyncio.to_thread(self.write, view, batches, progress)

    def schemas(self, view: str) -> dict[int, str]:
        """Return the view's schemas by id."""
        statement = f"SELECT id, fields FROM {_SCHEMAS} WHERE view = ?"
        return self._run(lambda connection: dict(connection.execute(statement, (view,)).fetchall()))

    def scan(self, view: str) -> tuple[list[bytes], list[bytes]]:
        """Return every key and row, in the order of keys."""
        pairs = self._run(lambda connection: connection.execute(f"SELECT key, row FROM {_quoted(view)}").fetchall())
        return [key for key, _ in pairs], [row for _, row in pairs]

    def version(self, view: str) -> object:
        """Return a text that changes with every write to the view."""
        statement = f"SELECT version FROM {_VIEWS} WHERE view = ?"
        return self._run(lambda connection: connection.execute(statement, (view,)).fetchone())

    async def close_async(self) -> None:
        """Do nothing: reads and writes borrow threads, and nothing of SQLite belongs to an event loop."""

    def close(self) -> None:
        """Close this thread's connection."""
        if getattr(self._local, "pid", None) == os.getpid():
            self._local.connection.close()
            self._local.pid = None


def _make_tables(connection: sqlite3.Connection, view: str) -> None:
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {_SCHEMAS} (view TEXT, id INTEGER, fields TEXT, PRIMARY KEY (view, id))"
    )
    connection.execute(f"CREATE TABLE IF NOT EXISTS {_VIEWS} (view TEXT PRIMARY KEY, version BLOB)")
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {_quoted(view)} (key BLOB PRIMARY KEY, row BLOB NOT NULL, "
        "event_at INTEGER NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID"
    )


def _insert(connection: sqlite3.Connection, view: str, batch: RowBatch, progress: WriteProgress | None) -> None:
    schema = (view, batch.schema_id, batch.schema)
    connection.execute(f"INSERT OR IGNORE INTO {_SCHEMAS} VALUES (?, ?, ?)", schema)
    statement = (
        f"INSERT INTO {_quoted(view)} AS held VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
        "row = excluded.row, event_at = excluded.event_at, created_at = excluded.created_at "
        "WHERE excluded.event_at > held.event_at "
        "OR (excluded.event_at = held.event_at AND excluded.created_at >= held.created_at)"
    )
    for start in range(0, len(batch.keys), _ROWS_PER_CHUNK):
        part = batch.part(start, start + _ROWS_PER_CHUNK)
        rows = zip(part.keys, part.rows, part.event_us, part.created_us, strict=True)
        connection.executemany(statement, rows)
        if progress:
            progress(len(part.keys))


def _select(
    connection: sqlite3.Connection, requests: Sequence[ReadRequest], keys_by_view: Sequence[list[bytes]]
) -> list[dict[bytes, bytes]]:
    if len(requests) == 1:
        marks = ",".join("?" * len(keys_by_view[0]))
        statement = f"SELECT key, row FROM {_quoted(requests[0].view)} WHERE key IN ({marks})"
        return [dict(connection.execute(statement, keys_by_view[0]).fetchall())]
    parts = [
        f"SELECT {number}, key, row FROM {_quoted(request.view)} WHERE key IN ({','.join('?' * len(keys))})"
        for number, (request, keys) in enumerate(zip(requests, keys_by_view, strict=True))
    ]
    rows_by_view: list[dict[bytes, bytes]] = [{} for _ in requests]
    variables = [key for keys in keys_by_view for key in keys]
    for number, key, row in connection.execute(" UNION ALL ".join(parts), variables):
        rows_by_view[number][key] = row
    return rows_by_view


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_locked(error: sqlite3.OperationalError) -> bool:
    return "locked" in str(error) or "busy" in str(error)
