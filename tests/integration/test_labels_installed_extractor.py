"""An extractor that another package brings: installed, named in YAML, told and published by commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from fixtures.label_log import label_log
from playbill.config import ProjectFolder
from playbill.tables import Tables

ROOT = Path(__file__).parents[2]

MODULE = '''
import polars as pl

from playbill.labels import LabelContext, label_extractor
from playbill.definitions.specs import Spec


class BestOptions(Spec):
    """Options in the label's YAML."""

    floor: float


@label_extractor("best_progress", version=4, inputs=("progress",), actions=("play",), options=BestOptions)
def best_progress(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """How far a play went, nothing below the floor."""
    far = pl.when(pl.col("progress") >= context.options.floor).then(pl.col("progress")).otherwise(0.0)
    known = (pl.col("action") == "play") & pl.col("progress").is_not_null()
    return events.select(pl.when(known).then(far)).to_series()
'''
LABEL = "kind: Label\nname: far\nversion: 2\nextractor: best_progress\noptions: {floor: 0.5}\nmatures_after: 6h\n"
VIEW = '\n\nfar = LabelView(name="label_far", description="How far a play went.", **values("far"))\n'


def install(site: Path, value: str = "best_labels:best_progress", module: str = MODULE) -> None:
    """Lay out a distribution as an installer does."""
    info = site / "best_labels-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: best-labels\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[playbill.labels]\nbest_progress = {value}\n")
    (site / "best_labels.py").write_text(module)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own whose zoo has a label by the extractor, and its LabelView."""
    folder = tmp_path / "project"
    for name in ("model_zoo", "feature_repo"):
        (folder / name).mkdir(parents=True)
    (folder / "model_zoo" / "far.yaml").write_text(LABEL)
    (folder / "feature_repo" / "labels.py").write_text((ROOT / "feature_repo" / "labels.py").read_text() + VIEW)
    (folder / "playbill.toml").write_text('workspace = "log"\n[workspaces.log]\n')
    return folder


def playbill(project: Path, site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "playbill.cli", "--project", str(project), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_an_installed_extractor_is_checked_explained_told_and_published(project: Path, tmp_path: Path) -> None:
    install(tmp_path / "site")
    workspace = ProjectFolder.find(project).workspace("log")
    log = label_log(600, members=6, titles=30, seed=2, days=9)
    log.write(workspace)
    explained = playbill(project, tmp_path / "site", "labels", "explain")
    assert "far version 2 (best_progress:4): of a title" in explained.stdout, explained.stderr
    assert "How far a play went, nothing below the floor." in explained.stdout
    assert "extractor best_progress with floor: 0.5; final after 6h" in explained.stdout
    shown = playbill(project, tmp_path / "site", "labels", "show", "--json")
    counts = json.loads(shown.stdout.splitlines()[-1])["labels"][0]
    plays = log.interactions.filter(pl.col("action") == "play", pl.col("recorded_at") <= Tables(workspace).data_end())
    assert counts["positives"] + counts["zeros"] + counts["unlabelled"] == plays.height
    done = playbill(project, tmp_path / "site", "labels", "publish", "--json")
    assert done.returncode == 0, done.stderr
    values = pl.read_parquet(workspace.features / "labels" / "far.parquet")
    assert values["labeler"].unique().to_list() == ["far:2 (best_progress:4)"]
    expected = plays.select("event_id", want=pl.when(pl.col("progress") >= 0.5).then("progress").otherwise(0.0))
    both = values.join(expected, on="event_id")
    assert both.height == values.height == counts["positives"] + counts["zeros"] > 20
    assert both["far"].equals(both["want"].cast(pl.Float32).alias("far"))


@pytest.mark.parametrize(
    ("value", "module", "message"),
    [
        (
            "best_labels:best_progress",
            "import nothing_like_it",
            "ModuleNotFoundError: No module named 'nothing_like_it'",
        ),
        ("best_labels:gone", "", "has no attribute 'gone'"),
        ("best_labels:best_progress", "def best_progress(): ...", "is a function, no Plugin. Name what a decorator"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named(
    project: Path, tmp_path: Path, value: str, module: str, message: str
) -> None:
    install(tmp_path / "site", value, module)
    found = playbill(project, tmp_path / "site", "check")
    assert found.returncode == 1
    assert f"error: label extractor 'best_progress': entry point {value} of best-labels 1.2" in found.stderr
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_an_extractor_that_is_not_installed_is_unknown(project: Path, tmp_path: Path) -> None:
    found = playbill(project, tmp_path / "nowhere", "check")
    assert found.returncode == 1
    assert "far.yaml:4:12: extractor: unknown label extractor 'best_progress'" in found.stderr
