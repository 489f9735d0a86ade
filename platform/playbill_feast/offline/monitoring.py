"""Feast's monitoring on this offline store: statistics of features, and the files they are saved in.

The statistics lie in `feast_monitoring/` of the features folder, a parquet file per kind, under the names Feast's own
file store gives them. They are small and replaced whole; of two writers at once the later one's rows stay.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.monitoring.monitoring_utils import (
    MONITORING_DIR,
    empty_categorical_metric,
    empty_numeric_metric,
    monitoring_parquet_meta,
    normalize_monitoring_row,
    opt_float,
)
from feast.repo_config import RepoConfig

from playbill_feast.errors import StoreStateError
from playbill_feast.frames import in_utc
from playbill_feast.offline.scan_filter import ScanFilter
from playbill_feast.offline.sources import features_root, reading, scan_source
from playbill_feast.offline.writes import write_file

_QUANTILES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}


class MonitoredOfflineStore(OfflineStore):  # type: ignore[misc]
    """An offline store whose sources `scan_source` opens, with Feast's monitoring. See the module's text."""

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
        """Return statistics of a source's columns (name and "numeric" or "categorical") between two moments, included.

        Columns that are not there are left out. Histograms have bins of equal width; of a categorical column the
        `top_n` most frequent values are counted one by one.
        """
        scan_filter = ScanFilter(timestamp_field, start_date, end_date)
        with reading(config, data_source, data_source.name):
            frame = scan_source(config, data_source, data_source.name, scan_filter, mapped=False)
            kinds = {name: kind for name, kind in feature_columns if name in frame.collect_schema()}
            values = frame.select(list(kinds)).collect()
        return [
            _numeric(values[name], histogram_bins) if kind == "numeric" else _categorical(values[name], top_n)
            for name, kind in kinds.items()
        ]

    @staticmethod
    def get_monitoring_max_timestamp(
        config: RepoConfig, data_source: DataSource, timestamp_field: str
    ) -> datetime | None:
        """Return a source's latest event time in UTC; None when it has no rows or does not exist yet."""
        try:
            with reading(config, data_source, data_source.name):
                frame = scan_source(config, data_source, data_source.name, mapped=False)
                at = in_utc(timestamp_field, frame.collect_schema()[timestamp_field])
                latest = frame.select(at.max()).collect().item()
        except StoreStateError:
            return None
        return latest if isinstance(latest, datetime) else None

    @staticmethod
    def ensure_monitoring_tables(config: RepoConfig) -> None:
        """Do nothing: a file comes with its first rows."""

    @staticmethod
    def save_monitoring_metrics(config: RepoConfig, metric_type: str, metrics: list[dict[str, Any]]) -> None:
        """Add statistics; a row with the key of another replaces it."""
        if not metrics:
            return
        path, columns, key = _table(config, metric_type)
        texts = [
            {name: json.dumps(row[name]) if isinstance(row.get(name), dict) else row.get(name) for name in columns}
            for row in metrics
        ]
        fresh, known = pl.DataFrame(texts, infer_schema_length=None), _saved_rows(path)
        both = fresh if known is None else pl.concat([known, fresh], how="diagonal_relaxed")
        write_file(path, both.unique(key, keep="last", maintain_order=True).to_arrow())

    @staticmethod
    def query_monitoring_metrics(
        config: RepoConfig,
        project: str,
        metric_type: str,
        filters: dict[str, Any] | None = None,
        start_date: date | None = None,
        end_date: date | None = None,
    ) -> list[dict[str, Any]]:
        """Return saved statistics, oldest first."""
        path, columns, _ = _table(config, metric_type)
        frame = _saved_rows(path)
        if frame is None:
            return []
        equal = {"project_id": project or None} | (filters or {})
        frame = frame.filter(
            pl.lit(True), *(pl.col(name) == value for name, value in equal.items() if value is not None)
        )
        if "metric_date" not in columns:
            return [normalize_monitoring_row(row) for row in frame.sort("job_id", maintain_order=True).to_dicts()]
        day = pl.col("metric_date")
        frame = frame if start_date is None else frame.filter(day >= start_date)
        frame = frame if end_date is None else frame.filter(day <= end_date)
        return [normalize_monitoring_row(row) for row in frame.sort("metric_date", maintain_order=True).to_dicts()]

    @staticmethod
    def clear_monitoring_baseline(
        config: RepoConfig,
        project: str,
        feature_view_name: str | None = None,
        feature_name: str | None = None,
        data_source_type: str | None = None,
    ) -> None:
        """Make saved statistics no baseline any more."""
        equal = {
            "project_id": project,
            "feature_view_name": feature_view_name,
            "feature_name": feature_name,
            "data_source_type": data_source_type,
        }
        path, _, _ = _table(config, "feature")
        frame = _saved_rows(path)
        if frame is not None:
            here = pl.all_horizontal(
                pl.col(name).eq_missing(value) for name, value in equal.items() if value is not None
            )
            cleared = pl.when(here).then(False).otherwise("is_baseline").alias("is_baseline")
            write_file(path, frame.with_columns(cleared).to_arrow())


def _table(config: RepoConfig, kind: str) -> tuple[Path, list[str], list[str]]:
    name, columns, key = monitoring_parquet_meta(kind)
    return Path(features_root(config) or ".") / MONITORING_DIR / name, columns, key


def _saved_rows(path: Path) -> pl.DataFrame | None:
    return pl.read_parquet(path) if path.exists() else None


def _numeric(values: pl.Series, bins: int) -> dict[str, Any]:
    metric: dict[str, Any] = empty_numeric_metric(values.name) | _counts(values)
    known = values.drop_nulls().cast(pl.Float64)
    known = known.filter(known.is_finite())
    if known.is_empty():
        return metric
    counts, edges = np.histogram(known.to_numpy(), bins=bins)
    metric |= {name: known.quantile(share, "linear") for name, share in _QUANTILES.items()}
    return metric | {
        "mean": opt_float(known.mean()),
        "stddev": opt_float(known.std()),
        "min_val": known.min(),
        "max_val": known.max(),
        "histogram": {"bins": edges.tolist(), "counts": counts.tolist(), "bin_width": float(edges[1] - edges[0])},
    }


def _categorical(values: pl.Series, top: int) -> dict[str, Any]:
    metric: dict[str, Any] = empty_categorical_metric(values.name) | _counts(values)
    known = values.drop_nulls()
    if known.is_empty():
        return metric
    counted = known.alias("value").value_counts().sort("count", "value", descending=[True, False])
    return metric | {
        "histogram": {
            "values": counted.head(top).to_dicts(),
            "other_count": int(counted.get_column("count").slice(top).sum()),
            "unique_count": counted.height,
        }
    }


def _counts(values: pl.Series) -> dict[str, Any]:
    rows, nulls = values.len(), values.null_count()
    return {"row_count": rows, "null_count": nulls, "null_rate": nulls / rows if rows else 0.0}
