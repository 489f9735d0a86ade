"""A Feast offline store: point-in-time joins that lose, add and re-order nothing.

Feast's default store merges every entity row with all history of its key, and loses rows on the way: several rows of
one key and moment collapse, rows whose history is expired or in the future disappear. This store looks up every row as
of its moment with one sort and one search (`asof_join`), in parquet files, folders of parts, hive partitions, URLs
(`offline.sources`) and databases (`offline.sql_source`). Appending never rewrites history. A FileSource may name its
file relatively to `features_folder`, so one repository serves several folders of feature files.

The class and its configuration live in one module and end in `OfflineStore` and `OfflineStoreConfig`, because Feast
finds the one by the name of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from feast.data_source import DataSource, PushSource, RequestSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import _get_requested_feature_views_to_features_dict, _get_requested_on_demand_feature_views
from pydantic import AwareDatetime, Field

from playbill_feast.errors import Mistake, StoreDataError, StoreStateError, suggestion
from playbill_feast.frames import EVENT_AT, plain_arrow
from playbill_feast.offline.monitoring import MonitoredOfflineStore
from playbill_feast.offline.partitions import RaySettings
from playbill_feast.offline.retrieval import (
    Pull,
    RetrievalRequest,
    entity_rows_of,
    metadata_of,
    moments_between,
    pull_all,
    pull_latest,
    range_metadata,
    retrieve,
    snapshot_range,
)
from playbill_feast.offline.retrieval_job import AsofRetrievalJob
from playbill_feast.offline.scan_filter import known_on
from playbill_feast.offline.sources import require_features, scan_source, view_values
from playbill_feast.offline.sql_source import SqlSource
from playbill_feast.offline.writes import append_batch, write_logs

__all__ = ["AsofOfflineStore", "AsofOfflineStoreConfig", "AsofRetrievalJob", "scan_source", "view_values"]


class AsofOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """`offline_store:` in feature_store.yaml. An unknown key is an error."""

    type: str = "playbill_feast.offline.store.AsofOfflineStore"
    """The store's dotted path."""
    features_folder: str | None = None
    """Folder that relative paths of file sources start from; the repository's folder when left out."""
    engine: Literal["local", "ray"] = "local"
    """What joins: this process, or a Ray cluster for logs that outgrow a machine. The answers are the same."""
    as_known_on: AwareDatetime | None = None
    """Read features as they were known at this moment; see `scan_filter.as_known_on`."""
    ray: RaySettings = RaySettings()
    """The Ray engine's settings."""
    build_command: str | None = None
    """Command that writes the feature files, for messages about one that is missing or damaged."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """What fsspec needs to open URLs: credentials, `endpoint_url`, and the like."""


class AsofOfflineStore(MonitoredOfflineStore):
    """Feature rows in files and databases, looked up as of each entity row. See the module's text."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Join feature values to every entity row as of its time. See `as_of_join` for the exact rules.

        `entity_df`: pandas, polars or dask frame or Arrow table with the join keys and `event_timestamp`, or one other
        time column (text too; UTC without a zone). A SELECT, when every view has a SqlSource of one database. None:
        every key and moment between the dates that a view has a value of. With `filter_by_created_timestamp` only
        values created at or before the row's time count.

        Returns a job whose table has the entity rows unchanged and in order, then the features.

        Raises:
            StoreDataError: The entity rows have no usable time column or lack a key; every mistake is named.
        """
        on_demand = _get_requested_on_demand_feature_views(feature_refs, project, registry)
        requested, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        require_features(requested)
        request = RetrievalRequest(config, requested, full_feature_names, filter_by_created_timestamp, known_on(config))
        derived = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        if entity_df is None:
            dates = snapshot_range(feature_views, start_date, end_date)
            metadata = range_metadata(request, dates, feature_refs)
            return AsofRetrievalJob(
                lambda: retrieve(request, moments_between(request, *dates), EVENT_AT),
                config,
                full_feature_names,
                derived,
                metadata,
            )
        entities, at = entity_rows_of(entity_df, request)
        metadata = metadata_of(entities, at, feature_refs)
        return AsofRetrievalJob(lambda: retrieve(request, entities, at), config, full_feature_names, derived, metadata)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return the newest row of every key between two moments, both included."""
        names = (join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column or None)
        pull = Pull(data_source, *names, start_date, end_date, known_on(config))
        return AsofRetrievalJob(lambda: pull_latest(config, pull), config)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Return every row between two moments, both included, in the source's order."""
        names = (join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column or None)
        pull = Pull(data_source, *names, start_date, end_date, known_on(config))
        return AsofRetrievalJob(lambda: pull_all(config, pull), config)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Append rows to a view's source as a new part, or in one transaction. See `append_batch`."""
        append_batch(config, feature_view, table, progress)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Append served features to the logging destination of a feature service. See `write_logs`."""
        write_logs(config, data, logging_config)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Check a source, where it exists: features may be registered before they are computed.

        Raises:
            StoreDataError: It is damaged, of a kind that cannot be read, or has no such time columns.
        """
        if not isinstance(data_source, FileSource | SqlSource):
            return
        try:
            names = scan_source(config, data_source, data_source.name, mapped=False).collect_schema().names()
        except StoreStateError:
            return
        times = (data_source.timestamp_field, data_source.created_timestamp_column)
        problems = [
            Mistake(name, "column is missing.", suggestion(name, names)) for name in times if name and name not in names
        ]
        if problems:
            raise StoreDataError(f"source '{data_source.name}'", problems)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Return the columns of a source with their Arrow types, for views that declare no schema."""
        if isinstance(data_source, RequestSource):
            return []
        source = data_source.batch_source if isinstance(data_source, PushSource) else data_source
        frame = scan_source(config, source, source.name, mapped=False)
        schema = plain_arrow(frame.collect_schema().to_frame()).schema
        return [(field.name, str(field.type)) for field in schema]
