"""The flows of pipelines/, run as a person or a schedule runs them: killed, resumed, and run again."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from playbill.project import Project

ROOT = Path(__file__).parents[2]
FLOWS = ROOT / "pipelines"
TITLES, TASTES = 30, 3
SMALLER = {
    "epochs: 4, min_steps: 100": "epochs: 1, min_steps: 20",
    "slices: []": "slices: [country], minimum_members: 5, baselines: []",
}
COUNTRIES = ("NL", "BR")
NEW_EVENTS = """
interactions:
  file: new.csv
  columns:
    event_id: event
    member_id: member
    title_id: title
    event_at: {from: time, as: iso_text, zone: UTC}
    action: {constant: play}
    canvas: {constant: home}
    country: country
"""
ENSEMBLE = """
kind: Ensemble
name: everywhere
version: 1
members:
  global: mine@champion
  nl: {model: mine_nl, countries: [NL]}
  br: {model: mine_br, countries: [BR]}
gate: [country]
guard: {slice: country, worst: -50%}
"""
COUNTRY_MODEL = """
kind: Model
extends: mine
name: mine_{country}
version: 1
init_from: mine@champion
"""


@dataclass(frozen=True)
class Flows:
    """A project and the flows that are run in it, from a folder that is not the project's."""

    folder: Path
    elsewhere: Path

    def begin(self, flow: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a flow in a process group of its own."""
        environment = {**os.environ, "PLAYBILL_PROJECT": str(self.folder), "COLUMNS": "160"}
        return subprocess.Popen(
            [sys.executable, str(FLOWS / f"{flow}.py"), "--no-pylint", *arguments],
            cwd=self.elsewhere,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, flow: str, *arguments: str, code: int = 0) -> list[str]:
        """Run a flow to its end and return what it prints."""
        process = self.begin(flow, *arguments)
        try:
            output, _ = process.communicate(timeout=500)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == code, output
        return output.strip().splitlines()

    def kill_at(self, flow: str, line: str, *arguments: str) -> None:
        """Kill a flow and its steps, as a machine that goes away does, once a line is printed."""
        process = self.begin(flow, *arguments)
        with process:
            seen = []
            for printed in process.stdout:
                seen.append(printed)
                if printed.rstrip().endswith(f" {line}"):
                    break
            else:
                pytest.fail("".join(seen))
            os.killpg(process.pid, signal.SIGKILL)

    def ask(self, expression: str) -> str:
        """Return what a function of version_gates.py says of the project."""
        opened = "from version_gates import *; from playbill.project import Project; project = Project.open()"
        code = f"{opened}; print({expression})"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FLOWS), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def cards(self, flow: str) -> str:
        """Return what the cards of a flow's runs show, one after the other, as JSON."""
        files = sorted((self.folder / ".playbill" / ".metaflow" / flow / "runs").rglob("*.html"))
        shown = [re.search(r'__MF_DATA__\["[^"]+"\] = "([^"]+)"', path.read_text()) for path in files]
        return "".join(base64.b64decode(found[1]).decode() for found in shown)


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path) -> Flows:
    """The smallest project, with a log of three tastes beside it and nothing ingested."""
    folder = tmp_path_factory.mktemp("pipelines") / "project"
    Project.create(folder, minimal=True)
    replace_in(folder / "model_zoo" / "models" / "mine.yaml", SMALLER)
    replace_in(folder / "mapping.yaml", {"canvas: {constant: home}": "canvas: {constant: home}\n    country: country"})
    (folder / ".playbill").mkdir()
    shutil.copyfile(migrated_mlflow, folder / ".playbill" / "mlflow.db")
    write_plays(folder / "log.csv", days=range(1, 13))
    return Flows(folder, tmp_path_factory.mktemp("elsewhere"))


def replace_in(path: Path, changes: dict[str, str]) -> None:
    """Replace texts of a file, each of which must be there."""
    text = path.read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)


def write_plays(path: Path, days: range, members: int = 60) -> None:
    """Write a CSV of a play for each member and day; a member's taste is every third title."""
    rng = np.random.default_rng(days.start)
    lines = ["event,member,title,time,country"]
    for member in range(members):
        for day in days:
            title = rng.integers(TITLES // TASTES) * TASTES + member % TASTES
            time = f"2024-01-{day:02d}T{rng.integers(24):02d}:{rng.integers(60):02d}:00"
            lines.append(f"{member}-{day},m{member},t{title},{time},{COUNTRIES[member % 2]}")
    path.write_text("\n".join(lines) + "\n")


def test_a_wrong_source_ends_a_run_with_one_message(flows: Flows) -> None:
    printed = flows.run("consolidate", "run", "--source", "parkuet", code=1)
    errors = [line for line in printed if "error: " in line]
    assert len(errors) == 1, printed
    assert "error: start: unknown source 'parkuet'. Did you mean 'parquet'?" in errors[0]
    assert not [line for line in printed if "Traceback" in line]


def test_consolidate_leads_from_an_empty_workspace_to_a_champion_though_it_is_killed(flows: Flows) -> None:
    options = f'{{"path": "{flows.folder}", "mapping": "{flows.folder}/mapping.yaml"}}'
    flows.kill_at("consolidate", "build features", "run", "--source", "parquet", "--options", options)
    printed = flows.run("consolidate", "resume")
    assert printed[-1] == "mine:1 approved: first promotion, nothing to compare with"
    assert sum("Cloning previously run task" in line for line in printed) == 1  # data is not ingested again
    cards = flows.cards("Consolidate")
    for content in ("member_activity", "ndcg@10", "data:image/png;base64", "popular"):
        assert content in cards, content
    assert list(flows.elsewhere.iterdir()) == []


def test_adapt_trains_the_models_of_countries_and_joins_them_into_the_ensemble(flows: Flows) -> None:
    zoo = flows.folder / "model_zoo"
    (zoo / "ensembles").mkdir()
    (zoo / "ensembles" / "everywhere.yaml").write_text(ENSEMBLE)
    for country in COUNTRIES:
        name = country.lower()
        (zoo / "models" / f"mine_{name}.yaml").write_text(COUNTRY_MODEL.format(country=name))
    printed = flows.run("adapt", "run", "--ensemble", "everywhere", "--max-workers", "1")
    assert printed[-1].startswith("everywhere:1 approved: "), printed
    assert {name for name in ("mine_br:1", "mine_nl:1") if name in flows.cards("Adapt")} == {"mine_br:1", "mine_nl:1"}
    assert flows.ask("project.ensemble('everywhere').reason").startswith("everywhere:1 was learnt from the same")


def test_refresh_ends_the_same_when_it_is_killed_and_says_when_there_is_nothing_to_do(flows: Flows) -> None:
    write_plays(flows.folder / "new.csv", days=range(13, 15))
    (flows.folder / "new.yaml").write_text(NEW_EVENTS)
    given = ("--events", str(flows.folder / "new.csv"), "--mapping", str(flows.folder / "new.yaml"))
    flows.kill_at("refresh", "train", "run", *given)
    resumed = flows.run("refresh", "resume")
    assert resumed[-1].startswith("mine:2 goes on from mine:1 with "), resumed[-1]
    assert sum("Cloning previously run task" in line for line in resumed) == 2  # events and features
    again = flows.run("refresh", "run", *given)
    assert again[-1].startswith("nothing to do for mine:1: mine:2 has learnt "), again[-1]
    assert "mine:1" in flows.cards("Refresh")


def test_a_flow_is_short_and_calls_the_package_alone() -> None:
    for path in FLOWS.glob("*.py"):
        text = path.read_text()
        assert not re.findall(r"^\s*(?:import|from) (?:feast|mlflow|ray|torch|polars)\b", text, re.MULTILINE), path
        assert len(text.splitlines()) <= (190 if path.stem == "project_flow" else 100), path
    importers = [path for path in (ROOT / "platform").rglob("*.py") if "metaflow" in path.read_text()]
    assert importers == []
