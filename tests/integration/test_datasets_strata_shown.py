"""Strata, where people look for them: `playbill dataset build` and `show`, the columns on disk, and MLflow's tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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
from playbill.training.recording import examples_summary, log_examples
from playbill.versions.tracking import Tracking

MODEL = "model_zoo/models/everycanvas/model.yaml"
FLOOR = 0.04


@pytest.fixture(scope="module")
def shell(tmp_path_factory, filled, migrated_mlflow):
    """A project whose model has strata."""
    folder = tmp_path_factory.mktemp("strata") / "project"
    left = shutil.ignore_patterns("runs", "serving", "datasets", "mlflow*", "playbill.db*", "*.pyc", "__pycache__")
    shutil.copytree(filled.folder, folder, ignore=left)
    shutil.copyfile(migrated_mlflow, folder / ".playbill" / "mlflow.db")
    made = Shell(folder)
    render(made.workspace)
    made.edit(MODEL, "promote: manual", f"promote: manual\nsampling: {{strata: [country, tenure], floor: {FLOOR}}}")
    return made


@pytest.fixture(scope="module")
def built(shell):
    return shell.json("dataset", "build", "everycanvas")


def test_the_record_and_the_rows_say_the_same(built) -> None:
    strata, train = built["strata"], StoredDataset.open(built["folder"]).scan("train").collect()
    assert min(one["sampled_share"] for one in strata) >= FLOOR
    assert min(one["share"] for one in strata) < FLOOR
    texts = {one["name"]: (one["rows"], one["drawn"]) for one in strata}
    found = train.group_by("stratum").agg(pl.len(), pl.col("draws").sum())
    assert {name: (rows, draws) for name, rows, draws in found.iter_rows()} == texts
    assert sum(one["weight"] * one["drawn"] for one in strata) == pytest.approx(train.height)
    assert all(" · " in name for name in texts)


def test_show_prints_the_log_the_epoch_and_the_weight(shell, built) -> None:
    text = shell.type("dataset", "show", built["folder"]).output
    assert "Examples by stratum" in text
    for one in built["strata"]:
        (line,) = [line for line in text.splitlines() if one["name"] in line and f"{one['weight']:.4f}" in line]
        assert f"{one['share']:.2%}" in line
        assert f"{one['sampled_share']:.2%}" in line
    assert shell.json("dataset", "show", built["folder"])["strata"] == built["strata"]


def test_a_run_keeps_the_table_and_its_summary(shell, built, tmp_path) -> None:
    workspace = shell.workspace
    tables, clock = Tables(workspace), workspace_clock(workspace)
    resolved = load_zoo(workspace.project.model_zoo, workspace.project.feature_repo).model("everycanvas")
    split = make_split("leave_one_out", tables.interactions())
    data = build_training_set(tables, resolved, split, FeatureDoor(workspace), clock)
    with Tracking(workspace).start_run("everycanvas", "strata", {}, {"examples": examples_summary(data)}) as run:
        log_examples(run, data)
    client = MlflowClient(workspace.mlflow_uri)
    kept = json.loads(Path(client.download_artifacts(run.run_id, "tables/strata.json", str(tmp_path))).read_text())
    rows = [dict(zip(kept["columns"], row, strict=True)) for row in kept["data"]]
    for row, one in zip(rows, built["strata"], strict=True):
        assert row.pop("stratum") == one["name"]
        assert row == pytest.approx({key: value for key, value in one.items() if key != "name"})
    params = client.get_run(run.run_id).data.params
    assert int(params["examples.strata.count"]) == len(rows)
    assert json.loads(params["examples.rows"]) == sum(row["rows"] for row in rows)


def test_a_floor_that_cannot_be_kept_writes_nothing(shell, tmp_path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(shell.folder, folder, ignore=shutil.ignore_patterns("datasets"))
    high = Shell(folder)
    high.edit(MODEL, f"floor: {FLOOR}", "floor: 0.6")
    what = r"strata cannot each have 0\.6 of an epoch"
    high.refused("dataset", "build", "everycanvas", "--out", tmp_path / "set", match=what)
    assert not (tmp_path / "set").exists()
