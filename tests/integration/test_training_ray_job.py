"""`playbill train` as a job of a real Ray cluster, with checkpoints in a bucket; a worker is killed in the middle."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fixtures import environment as child_environment

if TYPE_CHECKING:
    from fixtures.small_project import Playbill

COMPOSE = Path(__file__).parents[2] / "infra" / "compose.yaml"
WAIT_S = 400
OBJECT_STORE_BYTES = 75 * 2**20
RAY = str(Path(sys.executable).with_name("ray"))
BUCKET = "runs"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(found: Callable[[], Any], process: subprocess.Popen[bytes]) -> Any:
    deadline = time.perf_counter() + WAIT_S
    while not (result := found()):
        assert process.poll() is None, "it ended before"
        assert time.perf_counter() < deadline
        time.sleep(0.1)
    return result


@dataclass(frozen=True)
class Head:
    jobs: str
    environment: dict[str, str]
    folder: str

    def submit(self, *entrypoint: str) -> subprocess.Popen[bytes]:
        """Send a command as a job; its output is that of the process returned."""
        return subprocess.Popen(
            [RAY, "job", "submit", "--address", self.jobs, "--", *entrypoint],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def training_workers(self) -> list[int]:
        """Return the processes of this cluster that train; Ray names them."""
        listed = subprocess.run(
            ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        raylets = {pid for pid, _, command in rows if "raylet" in command and self.folder in command}
        return [int(pid) for pid, parent, command in rows if parent in raylets and "TrainWorker" in command]


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """An empty bucket in this process, and the environment in which it is found."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address, port = server.get_host_and_port()
        url = f"http://{address}:{port}"
        with urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"), timeout=30):
            pass
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(8),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.stop()


@pytest.fixture(scope="module")
def head(bucket: dict[str, str]) -> Iterator[Head]:
    """A cluster of two CPUs on ports of its own, with the service that jobs are sent to."""
    port, jobs = free_port(), free_port()
    # Short: the paths of Ray's sockets hold about 100 characters.
    folder = tempfile.mkdtemp(prefix="pbray-", dir="/tmp")
    options = {
        "--port": port,
        "--node-ip-address": "127.0.0.1",
        "--dashboard-host": "127.0.0.1",
        "--dashboard-port": jobs,
        "--dashboard-agent-listen-port": free_port(),
        "--ray-client-server-port": free_port(),
        "--num-cpus": 2,
        "--object-store-memory": OBJECT_STORE_BYTES,
        "--temp-dir": folder,
    }
    # As the container of compose starts it, but for what would meet other clusters of this machine.
    written = yaml.safe_load(COMPOSE.read_text())["services"]["ray-head"]["command"]
    command = [RAY, *(word for word in written[1:] if word.partition("=")[0] not in options)]
    command += [f"{name}={value}" for name, value in options.items()]
    own = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = child_environment(**own, **token, **bucket)
    environment.pop("RAY_ADDRESS", None)
    with Path(folder, "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_for(lambda: answers(f"http://127.0.0.1:{jobs}/api/version"), process)
            yield Head(f"http://127.0.0.1:{jobs}", environment, folder)
        finally:
            process.terminate()
            process.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status)
    except urllib.error.HTTPError:  # It wants a token, so it is there.
        return True
    except OSError:
        return False


def test_the_training_command_as_a_job_survives_a_killed_worker(
    head: Head, bucket: dict[str, str], filled: Playbill, tmp_path: Path
) -> None:
    """`playbill train MODEL --workers 2`, checkpoints in a bucket: it learns what one process does."""
    project = filled.copy(tmp_path / "project")
    settings, model = project.folder / "playbill.toml", project.folder / "model_zoo/models/everycanvas/model.yaml"
    settings.write_text(f'{settings.read_text()}storage = "s3://{BUCKET}/jobs"\n')
    definition = yaml.safe_load(model.read_text())
    definition["canvases"] = ["home", "more_like_this", "search"]
    # What is drawn at random is drawn by each worker for itself.
    definition["trunk"]["dropout"] = definition["titles"]["id_mask"] = 0.0
    definition["training"] |= {"epochs": 4, "min_steps": 0}
    model.write_text(yaml.safe_dump(definition))
    project.run("apply")
    alone = project.json("train", "everycanvas")
    job = head.submit(*project.command("train", "everycanvas", "--workers", "2", "--json"))
    wait_for(lambda: saved(bucket, "jobs"), job)
    victim, *_ = wait_for(head.training_workers, job)
    os.kill(victim, signal.SIGKILL)
    output, _ = job.communicate(timeout=WAIT_S)
    text = output.decode()
    assert job.returncode == 0, text[-3_000:]
    assert not saved(bucket, "jobs"), "the run's checkpoints were left behind"
    found = json.loads(next(line for line in text.splitlines() if line.startswith('{"model"')))
    assert (found["version"], found["epochs"]) == (alone["version"] + 1, alone["epochs"])
    assert found["final_loss"] == pytest.approx(alone["final_loss"], rel=1e-3)
    assert found["canvases"].keys() == alone["canvases"].keys()


def saved(bucket: dict[str, str], prefix: str) -> bool:
    """Say whether a checkpoint of a run is in the bucket."""
    query = f"{bucket['AWS_ENDPOINT_URL']}/{BUCKET}?list-type=2&prefix={prefix}/"
    with urllib.request.urlopen(query, timeout=30) as answer:
        return b"checkpoint_" in answer.read()
