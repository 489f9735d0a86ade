"""Appending feature rows and logs. Nothing that was written before is touched, and nothing is half-written.

Parquet is written beside its place first, synced, then renamed.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast.feature_logging import LoggingConfig
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast.repo_config import RepoConfig

from playbill_feast.errors import Mistake, StoreDataError, StoreServiceError, StoreStateError, suggestion
from playbill_feast.frames import plain_arrow
from playbill_feast.offline.parquet_files import APPENDED, agree, first_line, part_after, parts_of
from playbill_feast.offline.remote_files import append_remote, write_remote
from playbill_feast.offline.sources import join_keys, local_path, require_parquet, scan_source, storage_options
from playbill_feast.offline.sql_reader import append_rows
from playbill_feast.offline.sql_source import SqlSource


def write_file(path: Path, table: pa.Table) -> None:
    """Write a parquet file, or replace one; see `written_whole` for what it raises."""
    with written_whole(path), beside(path) as hidden:
        write_table(table, hidden)
        hidden.replace(path)
        sync_folder(path.parent)


def append_part(source: Path, table: pa.Table) -> Path:
    """Append rows to a source as a new part, and return that; see `written_whole` for what it raises.

    No other file is touched. A folder of parts gets one more, a file a part in `FILE.appended/`; where nothing is yet,
    a `.parquet` becomes a file and anything else a folder.
    """
    if not source.exists() and source.suffix == ".parquet" and not parts_of(source):
        write_file(source, table)
        return source
    folder = source.with_name(source.name + APPENDED) if source.is_file() else source
    path = folder / part_after([file.name for file in parts_of(folder)])
    write_file(path, table)
    return path


def replace_folder(folder: Path, table: pa.Table) -> None:
    """Write a folder with one part, or replace a whole folder by it; see `written_whole` for what it raises."""
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
        StoreServiceError: In place of the system's own error.
    """
    try:
        yield
    except OSError as error:
        raise StoreServiceError(
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


_ROW = "__row"


def append_batch(config: RepoConfig, view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None) -> None:
    """Append rows to a view's source, under its own column names or those it maps them to, in any order.

    A feature the view has declared since may be new: older rows are null there. `progress` is called with the number of
    rows once they are written.

    Raises:
        StoreDataError: Columns are missing, unknown or of another type; all of them are named. Nothing was written.
        StoreServiceError: They cannot be written, as when the disk is full. Nothing was written.
    """
    source = view.batch_source
    back = {mapped: own for own, mapped in (source.field_mapping or {}).items()}
    table = table.rename_columns([back.get(name, name) for name in table.column_names])
    table = _checked(view, table, _known_columns(config, view), back)
    if isinstance(source, SqlSource):
        if source.query:
            raise StoreDataError(
                f"feature view '{view.name}'", [Mistake(source.name, "is a query; only a table is written.")]
            )
        append_rows(source.rows, pl.DataFrame(pl.from_arrow(table)))
    else:
        _append_file(config, source, view.name, table)
    if progress:
        progress(table.num_rows)


def _append_file(config: RepoConfig, source: FileSource, view: str, table: pa.Table) -> None:
    require_parquet(source, view)
    path = local_path(config, source.path)
    if path is None:
        append_remote(source.path, table, storage_options(config, source))
    else:
        append_part(path, table)


def _known_columns(config: RepoConfig, view: FeatureView) -> pa.Schema | None:
    """Return the columns that the source has, None before its first row."""
    try:
        frame = scan_source(config, view.batch_source, view.name, mapped=False)
    except StoreStateError:
        return None
    return plain_arrow(frame.collect_schema().to_frame()).schema


def _checked(view: FeatureView, table: pa.Table, known: pa.Schema | None, back: dict[str, str]) -> pa.Table:
    source = view.batch_source
    declared = {back.get(field.name, field.name) for field in view.features}
    created = {source.created_timestamp_column} - {""}
    needed = set(known.names) if known is not None else {*join_keys(view).values(), source.timestamp_field, *declared}
    allowed = needed | declared | created
    names = table.column_names
    problems = [Mistake(name, "column is missing.") for name in sorted(needed - set(names))]
    for name in sorted(set(names) - allowed):
        problems.append(Mistake(name, "is no column of the source.", suggestion(name, allowed)))
    columns = []
    for name in names:
        column = table.column(name)
        if known is not None and name in known.names:
            column, problem = _as_type(name, column, known.field(name).type)
            problems += problem
        columns.append(column)
    if problems:
        raise StoreDataError(f"rows for feature view '{view.name}'", problems)
    order = [name for name in (known.names if known is not None else names) if name in names]
    ordered = pa.table(columns, names=names)
    return ordered.select([*order, *(name for name in names if name not in order)])


def _as_type(name: str, column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, list[Mistake]]:
    """Cast a column to the source's type, where that loses nothing.

    Doubles that are no single-precision numbers stay doubles, and the source's column is double from then on.
    """
    here, there = (pl.Series("", pl.from_arrow(pa.chunked_array([], type=each))).dtype for each in (column.type, kind))
    if not agree(here, there):
        return column, [Mistake(name, f"is {column.type}, and the source has {kind}.")]
    try:
        if pa.types.is_timestamp(column.type) and pa.types.is_timestamp(kind):
            if column.type.tz is None and kind.tz is not None:
                column = pc.assume_timezone(column, "UTC")
            return column.cast(kind, safe=False), []
        if not pa.types.is_floating(column.type):
            return column.cast(kind), []
        narrow = column.cast(kind, safe=not pa.types.is_floating(kind))
    except (pa.ArrowException, ValueError) as error:
        return column, [Mistake(name, f"is {column.type}, and the source has {kind}: {first_line(error)}.")]
    same = pc.all(pc.or_(pc.equal(narrow.cast(column.type), column), pc.is_nan(column))).as_py()
    return (column if same is False else narrow), []


def write_logs(config: RepoConfig, data: pa.Table | Path, logging: LoggingConfig) -> None:
    """Append served features, a table or a folder of parquet files, to a feature service's log.

    The destination is a FileLoggingDestination; columns it partitions by become folders `day=...`.

    Raises:
        StoreDataError: The destination is of another kind, the data is damaged, or a partition column is missing.
        StoreServiceError: It cannot be written. Nothing of it was.
    """
    destination = logging.destination
    if not isinstance(destination, FileLoggingDestination):
        what = f"needs a FileLoggingDestination, got {type(destination).__name__}."
        raise StoreDataError("feature log", [Mistake("destination", what)])
    table = _read_log(Path(data)) if isinstance(data, str | Path) else data
    by = destination.partition_by or []
    if absent := [name for name in by if name not in table.column_names]:
        raise StoreDataError("feature log", [Mistake(name, "column to partition by is missing.") for name in absent])
    path = local_path(config, destination.path)
    if path is None:
        options = dict(storage_options(config))
        if destination.s3_endpoint_override:
            options["endpoint_url"] = destination.s3_endpoint_override
        for folder, part in _partitions(table, by):
            target = "/".join(filter(None, (destination.path.rstrip("/"), folder, part_after([]))))
            write_remote(target, part, options)
    else:
        _publish(path, _partitions(table, by))


def _read_log(folder: Path) -> pa.Table:
    try:
        return pq.read_table(folder)
    except (pa.ArrowException, OSError) as error:
        raise StoreDataError("feature log", [Mistake(str(folder), f"cannot be read: {first_line(error)}.")]) from None


def _partitions(table: pa.Table, by: Sequence[str]) -> list[tuple[str, pa.Table]]:
    """Return folder -> rows. Files keep the partition columns, so their types survive."""
    if not by:
        return [("", table)]
    keys = pl.DataFrame(pl.from_arrow(table.select(list(by)))).with_row_index(_ROW)
    groups = keys.group_by(by, maintain_order=True).agg(_ROW)
    folders = ["/".join(map(_folder, by, values)) for values in groups.select(by).iter_rows()]
    return [
        (folder, table.take(rows.to_arrow())) for folder, rows in zip(folders, groups.get_column(_ROW), strict=True)
    ]


def _folder(name: str, value: object) -> str:
    return f"{name}=" + ("__HIVE_DEFAULT_PARTITION__" if value is None else quote(str(value), safe="-_.:"))


def _publish(root: Path, parts: Sequence[tuple[str, pa.Table]]) -> None:
    """Write all parts hidden, then show them one after the other; when one fails none stays."""
    with written_whole(root):
        staged: list[tuple[Path, Path]] = []
        shown: list[Path] = []
        try:
            for folder, part in parts:
                place = root / folder / part_after([file.name for file in (root / folder).glob("*.parquet")])
                place.parent.mkdir(parents=True, exist_ok=True)
                hidden = place.with_name(f".{place.name}")
                staged.append((hidden, place))
                write_table(part, hidden)
            for hidden, place in staged:
                hidden.replace(place)
                shown.append(place)
                sync_folder(place.parent)
        except BaseException:
            for path in [*(hidden for hidden, _ in staged), *shown]:
                remove(path)
            raise
