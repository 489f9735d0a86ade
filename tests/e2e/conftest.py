"""Whole projects, made once: a small invented service that trains in seconds, run by the real commands."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_service import write_small_service


@dataclass(frozen=True)
class Playbill:
    """A project folder and the commands run in it."""

    folder: Path
    workspace: str = "small"

    def command(self, *arguments):
        return [
            sys.executable,
            "-m",
            "playbill.cli",
            "--project",
            str(self.folder),
            "-w",
            self.workspace,
            *arguments,
        ]

    def run(self, *arguments, code=0):
        result = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, f"{arguments}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr, result.stderr
        return result

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json").stdout.strip().splitlines()[-1])

    @property
    def environment(self):
        return {**os.environ, "COLUMNS": "160"}

    def copy(self, folder):
        """Copy the project with its data but without models, so that a test may change it."""
        left = shutil.ignore_patterns(
            "runs", "serving", "*.pyc", "mlflow*", "playbill.db*", "feast_registry.db*", "online*"
        )
        shutil.copytree(self.folder, folder, ignore=left)
        return Playbill(folder, self.workspace)


def fill(project, data):
    """Ingest, register and compute features: everything before training."""
    project.run("ingest", "parquet", str(data), "--mapping", str(data / "mapping.yaml"))
    project.run("apply")
    project.run("features", "build")
    project.run("materialize")


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    return write_small_service(tmp_path_factory.mktemp("data")).parent


@pytest.fixture(scope="session")
def filled(tmp_path_factory, small_data):
    """A project with data and features, and no model."""
    folder = tmp_path_factory.mktemp("filled") / "project"
    subprocess.run([sys.executable, "-m", "playbill.cli", "init", str(folder)], check=True, capture_output=True)
    (folder / "playbill.toml").write_text('workspace = "small"\n[workspaces.small]\n[training]\nthreads = 1\n')
    model = folder / "model_zoo" / "models" / "everycanvas" / "model.yaml"
    model.write_text(model.read_text().replace("dim: 128", "dim: 32").replace("epochs: 8", "epochs: 40"))
    project = Playbill(folder)
    fill(project, small_data)
    return project


@pytest.fixture(scope="session")
def trained(filled):
    """The same project with one registered version, promoted."""
    outcome = filled.json("train", "everycanvas")
    filled.run("promote", f"everycanvas:{outcome['version']}")
    return filled
