"""`playbill dataset build` and `show` over a real workspace, its Feast store and its MLflow."""

import json
import os
import shutil
import subprocess

import polars as pl
import pytest
from mlflow import MlflowClient

from fixtures.small_project import Shell
from playbill.datasets import build_training_set, make_split
from playbill.datasets.export.stored import StoredDataset
from playbill.definitions.zoo import load_zoo
from playbill.features import FeatureDoor
from playbill.features.registration import render
from playbill.tables import Tables, workspace_clock

BUILD = ("dataset", "build", "everycanvas")


@pytest.fixture(scope="module")
def shell(tmp_path_factory, filled, migrated_mlflow):
    """A project of this module's own: the session's must not get training sets."""
    folder = tmp_path_factory.mktemp("sets") / "project"
    left = shutil.ignore_patterns("runs", "serving", "mlflow*", "playbill.db*", "*.pyc", "__pycache__")
    shutil.copytree(filled.folder, folder, ignore=left)
    shutil.copyfile(migrated_mlflow, folder / ".playbill" / "mlflow.db")
    made = Shell(folder)
    render(made.workspace)
    return made


@pytest.fixture(scope="module")
def built(shell):
    return shell.json(*BUILD)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rows_lie_in_the_workspace_under_the_name_of_their_inputs(shell, built):
    stored = StoredDataset.open(built["folder"])
    assert stored.folder == shell.home / "datasets" / f"everycanvas-{built['inputs_digest'][:12]}"
    assert (built["written"], built["model"], built["protocol"]) == (True, "everycanvas:5", "leave_one_out")
    assert built["rows"] == stored.scan().collect().height > 3_000
    assert built["folds"]["test"]["members"] == 160
    inputs = stored.manifest.inputs
    assert inputs.tables == Tables(shell.workspace).snapshot_id()
    schema = FeatureDoor(shell.workspace).schema("everycanvas_v3")
    assert inputs.features.version == schema.version
    names = {column.name for column in stored.manifest.columns}
    assert {column.name for column in schema.of("member", "request")} <= names
    assert {f"title__{column.name}" for column in schema.of("title")} <= names


def test_built_again_it_is_left_and_elsewhere_it_is_the_same_bytes(shell, built, tmp_path):
    again = shell.json(*BUILD)
    assert again == built | {"written": False}
    other = shell.json(*BUILD, "--out", tmp_path / "other")
    assert tree(tmp_path / "other") == tree(shell.home / "datasets" / os.path.basename(built["folder"]))
    assert other["digest"] == built["digest"]


def test_another_process_with_other_threads_writes_the_same_bytes(shell, built, tmp_path):
    from fixtures.small_project import Playbill

    command = Playbill(shell.folder).command(*BUILD, "--out", str(tmp_path / "set"))
    environment = {
        **os.environ,
        "POLARS_MAX_THREADS": "3",
        "OMP_NUM_THREADS": "2",
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
    }
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert tree(tmp_path / "set") == tree(shell.home / "datasets" / os.path.basename(built["folder"]))


@pytest.mark.parametrize("protocol", ["leave_one_out", "global_time"])
def test_the_rows_are_what_training_reads(shell, tmp_path, protocol):
    workspace = shell.workspace
    resolved = load_zoo(workspace.project.model_zoo, workspace.project.feature_repo).model("everycanvas")
    tables, clock = Tables(workspace), workspace_clock(workspace)
    split = make_split(protocol, tables.interactions())
    data = build_training_set(tables, resolved, split, FeatureDoor(workspace), clock)
    shell.json(*BUILD, "--protocol", protocol, "--out", tmp_path / "set")
    stored = StoredDataset.open(tmp_path / "set")
    rows = stored.scan("train").collect().sort("member_id", "seq")
    state = data.encoder.state

    numeric = rows.select(state.numeric).cast(pl.Float32).fill_null(float("nan")).to_numpy()
    assert pl.DataFrame(numeric).equals(pl.DataFrame(data.context.numeric))
    assert numeric.shape[1] > 10
    titles = data.encoder.title_rows.encode(rows["title_id"])
    own = rows.select(f"title__{name}" for name in state.title_snapshot).fill_null(float("nan")).to_numpy()
    assert pl.DataFrame(own).equals(pl.DataFrame(data.titles.snapshots[data.snapshot, titles]))
    for head, values in data.labels.items():
        assert pl.Series(values).equals(rows[f"label__{head}"].fill_null(float("nan")).alias(""))
    assert stored.manifest.inputs.split == split.digest


def test_show_says_which_inputs_differ(shell, built, tmp_path):
    moment = "2024-03-01T00:00:00+00:00"
    shell.json(*BUILD, "--until", moment, "--out", tmp_path / "then")
    shown = shell.json("dataset", "show", built["folder"], "--against", tmp_path / "then")
    assert shown["same_rows"] is False
    found = {one["name"]: (one["here"], one["there"]) for one in shown["differences"]}
    assert found.keys() == {"moment", "split"}
    assert found["moment"][1].startswith("2024-03-01T00:00:00")
    assert StoredDataset.open(tmp_path / "then").manifest.folds["test"].last.isoformat() < moment

    text = shell.type("dataset", "show", built["folder"], "--against", tmp_path / "then").output
    for word in ("member_activity", "everycanvas_v3", "Inputs that differ", "The rows differ."):
        assert word in text


def test_a_changed_definition_is_named_by_label_and_service(shell, built, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(shell.folder, folder, ignore=shutil.ignore_patterns("datasets", "feast_registry.db*"))
    changed = Shell(folder)
    changed.edit("model_zoo/labels/thumbs_up.yaml", "version: 1", "version: 2")
    changed.edit(
        "feature_repo/services.py", "[*MEMBER, *TITLE, title_anticipation, title_age]", "[*MEMBER, *TITLE, title_age]"
    )
    assert changed.type("apply").exit_code == 0
    changed.json(*BUILD, "--out", tmp_path / "set")
    shown = shell.json("dataset", "show", built["folder"], "--against", tmp_path / "set")
    found = {one["name"] for one in shown["differences"]}
    assert {"labels.thumbs_up.version", "features.version", "model.spec_hash"} <= found
    assert "tables" not in found


def test_materializing_changes_no_byte(shell, built, tmp_path):
    assert shell.type("materialize").exit_code == 0
    assert shell.json(*BUILD, "--out", tmp_path / "set")["digest"] == built["digest"]


def test_logged_it_is_the_input_of_a_run_that_leads_back_to_the_rows(shell, built):
    logged = shell.json(*BUILD, "--log")
    client = MlflowClient(tracking_uri=shell.workspace.mlflow_uri)
    run = client.get_run(logged["run_id"])
    assert client.get_experiment(run.info.experiment_id).name == "small/datasets"
    assert (run.info.status, run.data.tags["playbill.dataset_digest"]) == ("FINISHED", built["digest"])
    (entry,) = run.inputs.dataset_inputs
    source = json.loads(entry.dataset.source)
    assert source["uri"] == f"playbill-dataset://{built['folder']}"

    from playbill.versions.tracking.dataset_source import PlaybillDatasetSource

    rows = PlaybillDatasetSource.from_json(entry.dataset.source).load().scan("test").collect()
    assert rows.height == json.loads(entry.dataset.profile)["folds"]["test"]["rows"] == 160
