"""The part of Feast's offline store interface that its monitoring uses."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.repo_config import RepoConfig

from playbill_feast.offline.monitoring import clear_baseline, feature_statistics, keep, kept, last_moment
from playbill_feast.offline.scan_filter import Wanted


class WatchedOfflineStore(OfflineStore):  # type: ignore[misc]
    """An offline store whose sources `scan_source` opens, with Feast's monitoring. See `offline.monitoring`."""

    @staticmethod
    def compute_monitoring_metrics(
        config: RepoConfig,
        data_source: DataSource,
        feature_columns: list[tuple[str, str]],
        timestamp_field: str,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        histogram_bins: int = 20,
        top_n: int = 10,
    ) -> list[dict[str, Any]]:
        """Return statistics of a source's columns between two moments, both included."""
        wanted = Wanted(timestamp_field, start_date, end_date)
        return feature_statistics(config, data_source, feature_columns, wanted, histogram_bins, top_n)

    @staticmethod
    def get_monitoring_max_timestamp(
        config: RepoConfig, data_source: DataSource, timestamp_field: str
    ) -> datetime | None:
        """Return a source's latest event time; None when it has no rows or does not exist yet."""
        return last_moment(config, data_source, timestamp_field)

    @staticmethod
    def ensure_monitoring_tables(config: RepoConfig) -> None:
        """Do nothing: a file comes with its first rows."""

    @staticmethod
    def save_monitoring_metrics(config: RepoConfig, metric_type: str, metrics: list[dict[str, Any]]) -> None:
        """Keep statistics; a row with the key of another replaces it."""
        if metrics:
            keep(config, metric_type, metrics)

    @staticmethod
    def query_monitoring_metrics(
        config: RepoConfig,
        project: str,
        metric_type: str,
        filters: dict[str, Any] | None = None,
        start_date: date | None = None,
        end_date: date | None = None,
    ) -> list[dict[str, Any]]:
        """Return kept statistics, oldest first."""
        return kept(config, metric_type, project, filters, start_date, end_date)

    @staticmethod
    def clear_monitoring_baseline(
        config: RepoConfig,
        project: str,
        feature_view_name: str | None = None,
        feature_name: str | None = None,
        data_source_type: str | None = None,
    ) -> None:
        """Make kept statistics no baseline any more."""
        chosen = {
            "project_id": project,
            "feature_view_name": feature_view_name,
            "feature_name": feature_name,
            "data_source_type": data_source_type,
        }
        clear_baseline(config, chosen)
