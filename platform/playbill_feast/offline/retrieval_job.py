"""The lazy result that Feast hands to its users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage, ValidationReference

from playbill_feast.offline.saving import save_dataset


class AsofRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """A retrieval that runs when its result is asked for, and every time it is.

    Args:
        evaluate: Computes the table, without on-demand views.
        config: The feature store's configuration.
        full_feature_names: Whether outputs are named `view__feature`.
        on_demand_feature_views: Views that Feast computes from the table.
        metadata: What was asked for.
    """

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
        """What was asked for; None for pulls."""
        return self._metadata

    def to_arrow(self, validation_reference: ValidationReference | None = None, timeout: int | None = None) -> pa.Table:
        """Run the retrieval and return its table, with on-demand views and, when asked for, validated."""
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
        """Run the retrieval and write its table, whole or not at all.

        Args:
            storage: A SavedDatasetFileStorage: a file when its path ends in `.parquet`, else a folder.
            allow_overwrite: Replace what is there.
            timeout: Not used.

        Raises:
            SavedDatasetLocationAlreadyExists: Something is there, and must not be overwritten.
            DataError: The storage is of another kind.
            ServiceError: The disk is full or cannot be written. What was there before still is.
        """
        save_dataset(self._config, self.to_arrow, storage, bool(allow_overwrite))

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
