"""A project over the small invented service, and the real commands run in it."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from click.testing import CliRunner

from playbill.cli.main import main
from playbill.config import Project


@dataclass(frozen=True)
class Playbill:
    """A project folder and the commands run in it."""

    folder: Path
    workspace: str = "small"

    @property
    def home(self):
        """The workspace's folder."""
        return self.folder / ".playbill" / self.workspace

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


@dataclass(frozen=True)
class Shell:
    """A project of a test's own, and the commands as a user types them, without a process for each."""

    folder: Path

    @property
    def workspace(self):
        return Project.find(self.folder).workspace("small")

    @property
    def home(self):
        return self.workspace.folder

    @property
    def model(self):
        """The model's definition."""
        return self.folder / "model_zoo" / "models" / "everycanvas" / "model.yaml"

    def type(self, *arguments):
        return CliRunner().invoke(main, ["--project", str(self.folder), "-w", "small", *map(str, arguments)])

    def json(self, *arguments):
        """Return the object a command prints as its last line; nothing may be on stderr but stages."""
        result = self.type(*arguments, "--json")
        assert result.exit_code == 0, result.output
        assert all(line.startswith(("✓", "·")) for line in result.stderr.split("\n") if line.strip()), result.stderr
        return json.loads(result.stdout.strip().splitlines()[-1])

    def refused(self, *arguments, match):
        """Run a command that fails with one message, and check the message."""
        result = self.type(*arguments)
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        assert result.exit_code == 1, result.output
        assert "Traceback" not in result.output
        assert result.stderr.count("error: ") == 1, result.stderr
        assert re.search(match, result.stderr.partition("error: ")[2]), result.stderr

    def tree(self):
        """Every file of the workspace with its size, without what databases leave beside themselves."""
        files = (path for path in self.home.rglob("*") if path.is_file() and path.suffix not in {".db-wal", ".db-shm"})
        return {str(path.relative_to(self.home)): path.stat().st_size for path in files}

    def edit(self, path, old, new):
        """Replace text of a file of the project."""
        text = (self.folder / path).read_text()
        assert old in text, (path, old)
        (self.folder / path).write_text(text.replace(old, new, 1))


SMALLER = {
    "dim: 128": "dim: 32",
    "min_steps: 400": "min_steps: 80",
    "slices: [country, tenure, title_age, popularity]": "slices: [country]",
}
"""Of the shipped model's definition. Slices are pictures for each canvas, which take longer than such a training."""


RUN_ALL = """
import json, sys
from playbill.cli.main import main
for line in json.loads(sys.argv[1]):
    main(line, standalone_mode=False)
"""


def start(folder):
    """Start a project whose model is small enough to be trained in seconds."""
    assert CliRunner().invoke(main, ["init", str(folder)]).exit_code == 0
    (folder / "playbill.toml").write_text('workspace = "small"\n[workspaces.small]\n[training]\nthreads = 1\n')
    model = folder / "model_zoo" / "models" / "everycanvas" / "model.yaml"
    text = model.read_text()
    for old, new in SMALLER.items():
        assert old in text, old
        text = text.replace(old, new)
    model.write_text(text)
    return Playbill(folder)


def few_canvases(shell):
    """Leave the model three canvases: most of a small training is the evaluation of every one."""
    definition = yaml.safe_load(shell.model.read_text())
    definition["canvases"] = ["home", "more_like_this", "search"]
    shell.model.write_text(yaml.safe_dump(definition))


def fill(project, data):
    """Ingest, register and compute features: everything before training."""
    run_all(
        project,
        ("ingest", "parquet", str(data), "--mapping", str(data / "mapping.yaml")),
        ("apply",),
        ("features", "build"),
        ("materialize",),
    )


def run_all(project, *commands):
    """Run commands one after the other in one process, whose end closes every database."""
    root = ("--project", str(project.folder), "-w", project.workspace)
    lines = json.dumps([(*root, *command) for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, lines], cwd=project.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
