"""The same door against `mlflow server` over HTTP, artifacts included, and what happens when it goes away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from playbill.config import ProjectFolder, ProjectSettings, ServicesSettings, Workspace
from playbill.errors import IntegrityError, ServiceError
from playbill.versions.promotion import Controller
from playbill.versions.tracking import Tracking


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    url: str

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path, migrated_mlflow: Path) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = tmp_path / "server.db"
    store.write_bytes(migrated_mlflow.read_bytes())
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}"]
    command += ["--artifacts-destination", str(tmp_path / "store"), "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        running = Server(process, f"http://127.0.0.1:{port}")
        try:
            wait_for(running)
            yield running
        finally:
            running.stop()


def wait_for(server: Server) -> None:
    deadline = time.perf_counter() + 90
    while time.perf_counter() < deadline and server.process.poll() is None:
        try:
            urllib.request.urlopen(f"{server.url}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail("the MLflow server did not start")


def test_everything_works_over_http_until_the_server_goes(
    server: Server,
    tmp_path: Path,
    tiny_bundle: Callable[..., Path],
    tracking_of: Callable[[Workspace], Tracking],
) -> None:
    workspace = make_workspace(tmp_path, server.url)
    tracking = tracking_of(workspace)
    with tracking.start_run("everycanvas", "fit", {"a": "b"}, {"dim": 64}) as run:
        tracking.register(run, tiny_bundle(), "everycanvas", {}, {"home/ndcg@10": 0.2})
    tracking.set_alias("everycanvas", "champion", 1)
    controller = Controller(workspace, tracking, gates_of=lambda _: ())
    (decision,) = controller.poll_once()
    assert decision.verdict == "approved"
    assert tracking.resolve("everycanvas@champion").version == 1
    assert not (tmp_path / ".playbill" / "mlflow_artifacts").exists()

    (stored,) = (tmp_path / "store").rglob("artifacts/bundle/manifest.json")
    missing = stored.parent.rename(tmp_path / "elsewhere")
    tracking.download("everycanvas", 1)
    for kept in workspace.serving.iterdir():
        kept.rename(tmp_path / "kept")
    with pytest.raises(IntegrityError, match="missing in the artifact store"):
        tracking.download("everycanvas", 1)
    missing.rename(stored.parent)

    server.stop()
    started = time.perf_counter()
    with pytest.raises(ServiceError, match="MLflow at http"):
        controller.poll_once()
    with pytest.raises(ServiceError, match="cannot be reached"):
        Tracking(workspace).resolve("everycanvas@champion")
    assert time.perf_counter() - started < 20
    assert controller.log.approved("everycanvas") is not None


def make_workspace(root: Path, url: str) -> Workspace:
    services = ServicesSettings(mlflow=url)
    workspace = ProjectFolder(root, ProjectSettings(services=services)).workspace("ml")
    workspace.folder.mkdir(parents=True)
    return workspace
