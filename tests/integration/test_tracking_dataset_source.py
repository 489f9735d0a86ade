"""Training sets in MLflow: logged as the input of a run, and found again from the run's own JSON."""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.data.dataset_registry import get_registered_constructors, register_constructor
from mlflow.data.dataset_source_registry import (
    get_dataset_source_from_json,
    get_registered_sources,
    register_dataset_source,
    resolve_dataset_source,
)

from fixtures.small_dataset import write_small_dataset
from playbill.datasets.export.stored import StoredDataset
from playbill.errors import IntegrityError, ServiceError
from playbill.versions.tracking import Tracking
from playbill.versions.tracking.dataset_source import (
    PlaybillDataset,
    PlaybillDatasetSource,
    dataset_tags,
    from_playbill,
    load_playbill,
    log_dataset,
)

ENTRY_POINTS = """
[mlflow.dataset_source]
playbill = playbill.versions.tracking.dataset_source:PlaybillDatasetSource

[mlflow.dataset_constructor]
from_playbill = playbill.versions.tracking.dataset_source:from_playbill
load_playbill = playbill.versions.tracking.dataset_source:load_playbill
"""


@pytest.fixture(autouse=True)
def registered():
    """Register as the entry points do, where this installation has none yet."""
    if PlaybillDatasetSource not in get_registered_sources():
        register_dataset_source(PlaybillDatasetSource)
    for constructor in (from_playbill, load_playbill):
        if constructor.__name__ not in get_registered_constructors():
            register_constructor(constructor)


@pytest.fixture
def stored(tmp_path):
    return StoredDataset.open(write_small_dataset(tmp_path / "sets" / "the small one"))


@pytest.fixture
def run(mlflow_workspace, stored):
    """A finished run that has the training set as its input."""
    tags = dataset_tags(stored.manifest, "abc")
    with Tracking(mlflow_workspace).start_run("datasets", "small", tags) as opened:
        log_dataset(opened, stored)
    return MlflowClient(tracking_uri=mlflow_workspace.mlflow_uri).get_run(opened.run_id)


def test_a_run_leads_back_to_the_rows(run, stored):
    (logged,) = run.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in logged.tags} == {"mlflow.data.context": "training"}
    assert (logged.dataset.name, logged.dataset.source_type) == ("small:3", "playbill")
    assert stored.manifest.entities.rows_sha256.startswith(logged.dataset.digest)
    assert len(logged.dataset.digest) == 32

    source = get_dataset_source_from_json(logged.dataset.source, logged.dataset.source_type)
    assert source.load().scan("train").collect().equals(stored.scan("train").collect())
    assert mlflow.data.get_source(logged.dataset).load().manifest == stored.manifest


def test_profile_and_columns_are_in_the_run(run, stored):
    (logged,) = run.inputs.dataset_inputs
    profile = json.loads(logged.dataset.profile)
    counts = stored.scan().group_by(pl.col("fold").cast(pl.String)).len().collect()
    assert {fold: one["rows"] for fold, one in profile["folds"].items()} == dict(counts.iter_rows())
    assert profile["rows"] == stored.manifest.rows
    assert profile["folds"]["train"]["positive"] == {"play": stored.manifest.folds["train"].positive["play"]}
    columns = {one["name"]: one for one in json.loads(logged.dataset.schema)["mlflow_colspec"]}
    assert (columns["event_at"]["type"], columns["label__play"]["type"]) == ("datetime", "float")
    assert (columns["event_id"]["required"], columns["label__play"]["required"]) == (True, False)


def test_the_run_has_the_lineage_and_the_manifest(run, stored, mlflow_workspace):
    tags = run.data.tags
    assert tags["playbill.dataset_digest"] == stored.manifest.digest
    assert (tags["playbill.data_snapshot"], tags["playbill.labels"]) == ("s1", "play:2")
    assert (tags["playbill.protocol"], tags["playbill.git_revision"]) == ("leave_one_out", "abc")
    client = MlflowClient(tracking_uri=mlflow_workspace.mlflow_uri)
    path = client.download_artifacts(run.info.run_id, "dataset/manifest.json")
    assert json.loads(Path(path).read_text())["digest"] == stored.manifest.digest


def test_mlflow_resolves_a_folder_a_uri_and_an_open_one(stored, tmp_path):
    expected = stored.manifest.digest
    uri = PlaybillDatasetSource(stored.folder).uri
    assert uri.startswith("playbill-dataset:///")
    assert " " not in uri
    for raw in (str(stored.folder), uri, stored):
        source = resolve_dataset_source(raw, candidate_sources=[PlaybillDatasetSource])
        assert (source.folder, source.digest) == (stored.folder, expected)
    assert not PlaybillDatasetSource._can_resolve(str(tmp_path))
    assert not PlaybillDatasetSource._can_resolve("s3://bucket/folder")
    assert not PlaybillDatasetSource._can_resolve(7)


def test_the_constructors_are_under_mlflow_data(stored):
    opened = mlflow.data.load_playbill(stored.folder)
    assert isinstance(opened, PlaybillDataset)
    assert opened.digest == mlflow.data.from_playbill(stored).digest
    named = mlflow.data.load_playbill(PlaybillDatasetSource(stored.folder).uri, name="mine", digest="d")
    assert (named.name, named.digest) == ("mine", "d")


def test_mlflows_own_log_input_takes_it(stored, mlflow_workspace):
    with Tracking(mlflow_workspace).start_run("datasets", "by hand") as opened:
        mlflow.log_input(mlflow.data.load_playbill(stored.folder), context="evaluation")
    found = MlflowClient(tracking_uri=mlflow_workspace.mlflow_uri).get_run(opened.run_id)
    assert [one.dataset.source_type for one in found.inputs.dataset_inputs] == ["playbill"]


def test_another_one_in_the_same_folder_is_not_taken_for_it(run, stored):
    (logged,) = run.inputs.dataset_inputs
    write_small_dataset(stored.folder, rows=50)
    source = get_dataset_source_from_json(logged.dataset.source, "playbill")
    with pytest.raises(IntegrityError, match=r"was \w+ when it was logged"):
        source.load()


def test_the_digest_is_that_of_who_and_when_not_of_features(stored, tmp_path):
    other = StoredDataset.open(write_small_dataset(tmp_path / "other", feature=9.0))
    assert other.manifest.digest != stored.manifest.digest
    assert from_playbill(other).digest == from_playbill(stored).digest
    shorter = StoredDataset.open(write_small_dataset(tmp_path / "shorter", rows=50))
    assert from_playbill(shorter).digest != from_playbill(stored).digest


def test_a_database_that_cannot_be_written_is_one_message(stored, mlflow_workspace):
    with Tracking(mlflow_workspace).start_run("datasets", "small") as opened:
        gone = opened.__class__(opened.connection, "no-such-run", opened.experiment_id)
        with pytest.raises(ServiceError, match="logging a training set failed"):
            log_dataset(gone, stored)


def test_mlflow_finds_it_through_its_entry_points(stored, tmp_path):
    about = tmp_path / "site" / "plugged-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    code = (
        f"import sys; sys.path.insert(0, {str(about.parent)!r})\n"
        "import mlflow.data, json\n"
        f"made = mlflow.data.load_playbill({str(stored.folder)!r})\n"
        "from mlflow.data.dataset_source_registry import resolve_dataset_source\n"
        f"found = resolve_dataset_source({str(stored.folder)!r})\n"
        "print(json.dumps([made.digest, type(found).__name__, found.load().manifest.digest]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [
        from_playbill(stored).digest,
        "PlaybillDatasetSource",
        stored.manifest.digest,
    ]
    assert "Failure attempting to register" not in done.stderr
