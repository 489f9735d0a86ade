"""Generations of the tables folder: each write makes a whole new one beside the old, then one rename publishes it.

```
tables/CURRENT                 name of the published generation, replaced atomically
tables/generation-000002/      titles.parquet, ..., interactions/day=.../part-*.parquet, by_member/, manifest.json
tables/generation-000001/      the one before, kept until the next write for readers that are still in it
tables/writing-3f2a.../        a write in progress, or the leftover of a killed one; the next write removes it
```
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import polars as pl

from playbill.errors import IntegrityError, ServiceError, StateError

CURRENT = "CURRENT"
MANIFEST = "manifest.json"
INTERACTIONS = "interactions"
BY_MEMBER = "by_member"

_GENERATION = "generation-"
_WRITING = "writing-"
_FORMAT = 1
_SYSTEM_SAID = re.compile(r"([^:]+) \(os error \d+\)")
_LOCK_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a generation holds.

    Attributes:
        files: Relative path -> sha256 of every file that holds canonical rows.
        rows: Table -> number of rows.
        days: ISO day -> number of interactions.
        bucket_starts: First member id of each file of `by_member`, sorted.
        last_event_us: Time of the last event, microseconds since 1970.
        columns: Column of interactions -> its type, over all files; empty in generations older than this field.
    """

    files: Mapping[str, str]
    rows: Mapping[str, int]
    days: Mapping[str, int]
    bucket_starts: tuple[str, ...]
    last_event_us: int
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def snapshot_id(self) -> str:
        """A hash of the content of every table."""
        lines = "\n".join(f"{path} {digest}" for path, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write the manifest into its generation."""
        content = {"format": _FORMAT, "snapshot_id": self.snapshot_id, **asdict(self)}
        (folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read a generation's manifest.

        Raises:
            IntegrityError: It is missing, unreadable, or of another format.
        """
        try:
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise IntegrityError(f"{folder / MANIFEST} has format {content['format']}, expected {_FORMAT}")
            return cls(
                content["files"],
                content["rows"],
                content["days"],
                tuple(content["bucket_starts"]),
                content["last_event_us"],
                content.get("columns", {}),
            )
        except (OSError, ValueError, KeyError) as error:
            raise IntegrityError(
                f"{folder / MANIFEST} cannot be read ({error}). Run `playbill ingest` again."
            ) from None


class Generations:
    """The generations of one tables folder.

    Args:
        folder: `Workspace.tables`. It need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> Path | None:
        """Return the published generation's folder, or None before the first ingest."""
        try:
            return self.folder / (self.folder / CURRENT).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Lend an empty folder to build the next generation in; it is published only with `publish`.

        One writer at a time. Leftovers of killed writers are removed first, and the folder at the end.

        Raises:
            StateError: Another process is writing this workspace's tables.
            ServiceError: The disk is full or cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            self._clean(keep=self._published())
            building = self.folder / f"{_WRITING}{secrets.token_hex(8)}"
            building.mkdir()
            try:
                yield building
            except (OSError, pl.exceptions.ComputeError) as error:
                reason = _refusal(error)
                if reason is None:
                    raise
                what = f"{self.folder} cannot be written: {reason}. The tables are as they were."
                raise ServiceError(what) from error
            finally:
                shutil.rmtree(building, ignore_errors=True)

    def publish(self, building: Path) -> None:
        """Make `building` the published generation; readers see the old one or the new one, nothing between."""
        _flush(building)
        before = self._published()
        name = f"{_GENERATION}{int(before.removeprefix(_GENERATION)) + 1 if before else 1:06d}"
        os.replace(building, self.folder / name)
        pointer = self.folder / f"{_WRITING}{CURRENT}"
        pointer.write_text(name, encoding="utf-8")
        _flush(pointer)
        os.replace(pointer, self.folder / CURRENT)
        self._clean(keep=name, and_previous=before)

    def _published(self) -> str:
        current = self.current()
        return current.name if current else ""

    def _clean(self, keep: str, and_previous: str = "") -> None:
        for path in self.folder.iterdir():
            ours = path.name.startswith((_GENERATION, _WRITING))
            if not ours or path.name in (keep, and_previous):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        # An SQLite transaction is a lock on every platform, and the system drops it when its process dies.
        connection = sqlite3.connect(self.folder / ".lock", timeout=_LOCK_WAIT_S, isolation_level=None)
        with closing(connection):
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                raise StateError(
                    f"another process is writing {self.folder}. Wait until it is done, then try again."
                ) from None
            yield


def _refusal(error: OSError | pl.exceptions.ComputeError) -> str | None:
    """Return why the system refused to write, or None where it was something else."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # polars hands on what the system said as text of its own error.
    found = _SYSTEM_SAID.search(str(error))
    return found[1] if found else None


def _flush(path: Path) -> None:
    """Have the system write a file, or every file below a folder, to the disk: what is published survives a crash."""
    for found in [path] if path.is_file() else (below for below in path.rglob("*") if below.is_file()):
        # A file that another generation shares was written out when that one was published.
        if found.stat().st_nlink > 1:
            continue
        with found.open("rb") as file:
            os.fsync(file.fileno())


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_file(source: Path, target: Path) -> None:
    """Give a finished file of one generation to another; a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
