"""The lazy result that Feast returns to its users, and the saved datasets that its table is written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage, ValidationReference

from playbill_feast.errors import Mistake, StoreDataError
from playbill_feast.offline.remote_files import remote_parts, write_remote
from playbill_feast.offline.sources import local_path, storage_options
from playbill_feast.offline.writes import replace_folder, write_file


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


class AsofRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """A retrieval that runs whenever its result is requested; `evaluate` leaves on-demand views out."""

    def __init__(
        self,
        evaluate: Callable[[], pa.Table],
        config: RepoConfig,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._evaluate, self._config = evaluate, config
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._metadata = metadata
        self._rows: int | None = None

    @property
    def full_feature_names(self) -> bool:
        """Whether outputs are named `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that Feast computes from the table."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Features and keys of the request; None for pulls."""
        return self._metadata

    def to_arrow(self, validation_reference: ValidationReference | None = None, timeout: int | None = None) -> pa.Table:
        """Run the retrieval and return its table, with on-demand views validated where there is a reference."""
        table = super().to_arrow(validation_reference=validation_reference, timeout=timeout)
        if table.num_rows != self._rows:
            raise AssertionError(f"on-demand views made {table.num_rows} rows of {self._rows}")
        return table

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """Run the retrieval and return its rows, numbered from 0, as a pandas frame."""
        # Feast renumbers them once more, which copies all of it.
        frame: pd.DataFrame = self.to_arrow(validation_reference, timeout).to_pandas()
        return frame

    def to_polars(self) -> pl.DataFrame:
        """Run the retrieval and return its rows as a polars frame, without a copy through pandas."""
        return pl.DataFrame(pl.from_arrow(self.to_arrow()))

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool | None = False, timeout: int | None = None
    ) -> None:
        """Run the retrieval and write its table to a SavedDatasetFileStorage, whole or not at all.

        A path that ends in `.parquet` is a file, any other a folder; relative ones start from the features folder.

        Raises:
            SavedDatasetLocationAlreadyExists: Something is there, and must not be overwritten.
            StoreDataError: The storage is of another kind.
            StoreServiceError: The disk is full or cannot be written. What was there before still is.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            what = f"needs a SavedDatasetFileStorage, got {type(storage).__name__}."
            raise StoreDataError("saved dataset", [Mistake("storage", what)])
        uri = storage.file_options.uri
        path = local_path(self._config, uri)
        if path is None:
            _save_remote(self._config, self.to_arrow, uri, bool(allow_overwrite))
            return
        if not allow_overwrite and _holds_something(path):
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        is_file = path.suffix == ".parquet" and not path.is_dir()
        (write_file if is_file else replace_folder)(path, self.to_arrow())

    def supports_remote_storage_export(self) -> bool:
        """Return False: nothing is exported for other engines, they read the feature files themselves."""
        return False

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        table: Any = self._evaluate()
        self._rows = table.num_rows
        return table
