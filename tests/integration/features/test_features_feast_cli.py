"""Feast's own command line on a rendered workspace, from any folder, unmodified."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from playbill.config import Workspace
from playbill.features import FeatureDoor
from playbill.tables import workspace_clock

FEAST = str(Path(sys.executable).with_name("feast"))


def arguments(workspace: Workspace) -> list[str]:
    return [FEAST, "-f", str(workspace.feature_store_yaml), "-c", str(workspace.project.feature_repo)]


def feast(workspace: Workspace, folder: Path, *command: str) -> str:
    done = subprocess.run(
        [*arguments(workspace), *command], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_apply_and_materialize_from_another_folder(own: Workspace, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    FeatureDoor(own).apply()
    assert "No changes to registry" in feast(own, elsewhere, "apply")
    now = workspace_clock(own).now().replace(tzinfo=None).isoformat()
    feast(own, elsewhere, "materialize", "1800-01-01T00:00:00", now)
    assert list(elsewhere.iterdir()) == []
    served = FeatureDoor(own).online("everycanvas_v1", ["m1"], workspace_clock(own).now())
    assert served.get_column("member_activity__log_plays_total").null_count() == 0
    listed = feast(own, elsewhere, "feature-views", "list")
    assert "member_activity" in listed
    assert "title_age" in listed


@pytest.fixture
def ui(door: FeatureDoor, tmp_path: Path) -> Iterator[str]:
    """A running `feast ui`, as the address it answers on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "ui.log").open("w")
    command = [*arguments(door.workspace), "ui", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def get(address: str, process_seconds: float = 60) -> str:
    deadline = time.monotonic() + process_seconds
    while True:
        try:
            with urlopen(address, timeout=10) as answer:
                text: str = answer.read().decode()
                return text
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_ui_starts_and_shows_the_service(ui: str, door: FeatureDoor) -> None:
    assert "<html" in get(ui)
    project = json.loads(get(f"{ui}/projects-list.json"))["projects"][0]
    assert project["id"] == door.workspace.name
    services = json.loads(get(f"{ui}/api/v1/feature_services?project={door.workspace.name}"))["featureServices"]
    assert [service["spec"]["name"] for service in services] == ["everycanvas_v1"]
