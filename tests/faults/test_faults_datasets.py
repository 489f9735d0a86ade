"""Training sets on disk that are damaged, cannot be written, or are asked for too early or by a wrong name."""

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime

import polars as pl
import pyarrow.parquet as pq
import pytest

from fixtures.rewritten_parts import rewrite_part
from fixtures.small_dataset import write_small_dataset
from fixtures.small_project import Playbill
from playbill.datasets.export import write as exporting
from playbill.datasets.export.stored import StoredDataset
from playbill.errors import IntegrityError, StateError
from playbill.features import build_features

BUILD = ("dataset", "build", "everycanvas")


def sets_of(shell):
    """What is in the folder of training sets, hidden or not."""
    folder = shell.home / "datasets"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def stored(tmp_path):
    return StoredDataset.open(write_small_dataset(tmp_path / "set"))


def part_of(stored):
    return stored.manifest.parts[2].path


def test_a_changed_byte_is_found_and_the_file_named(stored):
    path = stored.folder / part_of(stored)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=rf"{part_of(stored)} was changed"):
        StoredDataset.open(stored.folder)
    assert StoredDataset.open(stored.folder, verify=False).manifest == stored.manifest


def test_missing_cut_and_added_files_are_named_together(stored):
    first, second, third = (part.path for part in stored.manifest.parts[:3])
    (stored.folder / first).unlink()
    (stored.folder / second).write_bytes((stored.folder / second).read_bytes()[:-5])
    shutil.copy(stored.folder / third, stored.folder / third.replace("part-0000", "part-0001"))
    (stored.folder / "entities.parquet").write_bytes(b"")
    with pytest.raises(IntegrityError) as failed:
        StoredDataset.open(stored.folder)
    for what in (f"{first} is missing", f"{second} has", "part-0001.parquet is not in the", "entities.parquet has 0"):
        assert what in str(failed.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-40], r"manifest\.json cannot be read: JSONDecodeError"),
        (lambda text: "[]", r"manifest\.json cannot be read"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 2'), "schema_version: Input should be 1"),
        (lambda text: text.replace('"workspace"', '"workshop"'), "workspace: Field required; workshop: Extra"),
        (lambda text: text.replace('"rows": 100', '"rows": 101'), r"manifest\.json was changed"),
    ],
)
def test_a_manifest_that_was_tampered_with_is_refused(stored, damage, message):
    path = stored.folder / "manifest.json"
    text = path.read_text()
    path.write_text(damage(text))
    assert path.read_text() != text
    with pytest.raises(IntegrityError, match=message):
        StoredDataset.open(stored.folder, verify=False)


def test_a_folder_without_a_training_set_says_what_to_run(tmp_path, project):
    with pytest.raises(StateError, match=r"is no training set.*playbill dataset build"):
        StoredDataset.open(tmp_path)
    project.refused("dataset", "show", tmp_path / "nowhere", match="nowhere is no training set")


def test_an_empty_fold_is_empty_and_has_the_columns(tmp_path):
    stored = StoredDataset.open(write_small_dataset(tmp_path / "set", folds=("train", "test")))
    empty = stored.scan("validation").collect()
    assert empty.height == 0
    assert empty.schema == stored.scan("train").collect_schema()
    assert stored.files("validation") == ()
    assert stored.scan().collect().height == stored.manifest.rows
    assert stored.manifest.folds["validation"].first is None


def test_a_label_whose_every_row_is_too_young_is_named_and_nothing_is_written(project):
    project.edit("model_zoo/rewards/long_term.yaml", "matures_after: 8d", "matures_after: 210d")
    project.edit("model_zoo/labels/discovery_play.yaml", "matures_after: 0h", "matures_after: 200d")
    project.refused(
        *BUILD, match=r"label discovery_play: the log spans 90.0 days, so no event is old enough .*matures_after: 200d"
    )
    assert sets_of(project) == []


def test_an_unknown_model_protocol_or_moment_suggests_the_right_one(project):
    project.refused("dataset", "build", "everycanvs", match="unknown model 'everycanvs'. Did you mean 'everycanvas'")
    project.refused(*BUILD, "--protocol", "leave_1_out", match="Did you mean 'leave_one_out'")
    project.refused(*BUILD, "--until", "2031-01-01T00:00:00Z", match="the workspace's clock says")
    project.refused(*BUILD, "--until", "yesterday", match="yesterday")
    project.refused(*BUILD, "--until", "2020-01-01T00:00:00Z", match="protocol leave_one_out")
    assert sets_of(project) == []


def test_features_that_were_not_built_or_registered_say_what_to_run(project):
    shutil.rmtree(project.home / "features")
    project.refused(*BUILD, match="has no values.*playbill -w small features build")
    (project.home / "feature_store.yaml").unlink()
    project.refused(*BUILD, match="playbill -w small apply")
    shutil.rmtree(project.home / "tables")
    project.refused(*BUILD, match="has no data.*ingest")
    assert sets_of(project) == []


def test_features_that_end_before_the_log_are_refused_not_stretched(project):
    build_features(project.workspace, full=True, until=datetime(2024, 3, 1, tzinfo=UTC))
    project.refused(*BUILD, match=r"features end before the last event, 2024-03-30.*'member_activity' up to 2024-03-01")
    assert sets_of(project) == []
    assert project.json(*BUILD, "--until", "2024-03-01T00:00:00Z")["written"]


def full_after(monkeypatch, files):
    """Let the disk be full when so many files have been written."""
    written, real = [], pq.write_table

    def write(table, where, **settings):
        written.append(where)
        if len(written) > files:
            where.write_bytes(b"PAR1half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where))
        real(table, where, **settings)

    monkeypatch.setattr("playbill.datasets.export.manifest.pq.write_table", write)
    return written


def test_a_full_disk_leaves_nothing_and_says_so(project, monkeypatch):
    with monkeypatch.context() as patched:
        written = full_after(patched, files=20)
        project.refused(*BUILD, match="the training set at .*datasets.* cannot be written: the disk is full")
    assert len(written) == 21
    assert sets_of(project) == []
    assert project.json(*BUILD)["written"]


def test_a_full_disk_while_replacing_keeps_the_old_one(project, monkeypatch):
    first = project.json(*BUILD, "--out", project.folder / "set")
    with monkeypatch.context() as patched:
        full_after(patched, files=20)
        again = (*BUILD, "--out", project.folder / "set", "--protocol", "global_time")
        project.refused(*again, match="other inputs: .*protocol")
        project.refused(*again, "--overwrite", match="the disk is full")
    assert project.json("dataset", "show", project.folder / "set")["digest"] == first["digest"]
    assert [path.name for path in project.folder.iterdir() if "set" in path.name] == ["set"]


def test_a_place_that_cannot_be_written_is_one_message(project):
    (project.folder / "file").write_text("")
    project.refused(*BUILD, "--out", project.folder / "file" / "set", match="a file is where a folder is needed")


def test_a_killed_build_leaves_no_training_set_and_the_next_one_is_whole(project):
    command = Playbill(project.folder).command(*BUILD, "--out", str(project.folder / "sets" / "one"))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.perf_counter() + 120
    while not list((project.folder).glob("sets/.one.*.writing/rows/*/*/*.parquet")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.perf_counter() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (project.folder / "sets" / "one").exists()
    assert project.json(*BUILD, "--out", project.folder / "sets" / "one")["written"]
    project.json("dataset", "show", project.folder / "sets" / "one")


def test_a_damaged_training_set_is_refused_unless_overwritten(project):
    made = project.json(*BUILD, "--out", project.folder / "set")
    part = StoredDataset.open(project.folder / "set").files("train")[0]
    part.write_bytes(part.read_bytes() + b"x")
    project.refused(*BUILD, "--out", project.folder / "set", match="damaged training set.*part-0000.parquet has")
    mended = project.json(*BUILD, "--out", project.folder / "set", "--overwrite")
    assert (mended["digest"], mended["written"]) == (made["digest"], True)


def test_features_rebuilt_while_rows_are_written_are_noticed(project, monkeypatch):
    real = exporting.with_features
    profile = next(path for path in (project.home / "features").rglob("*member_profile*") if path.exists())
    file = profile if profile.is_file() else next(profile.rglob("*.parquet"))

    def meanwhile(*arguments):
        found = real(*arguments)
        rewrite_part(file, pl.read_parquet(file).with_columns(country=pl.lit("XX")))
        return found

    monkeypatch.setattr(exporting, "with_features", meanwhile)
    project.refused(*BUILD, match="tables or features changed while the training set was built")
    assert sets_of(project) == []


def test_a_feature_from_after_the_request_would_be_seen(project):
    """The features of a row are those of its moment: a value stamped later changes no row, one stamped before does."""
    first = project.json(*BUILD, "--out", project.folder / "one")
    rows = StoredDataset.open(project.folder / "one").scan().collect()
    profile = next(path for path in (project.home / "features").rglob("*member_profile*") if path.exists())
    file = profile if profile.is_file() else next(profile.rglob("*.parquet"))
    values = pl.read_parquet(file)
    end = rows["event_at"].max()
    later = values.with_columns(
        age=pl.lit(1.0, dtype=values.schema["age"]), event_timestamp=pl.lit(end).cast(values.schema["event_timestamp"])
    )
    at_once = later.filter(~pl.col("member_id").is_in(rows.filter(pl.col("event_at") == end)["member_id"].to_list()))
    rewrite_part(file, pl.concat([values, at_once]))
    second = project.json(*BUILD, "--out", project.folder / "two")
    assert second["inputs_digest"] != first["inputs_digest"]
    assert second["rows_digest"] == first["rows_digest"]
    rewrite_part(file, pl.concat([values, at_once.with_columns(event_timestamp=values["event_timestamp"].min())]))
    third = project.json(*BUILD, "--out", project.folder / "three")
    assert third["rows_digest"] != first["rows_digest"]


def test_mlflow_that_cannot_be_reached_keeps_the_training_set(project):
    (project.folder / ".playbill" / "mlflow.db").write_bytes(b"this is no database" * 100)
    project.refused(*BUILD, "--log", match="MLflow at sqlite:.*cannot be reached")
    (name,) = sets_of(project)
    assert json.loads((project.home / "datasets" / name / "manifest.json").read_text())["workspace"] == "small"
