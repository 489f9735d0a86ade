"""Playbill's Feast offline store: point-in-time joins that lose, add and re-order nothing.

Feast's default store merges every entity row with all history of its key, and loses rows on the way: several
rows of one key and moment collapse, rows whose history is expired or in the future disappear. This store joins
as of each row with one sort and one merge (`playbill.features.asof`), about 40 times cheaper.

`feature_repo/` names its files relatively (`member_activity.parquet`); the workspace's rendered
`feature_store.yaml` says in `features_folder` where they are. So one `feature_repo/` serves every workspace.

The class and its configuration live in one module and end in `OfflineStore` and `OfflineStoreConfig`, because
Feast finds the one by the name of the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.dask import DaskOfflineStore, DaskOfflineStoreConfig, DaskRetrievalJob
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.utils import (
    _get_requested_feature_views_to_features_dict,
    _get_requested_on_demand_feature_views,
)

from playbill.errors import DataError, Problem
from playbill.features.asof import ViewValues, as_of_join, in_utc, latest_values
from playbill.features.entity_rows import entity_table, plain_arrow
from playbill.features.offline.sources import scan_source

__all__ = ["AsofOfflineStore", "AsofOfflineStoreConfig", "AsofRetrievalJob", "scan_source", "view_values"]


class AsofOfflineStoreConfig(DaskOfflineStoreConfig):  # type: ignore[misc]
    """`offline_store:` in feature_store.yaml."""

    type: str = "playbill.features.offline_store.AsofOfflineStore"
    """The store's dotted path."""
    features_folder: str | None = None
    """Folder that relative paths of file sources start from; the repository's folder when left out."""


class AsofRetrievalJob(DaskRetrievalJob):  # type: ignore[misc]
    """A lazy retrieval whose result is an Arrow table. `persist` and on-demand views come from Feast."""

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        table: pa.Table = self.evaluation_function()
        return table


class AsofOfflineStore(DaskOfflineStore):  # type: ignore[misc]
    """Feature files on disk, joined as of each entity row. See the module's text."""

    supports_filter_by_created_timestamp = False

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Join feature values to every entity row as of its time. See `as_of_join` for the exact rules.

        Args:
            config: The feature store's configuration.
            feature_views: Views that `feature_refs` refer to.
            feature_refs: `view:feature` names.
            entity_df: pandas (or dask) frame with the join keys and `event_timestamp`, or one other time
                column. Times may be text; without a zone they are UTC. None takes a snapshot by dates.
            registry: The feature registry.
            project: The project's name.
            full_feature_names: Name the outputs `view__feature`.
            kwargs: `start_date` and `end_date`, when `entity_df` is None.

        Returns:
            A job whose table has the entity rows unchanged and in order, then the features.

        Raises:
            DataError: The entity frame has no usable time column or lacks a key; every mistake is named.
        """
        if entity_df is None:
            return DaskOfflineStore.get_historical_features(
                _rooted(config), feature_views, feature_refs, None, registry, project, full_feature_names, **kwargs
            )
        wanted, _ = _get_requested_feature_views_to_features_dict(
            feature_refs, feature_views, _get_requested_on_demand_feature_views(feature_refs, project, registry)
        )
        entities, at = entity_table(entity_df)
        moments = entities.column(at)
        return AsofRetrievalJob(
            evaluation_function=lambda: _join_all(config, entities, at, wanted, full_feature_names),
            full_feature_names=full_feature_names,
            repo_path=str(_root(config)),
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entities.column_names if name != at],
                min_event_timestamp=pa.compute.min(moments).as_py(),
                max_event_timestamp=pa.compute.max(moments).as_py(),
            ),
        )

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

        def evaluate() -> pa.Table:
            rows = _between(config, data_source, timestamp_field, start_date, end_date)
            newest = latest_values(
                rows, join_key_columns, timestamp_field, created_timestamp_column, feature_name_columns
            )
            return _pulled(newest, join_key_columns)

        return AsofRetrievalJob(evaluate, full_feature_names=False, repo_path=str(_root(config)))

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
        """Return every row between two moments, both included, in the file's order."""

        def evaluate() -> pa.Table:
            rows = _between(config, data_source, timestamp_field, start_date, end_date)
            created = [created_timestamp_column] if created_timestamp_column else []
            wanted = dict.fromkeys([*join_key_columns, *feature_name_columns, timestamp_field, *created])
            return _pulled(rows.select(list(wanted)) if feature_name_columns else rows, join_key_columns)

        return AsofRetrievalJob(evaluate, full_feature_names=False, repo_path=str(_root(config)))

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Append rows to a view's file."""
        DaskOfflineStore.offline_write_batch(_rooted(config), feature_view, table, progress)

    @staticmethod
    def write_logged_features(config: RepoConfig, *args: Any, **kwargs: Any) -> None:
        """Write served features to the logging destination of a feature service."""
        DaskOfflineStore.write_logged_features(_rooted(config), *args, **kwargs)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Check a source's file, where it exists: features may be registered before they are computed."""
        if isinstance(data_source, FileSource) and _path(config, data_source).exists():
            data_source.validate(_rooted(config))

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Return the columns of a source's file, for views that declare no schema."""
        scan_source(config, data_source, "inference")
        columns: Iterable[tuple[str, str]] = data_source.get_table_column_names_and_types(_rooted(config))
        return columns


def _root(config: RepoConfig) -> Path | None:
    folder = config.offline_store.features_folder
    return Path(folder) if folder else config.repo_path


def _rooted(config: RepoConfig) -> RepoConfig:
    """Return the configuration with relative source paths starting from the features folder."""
    rooted = copy.copy(config)
    rooted.repo_path = _root(config)
    return rooted


def _path(config: RepoConfig, source: FileSource) -> Path:
    return Path(FileSource.get_uri_for_file_path(_root(config), source.path))


def _between(
    config: RepoConfig, source: DataSource, at: str, start: datetime | None, end: datetime | None
) -> pl.LazyFrame:
    # Feast asks for the file's own names here, and maps fields after the pull.
    frame = scan_source(config, source, source.name, mapped=False)
    frame = frame.with_columns(in_utc(at, frame.collect_schema()[at]))
    if start is not None:
        frame = frame.filter(pl.col(at) >= _moment(start))
    if end is not None:
        frame = frame.filter(pl.col(at) <= _moment(end))
    return frame


def _moment(value: datetime) -> pl.Expr:
    aware = pd.Timestamp(value)
    aware = aware.tz_localize("UTC") if aware.tzinfo is None else aware.tz_convert("UTC")
    return pl.lit(aware.to_pydatetime(), dtype=pl.Datetime("us", "UTC"))


def _pulled(rows: pl.LazyFrame, join_keys: list[str]) -> pa.Table:
    if not join_keys:
        rows = rows.with_columns(pl.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID))
    return plain_arrow(rows.collect())


def _join_all(
    config: RepoConfig, entities: pa.Table, at: str, wanted: dict[FeatureView, list[str]], full_names: bool
) -> pa.Table:
    keys = {key for view in wanted for key in _join_keys(view)}
    if absent := sorted(keys - set(entities.column_names)):
        raise DataError("entity rows", [Problem(key, "join key is missing.") for key in absent])
    rows = pl.DataFrame(pl.from_arrow(entities.select([*sorted(keys), at])))
    result = entities
    for view, features in wanted.items():
        joined = as_of_join(rows, at, view_values(config, view, features, full_names))
        for name, column in zip(joined.columns, plain_arrow(joined).columns, strict=True):
            result = result.append_column(name, column)
    if result.num_rows != entities.num_rows:
        raise AssertionError(f"{result.num_rows} rows from {entities.num_rows} entity rows")
    return result


def _join_keys(view: FeatureView) -> dict[str, str]:
    """Return the entity rows' column -> the source's column for a view's keys."""
    return {
        view.projection.join_key_map.get(column.name, column.name): column.name
        for column in view.entity_columns
        if column.name != DUMMY_ENTITY_ID
    }


def view_values(config: RepoConfig, view: FeatureView, features: list[str], full_names: bool) -> ViewValues:
    """Return a registered view as the as-of join reads it, with outputs named `view__feature` or `feature`."""
    source = view.batch_source
    name = view.projection.name_to_use()
    mapping = source.field_mapping or {}
    created = source.created_timestamp_column or None
    return ViewValues(
        name=name,
        frame=scan_source(config, source, view.name),
        keys=_join_keys(view),
        at=mapping.get(source.timestamp_field, source.timestamp_field),
        created=mapping.get(created, created) if created else None,
        features={f"{name}__{feature}" if full_names else feature: feature for feature in features},
        ttl=view.ttl if view.ttl and view.ttl > timedelta(0) else None,
    )
