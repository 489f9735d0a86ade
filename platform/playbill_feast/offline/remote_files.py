"""Parquet files behind a URL, through fsspec: object stores, HDFS, SFTP, anything fsspec has a driver for."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from playbill_feast.errors import Mistake, StoreConfigError, StoreDataError, StoreServiceError
from playbill_feast.offline.parquet_files import APPENDED, first_line, hive_schema, part_after, part_order


def open_filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the file system of a URL, such as `s3://bucket/features/taste.parquet`, and the path in it.

    `options` are what fsspec hands to the file system: credentials, `endpoint_url`, and the like.

    Raises:
        StoreConfigError: fsspec knows no such scheme, or its package is not installed.
        StoreServiceError: The store does not answer.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError, TypeError) as error:
        raise StoreConfigError(f"{url} cannot be opened: {first_line(error)}.") from None
    except OSError as error:
        raise StoreServiceError(f"{url} does not answer: {first_line(error)}.") from error
    return filesystem, path


def remote_parts(url: str, options: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Return the file system, and a source's files in it, oldest part first.

    Raises:
        StoreConfigError: The URL cannot be used.
        StoreServiceError: The store does not answer.
    """
    filesystem, path = open_filesystem(url, options)
    try:
        filesystem.invalidate_cache()
        own = [path] if filesystem.isfile(path) else _inside(filesystem, path)
        return filesystem, [*own, *_inside(filesystem, path.rstrip("/") + APPENDED)]
    except OSError as error:
        raise StoreServiceError(f"{url} does not answer: {first_line(error)}.") from error


def scan_remote(filesystem: Any, files: list[str], root: str) -> pl.LazyFrame:
    """Open files of `remote_parts` as one frame. Only the columns and row groups that are used are fetched.

    Hive keys are read from folder names below `root`, the source's path, only.

    Raises:
        StoreDataError: A file is damaged, or two files hold one column as types that do not go together.
    """
    schemas, problems = [], []
    for file in files:
        try:
            with filesystem.open(file, "rb") as stream:
                schemas.append(pq.read_schema(stream))
        except (pa.ArrowException, OSError) as error:
            problems.append(Mistake(file, f"cannot be read: {first_line(error)}."))
    if problems:
        raise StoreDataError("feature files", problems)
    try:
        schema = pa.unify_schemas([part.remove_metadata() for part in schemas], promote_options="permissive")
    except pa.ArrowException as error:
        raise StoreDataError("feature files", [Mistake(root, f"parts disagree: {first_line(error)}.")]) from None
    keys = hive_schema([PurePosixPath(file) for file in files], PurePosixPath(root)).to_frame().to_arrow().schema
    named = [schema.field(field.name) if field.name in schema.names else field for field in keys]
    dataset = ds.dataset(
        files,
        schema=pa.schema([*schema, *(field for field in named if field.name not in schema.names)]),
        filesystem=filesystem,
        format="parquet",
        partitioning=ds.partitioning(pa.schema(named), flavor="hive") if named else None,
        partition_base_dir=root,
    )
    return pl.scan_pyarrow_dataset(dataset)


def _inside(filesystem: Any, folder: str) -> list[str]:
    if not filesystem.isdir(folder):
        return []
    files = [path for path in filesystem.find(folder) if path.endswith(".parquet")]
    own = [path for path in files if not any(map(_hidden, path.removeprefix(folder).split("/")))]
    return sorted(own, key=lambda path: [part_order(name) for name in path.split("/")])


def _hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def append_remote(url: str, table: pa.Table, options: Mapping[str, Any]) -> None:
    """Append rows to a remote source as a new part. No other file is touched.

    Raises:
        StoreServiceError: The store does not take it. Nothing was appended.
    """
    filesystem, path = open_filesystem(url, options)
    if not filesystem.exists(path) and path.endswith(".parquet"):
        write_remote(url, table, options)
        return
    folder = url + APPENDED if filesystem.isfile(path) else url
    there = _inside(filesystem, open_filesystem(folder, options)[1])
    write_remote(f"{folder.rstrip('/')}/{part_after(there)}", table, options)


def write_remote(url: str, table: pa.Table, options: Mapping[str, Any]) -> None:
    """Write a remote parquet file. Object stores show an upload only once it is whole.

    Raises:
        StoreServiceError: The store does not take it.
    """
    filesystem, path = open_filesystem(url, options)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    try:
        filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        filesystem.pipe_file(path, buffer.getvalue())
    except OSError as error:
        raise StoreServiceError(
            f"{url} was not written: {first_line(error)}. What was there before is unchanged."
        ) from error
