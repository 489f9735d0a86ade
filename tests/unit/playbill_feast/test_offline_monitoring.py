"""Feast's monitoring on our offline store: statistics of features, kept and read back."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest
from feast.monitoring.monitoring_service import MonitoringService

from fixtures.asof_store import HOUR, START, open_store, source, taste, values


@pytest.fixture
def store(tmp_path):
    values(
        ("a", START, START, 1.0, "k"),
        ("b", START, START, 2.0, "k"),
        ("b", START + HOUR, START, 4.0, "l"),
        ("c", START + HOUR, START, None, None),
        ("c", START + 9 * HOUR, START, 99.0, "z"),
    ).write_parquet(tmp_path / "taste.parquet")
    return open_store(tmp_path, taste())


@pytest.fixture
def offline(store):
    return store.provider.offline_store


def test_statistics_are_those_of_numpy(store, offline):
    columns = [("x", "numeric"), ("y", "categorical"), ("gone", "numeric")]
    given = (store.config, source("taste.parquet"), columns, "event_timestamp", START, START + HOUR)
    numbers, words = offline.compute_monitoring_metrics(*given, histogram_bins=3, top_n=1)
    known = np.array([1.0, 2.0, 4.0])
    counts, edges = np.histogram(known, bins=3)
    assert (numbers["row_count"], numbers["null_count"], numbers["null_rate"]) == (4, 1, 0.25)
    assert numbers["mean"] == pytest.approx(known.mean())
    assert numbers["stddev"] == pytest.approx(known.std(ddof=1))
    assert [numbers[name] for name in ("min_val", "p50", "p90", "max_val")] == pytest.approx(
        [1.0, 2.0, np.quantile(known, 0.9), 4.0]
    )
    assert numbers["histogram"]["counts"] == counts.tolist()
    assert numbers["histogram"]["bins"] == pytest.approx(edges)
    assert words["histogram"] == {"values": [{"value": "k", "count": 2}], "other_count": 1, "unique_count": 2}
    none = offline.compute_monitoring_metrics(*given[:4], START - HOUR, START - HOUR)
    assert [metric["row_count"] for metric in none] == [0, 0]
    assert none[0]["histogram"] is None


def test_the_latest_moment_is_none_before_the_first_row(store, offline):
    assert (
        offline.get_monitoring_max_timestamp(store.config, source("taste.parquet"), "event_timestamp")
        == START + 9 * HOUR
    )
    assert offline.get_monitoring_max_timestamp(store.config, source("none.parquet"), "event_timestamp") is None


def row(day: int, mean: float, baseline: bool = False) -> dict:
    names = {"project_id": "small", "feature_view_name": "taste", "feature_name": "x", "granularity": "daily"}
    return names | {
        "metric_date": date(2024, 5, day),
        "computed_at": datetime(2024, 5, day, tzinfo=UTC),
        "data_source_type": "batch",
        "is_baseline": baseline,
        "mean": mean,
        "histogram": {"bins": [0.0, mean], "counts": [1]},
    }


def test_kept_statistics_are_replaced_by_key_and_read_back_by_day(store, offline):
    assert offline.query_monitoring_metrics(store.config, "small", "feature") == []
    offline.save_monitoring_metrics(store.config, "feature", [row(2, 2.0, baseline=True), row(1, 1.0)])
    offline.save_monitoring_metrics(store.config, "feature", [row(2, 5.0, baseline=True)])
    found = offline.query_monitoring_metrics(
        store.config, "small", "feature", {"feature_name": "x", "granularity": None}
    )
    assert [(one["metric_date"], one["mean"]) for one in found] == [("2024-05-01", 1.0), ("2024-05-02", 5.0)]
    assert found[1]["histogram"] == {"bins": [0.0, 5.0], "counts": [1]}
    late = offline.query_monitoring_metrics(store.config, "small", "feature", start_date=date(2024, 5, 2))
    assert [one["is_baseline"] for one in late] == [True]
    offline.clear_monitoring_baseline(store.config, "small", feature_name="x")
    assert not any(one["is_baseline"] for one in offline.query_monitoring_metrics(store.config, "small", "feature"))
    assert offline.query_monitoring_metrics(store.config, "other", "feature") == []


def test_feasts_own_monitoring_runs_on_it(store, offline):
    service = MonitoringService(store)
    outcome = service.compute_metrics(
        project="small", feature_view_name="taste", start_date=START.date(), end_date=START.date()
    )
    assert outcome["status"] == "completed"
    kept = service.get_feature_metrics(project="small", feature_view_name="taste")
    assert {one["feature_name"]: one["row_count"] for one in kept} == {"x": 5, "y": 5}
