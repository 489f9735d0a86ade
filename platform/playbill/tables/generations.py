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
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from playbill.errors import IntegrityError
from playbill.files import exclusive, file_digest, make_folder, put_in_place, storage_errors, to_disk, write_text

CURRENT = "CURRENT"
MANIFEST = "manifest.json"
INTERACTIONS = "interactions"
BY_MEMBER = "by_member"

_GENERATION = "generation-"
_WRITING = "writing-"
_FORMAT = 1


@dataclass(frozen=True)
class GenerationManifest:
    """What a generation holds."""

    files: Mapping[str, str]
    """Relative path -> sha256 of every file that holds canonical rows."""
    rows: Mapping[str, int]
    """Table -> number of rows."""
    days: Mapping[str, int]
    """ISO day -> number of interactions."""
    bucket_starts: tuple[str, ...]
    """First member id of each file of `by_member`, sorted."""
    last_event_us: int
    """Time of the last event, microseconds since 1970."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of interactions -> its type, over all files; empty in generations older than this field."""
    buckets: Mapping[str, str] = field(default_factory=dict)
    """Relative path -> sha256 of every file of `by_member`, which holds the log a second time; as above."""

    @cached_property
    def snapshot_id(self) -> str:
        """A hash of the content of every table."""
        lines = "\n".join(f"{path} {digest}" for path, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write the manifest into its generation."""
        content = {"format": _FORMAT, "snapshot_id": self.snapshot_id, **asdict(self)}
        content["digest"] = _digest(content)
        (folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> GenerationManifest:
        """Read a generation's manifest.

        Raises:
            IntegrityError: It is missing, unreadable, or of another format.
        """
        try:
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise IntegrityError(f"{folder / MANIFEST} has format {content['format']}, expected {_FORMAT}")
            if content.pop("digest", None) not in (None, _digest(content)):
                raise ValueError("it is not what was written")
            return cls(
                content["files"],
                content["rows"],
                content["days"],
                tuple(content["bucket_starts"]),
                content["last_event_us"],
                content.get("columns", {}),
                content.get("buckets", {}),
            )
        except (OSError, ValueError, KeyError) as error:
            raise IntegrityError(
                f"{folder / MANIFEST} cannot be read ({error}). Run `playbill ingest` again."
            ) from None


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Generations:
    """The generations of one tables folder, which need not exist."""

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
            StorageError: The disk is full or cannot be written. The tables are as they were.
        """
        make_folder(self.folder)
        busy = f"another process is writing {self.folder}. Wait until it is done, then try again."
        with exclusive(self.folder / ".lock", busy), storage_errors("the tables", self.folder):
            self._clean(keep=self._published())
            building = self.folder / f"{_WRITING}{secrets.token_hex(8)}"
            building.mkdir()
            try:
                yield building
            finally:
                shutil.rmtree(building, ignore_errors=True)

    def publish(self, building: Path) -> None:
        """Make `building` the published generation; readers see the old one or the new one, nothing between."""
        to_disk(building)
        before = self._published()
        name = f"{_GENERATION}{int(before.removeprefix(_GENERATION)) + 1 if before else 1:06d}"
        put_in_place(building, self.folder / name)
        write_text(self.folder / CURRENT, name, "the tables")
        self._clean(keep=name, and_previous=before)

    def _published(self) -> str:
        current = self.current()
        return current.name if current else ""

    def _clean(self, keep: str, and_previous: str = "") -> None:
        for path in self.folder.iterdir():
            ours = path.name.startswith((_GENERATION, _WRITING, f".{CURRENT}."))
            if not ours or path.name in (keep, and_previous):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def bucket_digests(building: Path, old: Path | None, known: Mapping[str, str]) -> dict[str, str]:
    """Return the digest of every file of `by_member`; of those shared with an older generation it is known."""
    found = {}
    for path in sorted((building / BY_MEMBER).iterdir()):
        relative = f"{BY_MEMBER}/{path.name}"
        shared = old is not None and relative in known and (old / relative).samefile(path)
        found[relative] = known[relative] if shared else file_digest(path)
    return found


def link_file(source: Path, target: Path) -> None:
    """Give a finished file of one generation to another; a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
