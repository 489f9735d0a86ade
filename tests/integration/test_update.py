"""Updates by the command line: each event is learnt once in a lineage, and what cannot be updated says why."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
import yaml

from fixtures.new_days import arrive, champion_of, define
from fixtures.small_project import Shell
from playbill.continual.incremental.watermarks import UpdateLease, UpdateRecords
from playbill.evaluation.canvases.loaded_version import frozen_split
from playbill.features.registration import render
from playbill.ranking.scoring.bundle import read_bundle
from playbill.tables import Tables
from playbill.versions.tracking import Tracking


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory, filled, migrated_mlflow):
    return champion_of(filled, tmp_path_factory.mktemp("update") / "project", migrated_mlflow)


@pytest.fixture
def shell(trained_once, tmp_path):
    """A copy of the project, whose artifacts of MLflow are those of the first."""
    folder = tmp_path / "project"
    shutil.copytree(trained_once.folder, folder, ignore=shutil.ignore_patterns("mlflow_artifacts"))
    copy = Shell(folder)
    render(copy.workspace)
    return copy


def bundle(shell, version):
    return read_bundle(Tracking(shell.workspace).download("daily", version))


def learnt(shell, version):
    """Return the events that a version has learnt from."""
    frame = frozen_split(bundle(shell, version).folder).frame
    events = frame.filter(pl.col("fold").cast(pl.String) == "train")["event_id"]
    assert events.is_unique().all()
    return set(events)


def test_days_are_learnt_once_and_a_second_update_has_nothing_to_do(shell):
    first = learnt(shell, 1)
    assert shell.json("update", "daily")["status"] == "nothing to do"
    arrive(shell, 1, late=4)
    done = shell.json("update", "daily")
    assert (done["status"], done["version"], done["parent"]) == ("updated", 2, "daily:1")
    assert (done["late_events"], done["new_titles"], done["promoted"]) == (4, 2, False)
    assert done["optimizer_carried"]
    assert done["replayed"] > 0
    assert done["matured"] > 0
    assert [gate["passed"] for gate in done["gates"]] == [True]
    second, everything = learnt(shell, 2), set(Tables(shell.workspace).interactions()["event_id"])
    assert first < second < everything
    assert len(second - first) == done["events"]
    assert {f"late1-{place}" for place in range(4)} <= second
    assert len(everything - second) == done["held_out"]
    grown, before = bundle(shell, 2), bundle(shell, 1)
    assert grown.encoder.state.titles == (*before.encoder.state.titles, "n1_0", "n1_1")
    plays = dict(grown.titles.iter_rows())
    played = Tables(shell.workspace).interactions().filter(pl.col("event_id").is_in(second), pl.col("action") == "play")
    assert {title: count for title, count in plays.items() if count} == dict(
        played["title_id"].value_counts().iter_rows()
    )

    waits = shell.json("update", "daily")
    assert (waits["status"], waits["version"]) == ("nothing to do", 2)
    assert "waits to be promoted" in waits["reason"]
    # Its parent is still champion: another day takes those events again, in a lineage without version 2.
    arrive(shell, 2)
    other = shell.json("update", "daily")
    assert (other["version"], other["parent"]) == (3, "daily:1")
    assert learnt(shell, 3) > second
    shell.json("promote", "daily:3")
    assert shell.json("update", "daily")["reason"].startswith("no event has arrived")
    records = UpdateRecords(shell.workspace, "daily").rows()
    assert [(row.version, row.state, row.parent_version) for row in records] == [
        (3, "published", 1),
        (2, "published", 1),
    ]
    assert shell.json("recommend", "--member", "m1", "--model", "daily")["items"]


def test_an_update_promotes_itself_where_the_definition_says_so_and_its_gates_hold(shell):
    gates = [{"metric": "ndcg@10", "canvas": "home", "against": "champion", "tolerance": "+1000%"}]
    define(shell, promote="auto", gates=gates)
    arrive(shell, 1)
    runs = shell.workspace.runs
    shutil.rmtree(next(runs.glob("daily-*")))  # as on another machine than the one that trained the champion
    (runs / "daily-update-old").mkdir()
    printed = shell.type("update", "daily", "--json").stdout
    assert "the optimizer starts anew: the checkpoints of daily:1 are not in this workspace" in printed
    refused = json.loads(printed.strip().splitlines()[-1])
    assert (refused["status"], refused["promoted"], refused["optimizer_carried"]) == ("updated", False, False)
    assert refused["reason"].startswith("rejected: ")
    assert [row.folder for row in UpdateRecords(shell.workspace, "daily").rows()] == [
        folder.name for folder in runs.glob("daily-*")
    ], "folders of updates that nothing goes on from are removed"
    assert shell.json("update", "daily")["status"] == "nothing to do"
    define(shell, promote="auto")
    done = shell.json("update", "daily")
    assert (done["version"], done["promoted"]) == (3, True), done
    assert Tracking(shell.workspace).alias("daily", "champion") == 3


def test_only_new_titles_are_stated(shell):
    folder = shell.folder / "arriving"
    folder.mkdir()
    row = {"title_id": ["x"], "name": ["X"], "kind": ["film"], "genres": [["Drama"]]}
    pl.DataFrame(row).write_ndjson(folder / "titles.ndjson")
    assert shell.type("ingest", "push", "--titles", folder / "titles.ndjson").exit_code == 0
    found = shell.json("update", "daily")
    assert (found["status"], found["new_titles"]) == ("nothing to do", 1)
    assert "1 new titles are ranked by their metadata" in found["reason"]


def test_what_cannot_be_updated_says_why(shell):
    shell.refused("update", "dayly", match=r"dayly.*Did you mean 'daily'")
    shell.refused("update", "everycanvas", match="no version yet.*playbill train everycanvas")
    definition = shell.folder / "model_zoo" / "models" / "daily" / "model.yaml"
    written = definition.read_text()
    changed = yaml.safe_load(written) | {"trunk": {"dim": 32, "layers": 1, "heads": 2}, "version": 2}
    definition.write_text(yaml.safe_dump(changed))
    shell.refused("update", "daily", match=r"(?s)playbill train daily.*model.trunk.dim: 32, but the champion has 16")
    definition.write_text(written)
    with UpdateLease(shell.workspace, "daily").held():
        shell.refused("update", "daily", match=r"'daily' is being updated by process \d+ on \S+ since .* UTC; wait")
    Tracking(shell.workspace).delete_alias("daily", "champion")
    shell.refused("update", "daily", match="has no champion to update; playbill promote daily")
