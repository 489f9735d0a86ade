"""A server that answers by fallbacks, and the first version that is promoted under it."""

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request

import pytest

from fixtures.small_project import Playbill
from playbill.config import ProjectFolder
from playbill.versions.tracking import Tracking

LIMIT_SECONDS = 12
"""Twice what it takes on one busy core; importing Feast within the promotion took as much again by itself."""
BODY = json.dumps({"member_id": "m5", "canvas": "home", "k": 5, "rows": False}).encode()


@pytest.fixture
def project(trained, tmp_path):
    """A copy of the trained project in which nothing was ever promoted."""
    copy = Playbill(tmp_path / "project", trained.workspace)
    shutil.copytree(trained.folder, copy.folder, ignore=shutil.ignore_patterns("serving", "runs"))
    workspace = ProjectFolder.find(copy.folder).workspace(copy.workspace)
    Tracking(workspace).delete_alias("everycanvas", "champion")
    with sqlite3.connect(workspace.database_url.removeprefix("sqlite:///")) as database:
        database.execute("delete from promotion_approvals")
        database.execute("delete from promotion_decisions")
    database.close()
    return copy


@pytest.fixture
def served(project, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            project.command("serve", "--port", str(port)),
            cwd=project.folder,
            env=project.environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def version_of(url):
    request = urllib.request.Request(f"{url}/v1/recommend", BODY, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["version"]


def until(condition, seconds):
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_the_first_promotion_is_served_within_seconds(project, served):
    url, log = served
    assert until(lambda: "ready for the first promotion of everycanvas" in log.read_text(), 120), log.read_text()
    assert version_of(url) is None, "fallbacks answer"
    tracking = Tracking(ProjectFolder.find(project.folder).workspace(project.workspace))
    tracking.set_alias("everycanvas", "champion", 1)
    begun = time.perf_counter()
    assert until(lambda: version_of(url) == 1, 60), log.read_text()
    seconds = time.perf_counter() - begun
    assert seconds < LIMIT_SECONDS, f"{seconds:.1f} s\n{log.read_text()}"
