"""What `playbill train` leaves in MLflow, on a real run of the shipped model."""

from __future__ import annotations

import getpass
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from playbill.config import ProjectFolder

if TYPE_CHECKING:
    from fixtures.small_project import Playbill
    from playbill.config import Workspace
    from playbill.versions.tracking import ModelVersion

MOST_METRICS = 100


@pytest.fixture(scope="module")
def workspace(trained: Playbill) -> Workspace:
    return ProjectFolder.find(trained.folder).workspace(trained.workspace)


@pytest.fixture(scope="module")
def client(workspace: Workspace) -> Any:
    from playbill.versions.tracking.connection import Connection

    return Connection(workspace.mlflow_uri).client


@pytest.fixture(scope="module")
def version(workspace: Workspace) -> ModelVersion:
    from playbill.versions.tracking import Tracking

    return Tracking(workspace).version("everycanvas", 1)


def test_a_run_has_few_metrics_and_gates_read_the_rest_from_its_table(
    workspace: Workspace, client: Any, version: ModelVersion
) -> None:
    from playbill.versions.tracking import Tracking

    shown = client.get_run(version.run_id).data.metrics
    assert len(shown) <= MOST_METRICS, sorted(shown)
    # Later evaluations of the version come first, that of its training run last.
    *_, evaluation = Tracking(workspace).evaluations(version)
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
    from playbill.versions.tracking import Tracking

    learnt = Tracking(workspace).record(version).resolved.model.heads
    labels = {name.partition(":")[0] for name in version.tags["playbill.labels"].split(",")}
    assert labels == {head.label for head in learnt.values() if head.label}
    assert "remind_me" not in labels, "the small service logs no reminders"


def test_a_run_says_who_made_it_from_what_by_which_command(
    workspace: Workspace, client: Any, version: ModelVersion
) -> None:
    import mlflow

    from playbill.tables import Tables

    run = client.get_run(version.run_id)
    assert re.fullmatch(r"everycanvas leave_one_out \d\d \w{3} \d\d:\d\d [0-9a-f]{6}", run.info.run_name)
    assert run.data.tags["mlflow.user"] == getpass.getuser()
    assert run.data.tags["mlflow.source.name"] == "playbill train everycanvas"
    (entry,) = run.inputs.dataset_inputs
    snapshot = Tables(workspace).snapshot_id()
    assert (entry.dataset.name, entry.dataset.digest) == (workspace.name, snapshot)
    source = mlflow.data.get_source(entry.dataset)
    loaded = source.load()
    assert loaded.snapshot_id() == snapshot
    assert loaded.interactions().height == Tables(workspace).interactions().height
    assert max(len(value) for name, value in run.data.tags.items() if name.startswith("playbill.")) <= 200


def test_a_version_says_why_the_log_is_held_out_as_it_is(
    workspace: Workspace, client: Any, version: ModelVersion
) -> None:
    from playbill.datasets.protocol_choice import choose_protocol
    from playbill.tables import Tables

    choice = choose_protocol(Tables(workspace).interactions())
    assert choice.protocol == version.tags["playbill.protocol"] == "leave_one_out"
    assert choice.reason == version.tags["playbill.protocol_reason"]
    sentence = f"held out by {choice.protocol}, since {choice.reason}"
    assert sentence in version.description
    notes = Path(client.download_artifacts(version.run_id, "notes.txt")).read_text()
    assert notes.splitlines()[0] == sentence


def test_a_dataset_source_says_when_the_tables_have_moved_on(workspace: Workspace) -> None:
    from playbill.errors import IntegrityError
    from playbill.versions.tracking.dataset_source import PlaybillDatasetSource, TablesSource

    text = TablesSource(workspace.project.root, workspace.name, "0123456789abcdef").to_json()
    with pytest.raises(IntegrityError, match="the run was trained on 0123456789abcdef"):
        PlaybillDatasetSource.from_json(text).load()


def test_pages_say_what_a_version_is_worth_first(workspace: Workspace, client: Any, version: ModelVersion) -> None:
    from playbill.versions.tracking import Tracking

    tracking = Tracking(workspace)
    paragraphs = version.description.split("\n\n")
    assert re.match(r"Home ndcg@10 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\], best baseline \w+ 0\.\d{4}\.", paragraphs[0])
    rows = paragraphs[1].splitlines()
    assert rows[2].startswith("| home | ndcg@10 | 0.")
    assert len(rows) > 5
    assert paragraphs[2].startswith(f"Data: workspace {workspace.name}, snapshot ")
    assert "Left out, as the log has nothing to learn it from: heads " in version.description
    assert f"/runs/{version.run_id}/artifacts/evaluation/report.html)" in version.description
    kept = [file.path for file in client.list_artifacts(version.run_id, "card")]
    assert kept == ["card/card.md"]
    page = tracking.description("everycanvas")
    assert page.startswith("Version 1 is champion since ")
    assert rows[2] in page


def test_the_hashes_of_views_are_in_the_bundle_and_not_in_a_tag(workspace: Workspace, version: ModelVersion) -> None:
    from playbill.versions.tracking import Tracking

    views = Tracking(workspace).record(version).views
    assert len(views) > 3
    assert all(re.fullmatch("[0-9a-f]{12}", content) for content in views.values())
    assert "playbill.feature_views" not in version.tags
