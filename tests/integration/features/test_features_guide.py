"""The guide's feature of ten lines: built, registered, trained with, named by the run, and served as it was trained."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from playbill.config import shipped_folder

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs/guide/features.md").read_text()
ADDING = GUIDE.split("## Adding a feature\n")[1].split("\n## ")[0]
BLOCKS = re.findall(r"```python\n(.*?)```", ADDING, re.DOTALL)
FEATURE = "member_evenings__evening_share"


@pytest.fixture
def shell(tmp_path: Path, filled: Any, migrated_mlflow: Path) -> Any:
    """A project with data and the shipped features, an empty MLflow, no model."""
    from fixtures.small_project import Shell

    left = shutil.ignore_patterns("runs", "serving", "mlflow*", "playbill.db*", "__pycache__")
    shutil.copytree(filled.folder, tmp_path / "project", ignore=left)
    shutil.copyfile(migrated_mlflow, tmp_path / "project" / ".playbill" / "mlflow.db")
    return Shell(tmp_path / "project")


def test_what_init_gives_is_the_guides_example() -> None:
    text = (shipped_folder("feature_repo") / "own.py").read_text()
    code = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.split("\n") if line.startswith("#"))
    assert code.strip() == BLOCKS[0].strip()


def test_ten_lines_reach_the_model_and_are_served_as_they_were_trained(shell: Any) -> None:
    (shell.folder / "feature_repo" / "own.py").write_text(BLOCKS[0] + BLOCKS[1])
    assert len([line for line in BLOCKS[0].split("\n") if line.strip() and "import" not in line]) <= 10
    assert not shell.type("apply").exit_code
    report = shell.json("features", "build")
    assert {"member_evenings", "member_rhythm"} <= {view["view"] for view in report["views"]}
    assert report["notes"] == []
    shell.edit("model_zoo/models/everycanvas/model.yaml", "features: everycanvas_v3", "features: everycanvas_own")
    assert not shell.type("materialize").exit_code

    outcome = shell.json("train", "everycanvas", "--epochs", "1")
    uses = {row["feature"]: row for row in outcome["features"]}
    assert uses[FEATURE]["coverage"] > 0.9
    assert uses[FEATURE]["importance (rise of ln rank)"] is not None
    run = MlflowClient(shell.workspace.mlflow_uri)
    assert "tables/features.json" in {one.path for one in run.list_artifacts(outcome["run_id"], "tables")}
    assert "figures/features.png" in {one.path for one in run.list_artifacts(outcome["run_id"], "figures")}
    shell.json("promote", f"everycanvas:{outcome['version']}")
    for member in ("m1", "m2", "m3"):
        answer = shell.json("recommend", "--member", member, "--canvas", "home", "-k", "3")
        assert answer["policy"] == "model"
    _rewrite_the_files(shell, outcome)
    parity = shell.json("parity")
    views = {view["view"]: view for view in parity["views"]}
    assert views["member_evenings"]["compared"] == 3
    assert views["member_evenings"]["different"] == 0


def _rewrite_the_files(shell: Any, outcome: dict[str, Any]) -> None:
    """A version is measured on what it was trained on without a word, and says so once a file has other content."""
    measure = ("evaluate", f"everycanvas:{outcome['version']}", "--canvas", "home", "--baselines", "popular")
    assert "feature files" not in shell.type(*measure).output
    own = shell.folder / "feature_repo" / "own.py"
    before = own.read_text()
    own.write_text(before.replace("last=20", "last=2"))
    built = {view["view"]: view["how"] for view in shell.json("features", "build")["views"]}
    assert built["member_evenings"] == "built"
    words = " ".join(shell.type(*measure).output.split())
    assert "measured on other feature files than it was trained on: member_evenings" in words
    client = MlflowClient(shell.workspace.mlflow_uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(experiments, "tags.`playbill.other_feature_files` = 'member_evenings'")
    assert len(found) == 1
    own.write_text(before)
    shell.json("features", "build")
