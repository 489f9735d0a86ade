"""Feast's own MLflow link: a retrieval inside a run says on the run what was retrieved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import polars as pl
import pytest

from playbill.config import Workspace
from playbill.features import FeatureDoor, build_features

ROWS = pl.DataFrame({"member_id": ["m1", "m2"], "event_at": [datetime(2024, 1, 20, tzinfo=UTC)] * 2})


@pytest.fixture
def linked(mlflow_workspace: Workspace, ingest: Callable[[Workspace], None]) -> Iterator[FeatureDoor]:
    """The door of a workspace with features and an MLflow database of its own."""
    import mlflow

    ingest(mlflow_workspace)
    build_features(mlflow_workspace)
    door = FeatureDoor(mlflow_workspace)
    door.apply()
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(mlflow_workspace.mlflow_uri)
    yield door
    mlflow.set_tracking_uri(before)


def test_a_retrieval_tags_the_active_run(linked: FeatureDoor) -> None:
    import mlflow

    with mlflow.start_run() as run:
        linked.member_features("everycanvas_v1", ROWS)
    tags = mlflow.get_run(run.info.run_id).data.tags
    assert tags["feast.project"] == "ml"
    assert tags["feast.feature_service"] == "everycanvas_v1"
    assert tags["feast.entity_count"] == "2"
    assert "member_activity:log_plays_7d" in tags["feast.feature_refs"].split(",")
    assert "title_popularity:log_plays_7d" in tags["feast.feature_refs"].split(",")


def test_a_retrieval_outside_a_run_makes_none(linked: FeatureDoor) -> None:
    import mlflow

    linked.member_features("everycanvas_v1", ROWS)
    assert mlflow.search_runs(search_all_experiments=True, output_format="list") == []
