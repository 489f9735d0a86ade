"""What `playbill train` leaves in MLflow, on a real run of the shipped model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from playbill.config import Project

if TYPE_CHECKING:
    from small_project import Playbill

    from playbill.config import Workspace
    from playbill.tracking import ModelVersion

MOST_METRICS = 100


@pytest.fixture(scope="module")
def workspace(trained: Playbill) -> Workspace:
    return Project.find(trained.folder).workspace(trained.workspace)


@pytest.fixture(scope="module")
def client(workspace: Workspace) -> Any:
    from playbill.tracking.connection import Connection

    return Connection(workspace.mlflow_uri).client


@pytest.fixture(scope="module")
def version(workspace: Workspace) -> ModelVersion:
    from playbill.tracking import Tracking

    return Tracking(workspace).version("everycanvas", 1)


def test_a_run_has_few_metrics_and_gates_read_the_rest_from_its_table(
    workspace: Workspace, client: Any, version: ModelVersion
) -> None:
    from playbill.tracking import Tracking

    shown = client.get_run(version.run_id).data.metrics
    assert len(shown) <= MOST_METRICS, sorted(shown)
    (evaluation,) = Tracking(workspace).evaluations(version)
    numbers = evaluation.metrics
    canvases = {name.partition("/")[0] for name in numbers}
    assert {"home", "search", "more_like_this"} <= canvases
    for canvas in canvases:
        ends = [f"{canvas}/ndcg_at_10{end}" for end in ("", "/low", "/high", "/best_baseline")]
        assert set(ends) <= shown.keys(), canvas
    assert shown["home/ndcg_at_10"] == numbers["home/ndcg@10"]
    assert any(name.startswith("loss/") for name in shown)
    assert len(numbers) > 3 * len(shown)
    assert any("/country=" in name for name in numbers)
    by_request = evaluation.requests("home")
    assert by_request is not None
    assert by_request["ndcg@10"].mean() == pytest.approx(numbers["home/ndcg@10"], abs=1e-6)


def test_a_version_is_tagged_with_exactly_the_labels_it_learnt(workspace: Workspace, version: ModelVersion) -> None:
    from playbill.tracking import Tracking

    learnt = Tracking(workspace).record(version).resolved.model.heads
    labels = {name.partition(":")[0] for name in version.tags["playbill.labels"].split(",")}
    assert labels == {head.label for head in learnt.values() if head.label}
    assert "remind_me" not in labels, "the small service logs no reminders"
