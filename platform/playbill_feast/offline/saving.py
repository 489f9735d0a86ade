"""Saved datasets: the result of a retrieval as parquet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage

from playbill.errors import DataError, Problem
from playbill_feast.offline.atomic import replace_folder, write_file
from playbill_feast.offline.remote_files import remote_parts, write_remote
from playbill_feast.offline.sources import local_path, storage_options


def save_dataset(
    config: RepoConfig, table: Callable[[], pa.Table], storage: SavedDatasetStorage, allow_overwrite: bool
) -> None:
    """Write a table where a saved dataset says, whole or not at all.

    Args:
        config: The feature store's configuration; relative paths start from its features folder.
        table: Computes the table. Not called when there is no place for it.
        storage: A SavedDatasetFileStorage.
        allow_overwrite: Replace what is there.

    Raises:
        SavedDatasetLocationAlreadyExists: Something is there, and must not be overwritten.
        DataError: The storage is of another kind.
        ServiceError: It cannot be written. What was there before still is.
    """
    if not isinstance(storage, SavedDatasetFileStorage):
        what = f"needs a SavedDatasetFileStorage, got {type(storage).__name__}."
        raise DataError("saved dataset", [Problem("storage", what)])
    uri = storage.file_options.uri
    path = local_path(config, uri)
    if path is None:
        _save_remote(config, table, uri, allow_overwrite)
        return
    if not allow_overwrite and _holds_something(path):
        raise SavedDatasetLocationAlreadyExists(location=str(path))
    if path.suffix == ".parquet" and not path.is_dir():
        write_file(path, table())
    else:
        replace_folder(path, table())


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _save_remote(config: RepoConfig, table: Callable[[], pa.Table], url: str, allow_overwrite: bool) -> None:
    options = storage_options(config)
    _, there = remote_parts(url, options)
    if there and not allow_overwrite:
        raise SavedDatasetLocationAlreadyExists(location=url)
    target = url if url.endswith(".parquet") else f"{url.rstrip('/')}/part-000000.parquet"
    write_remote(target, table(), options)
    for path in there:
        filesystem, own = remote_parts(target, options)
        if path not in own:
            filesystem.rm(path)
