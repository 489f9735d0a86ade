"""Parquet that is written whole or not at all: beside first, synced, then renamed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from playbill.errors import ServiceError
from playbill_feast.offline.parquet_files import APPENDED, first_line, part_after, parts_of


def write_file(path: Path, table: pa.Table) -> None:
    """Write a parquet file, or replace one.

    Raises:
        ServiceError: The disk is full or cannot be written; what was there before still is.
    """
    with written_whole(path), beside(path) as hidden:
        write_table(table, hidden)
        hidden.replace(path)
        sync_folder(path.parent)


def append_part(source: Path, table: pa.Table) -> Path:
    """Append rows to a source as a new part, and return that. No other file is touched.

    Args:
        source: A folder of parts, which gets one more; a file, which gets a part in `FILE.appended/`; or a path
            where nothing is yet: then a `.parquet` becomes a file, and anything else a folder.
        table: The rows.

    Raises:
        ServiceError: The disk is full or cannot be written. Nothing was appended.
    """
    if not source.exists() and source.suffix == ".parquet" and not parts_of(source):
        write_file(source, table)
        return source
    folder = source.with_name(source.name + APPENDED) if source.is_file() else source
    path = folder / part_after([file.name for file in parts_of(folder)])
    write_file(path, table)
    return path


def replace_folder(folder: Path, table: pa.Table) -> None:
    """Write a folder with one part, or replace a whole folder by it.

    Raises:
        ServiceError: The disk is full or cannot be written; what was there before still is.
    """
    with written_whole(folder), beside(folder) as hidden:
        hidden.mkdir(parents=True)
        write_table(table, hidden / "part-000000.parquet")
        sync_folder(hidden)
        swap(hidden, folder)


def swap(new: Path, place: Path) -> None:
    """Put a folder or file in the place of another, which is removed afterwards."""
    old = place.with_name(f".{place.name}.old-{uuid.uuid4().hex[:8]}")
    if place.exists():
        place.rename(old)
    try:
        new.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise
    sync_folder(place.parent)
    remove(old)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a hidden path next to `path`, which no scan reads; what is left there in the end is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield hidden
    finally:
        remove(hidden)


@contextmanager
def written_whole(path: Path) -> Iterator[None]:
    """Say what to do when a disk is full or cannot be written.

    Raises:
        ServiceError: In place of the system's own error.
    """
    try:
        yield
    except OSError as error:
        raise ServiceError(
            f"{path} was not written: {first_line(error)}. What was there before is unchanged; "
            "free disk space or correct the folder's permissions, then write again."
        ) from error


def write_table(table: pa.Table, path: Path) -> None:
    """Write a parquet file and wait until the disk has it."""
    with path.open("wb") as stream:
        pq.write_table(table, stream)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows a folder's names."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
