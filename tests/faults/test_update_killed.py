"""An update killed with SIGKILL at one step after the other, and at last left to finish."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import polars as pl
import pytest

from fixtures.new_days import arrive, champion_of, define
from fixtures.small_project import Shell
from playbill.continual.incremental.watermarks import UpdateRecords
from playbill.evaluation.canvases.loaded_version import frozen_split
from playbill.features.registration import render
from playbill.ranking.scoring.bundle import read_bundle
from playbill.tables import Tables
from playbill.versions.tracking import Tracking

DIES = """
import os, signal, sys
import importlib_metadata
import playbill.continual.incremental.run as run
import playbill.continual.incremental.update as update
from playbill.cli.main import main

importlib_metadata.packages_distributions = lambda: print("looked at every installed package") or {}

def die(*_, **__):
    print(*(name for name in sys.argv.pop().split(",") if name in sys.modules), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

class Dies:
    def __get__(self, *_):
        return die

place, name = sys.argv[1].split(".")
owner = {"run": run, "update": update, "records": update.UpdateRecords}[place]
setattr(owner, name, die if place != "records" else Dies())
main(sys.argv[2:-1], standalone_mode=False)
"""
SLOW = ("torch._dynamo", "torch.distributed.fsdp", "scipy.optimize", "scipy.special", "matplotlib", "ray", "sympy")
"""Modules that take a fifth of a second to a second, which an update has no use for."""
STEPS = (
    "run.measure_champion",  # trained, not measured
    "records.published",  # registered, and not recorded as that
    "update.promote",  # recorded, and its gates not held
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory, filled, migrated_mlflow):
    """A project with a champion and a day that it has not learnt."""
    shell = champion_of(filled, tmp_path_factory.mktemp("killed") / "project", migrated_mlflow)
    arrive(shell, 1, late=3)
    define(shell, promote="auto")
    return shell


def left(shell):
    """Return the events that version 2 has learnt, the plays that it counted, and its weights."""
    bundle = read_bundle(Tracking(shell.workspace).download("daily", 2))
    frame = frozen_split(bundle.folder).frame
    learnt = frame.filter(pl.col("fold").cast(pl.String) == "train")["event_id"].sort()
    return learnt.to_list(), bundle.titles.rows(), (bundle.folder / "weights.safetensors").read_bytes()


def test_an_update_that_is_killed_at_every_step_ends_as_one_that_nobody_disturbed(shell, tmp_path):
    undisturbed = Shell(tmp_path / "undisturbed")
    shutil.copytree(shell.folder, undisturbed.folder, ignore=shutil.ignore_patterns("mlflow_artifacts"))
    render(undisturbed.workspace)
    assert undisturbed.json("update", "daily")["promoted"]

    for step in STEPS:
        arguments = ["--project", str(shell.folder), "-w", "small", "update", "daily"]
        done = subprocess.run(
            [sys.executable, "-c", DIES, step, *arguments, ",".join(SLOW)], capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, f"{step}: {done.stdout}{done.stderr}"
        assert not done.stdout.strip(), f"{step}: {done.stdout}"
        if step == "records.published":
            # What arrives while an update is under way is the next one's.
            arrive(shell, 2, features=False)
    found = shell.json("update", "daily")
    # The version is decided on first, and the day that came meanwhile goes on from it.
    assert (found["status"], found["version"], found["parent"]) == ("updated", 3, "daily:2"), found
    assert left(shell) == left(undisturbed)
    learnt, titles, _ = left(shell)
    assert len(learnt) == len(set(learnt))
    log = Tables(shell.workspace).interactions().filter(pl.col("event_id").is_in(learnt), pl.col("action") == "play")
    assert {title: count for title, count in titles if count} == dict(log["title_id"].value_counts().iter_rows())
    tracking = Tracking(shell.workspace)
    assert [one.version for one in tracking.versions("daily")] == [3, 2, 1]
    rows = UpdateRecords(shell.workspace, "daily").rows()
    assert [(row.state, row.version, row.late) for row in rows] == [("published", 3, 0), ("published", 2, 3)]
    assert rows[0].learnt_before == len(learnt)
