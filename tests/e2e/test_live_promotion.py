"""`playbill up`: the alias is moved over HTTP, as the MLflow UI moves it, while members are being answered."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from fixtures.small_project import Shell

BODY = json.dumps({"member_id": "m5", "canvas": "home", "k": 5, "rows": False}).encode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url, body=None):
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def until(condition, seconds):
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


class Members(threading.Thread):
    """Asks without pause, and keeps every answer and every failure."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.over = url, threading.Event()
        self.versions, self.failures = [], []

    def run(self):
        while not self.over.is_set():
            try:
                answer = fetch(f"{self.url}/v1/recommend", BODY)
                self.versions.append(answer["version"])
            except OSError as error:
                self.failures.append(error)


@pytest.fixture(scope="module")
def project(trained, tmp_path_factory):
    return trained.copy_with_models(tmp_path_factory.mktemp("live") / "project")


@pytest.fixture(scope="module")
def versions(project):
    """Version 1 is served; 2 equals it; 3 has learnt nothing and is worse."""
    shell = Shell(project.folder)
    good = shell.json("train", "everycanvas")["version"]
    file = project.folder / "model_zoo" / "models" / "everycanvas" / "model.yaml"
    text = file.read_text()
    definition = yaml.safe_load(text)
    definition["training"]["learning_rate"] = 1e-9
    del definition["heads"]["discovery_play"]["terms"]
    file.write_text(yaml.safe_dump(definition))
    try:
        bad = shell.json("train", "everycanvas", "--epochs", "1")["version"]
    finally:
        file.write_text(text)
    return good, bad


@pytest.fixture(scope="module")
def up(project, versions):
    server, ui = free_port(), free_port()
    command = project.command("up", "--port", str(server), "--mlflow-port", str(ui))
    process = subprocess.Popen(command, cwd=project.folder, env=project.environment, start_new_session=True)
    urls = f"http://127.0.0.1:{server}", f"http://127.0.0.1:{ui}"

    def ready():
        try:
            fetch(f"{urls[0]}/readyz")
            urllib.request.urlopen(f"{urls[1]}/health", timeout=5).close()
        except OSError:
            return False
        return True

    try:
        assert until(ready, 120), "playbill up did not become ready"
        yield urls
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("playbill up did not stop")


def set_champion(ui, version):
    body = {"name": "small.everycanvas", "alias": "champion", "version": str(version)}
    fetch(f"{ui}/api/2.0/mlflow/registered-models/alias", json.dumps(body).encode())


def champion(ui):
    query = "name=small.everycanvas&alias=champion"
    return fetch(f"{ui}/api/2.0/mlflow/registered-models/alias?{query}")["model_version"]


def test_the_server_follows_the_alias_and_loses_no_request(up, versions):
    server, ui = up
    good, _ = versions
    members = [Members(server) for _ in range(4)]
    for member in members:
        member.start()
    time.sleep(1)
    moved = time.perf_counter()
    set_champion(ui, good)
    followed = until(lambda: all(member.versions and member.versions[-1] == good for member in members), 10)
    seconds = time.perf_counter() - moved
    time.sleep(1)
    for member in members:
        member.over.set()
        member.join()
    assert followed, f"not served after {seconds:.1f} s"
    assert not [failure for member in members for failure in member.failures]
    assert {version for member in members for version in member.versions} == {1, good}


def test_a_version_that_fails_its_gate_is_put_back_with_the_reason_on_it(up, versions):
    server, ui = up
    good, bad = versions
    set_champion(ui, bad)
    assert until(lambda: int(champion(ui)["version"]) != bad, 15)
    assert int(champion(ui)["version"]) == good
    found = fetch(f"{ui}/api/2.0/mlflow/model-versions/get?name=small.everycanvas&version={bad}")["model_version"]
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    assert "ndcg@10" in tags["playbill.promotion_reason"]
    assert fetch(f"{server}/v1/recommend", BODY)["version"] == good


def test_an_event_is_visible_in_the_next_request(up):
    server, _ = up
    requested = json.dumps({"member_id": "m9", "canvas": "home", "k": 3, "rows": False}).encode()
    first = fetch(f"{server}/v1/recommend", requested)["items"][0]["title_id"]
    event = {
        "event_id": "live-1",
        "member_id": "m9",
        "action": "play",
        "title_id": first,
        "canvas": "home",
        "progress": 1.0,
    }
    fetch(f"{server}/v1/events", json.dumps({"events": [event]}).encode())
    again = [item["title_id"] for item in fetch(f"{server}/v1/recommend", requested)["items"]]
    assert first not in again


def test_mlflow_serves_the_same_version_by_itself(project, up):
    port = free_port()
    uri = f"sqlite:///{project.folder}/.playbill/mlflow.db"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/small.everycanvas@champion"]
    process = subprocess.Popen(
        [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        env={**project.environment, "PATH": path, "MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri},
        start_new_session=True,
    )
    row = {"canvas": "home", "k": 4, "history": ["t1", "t7", "t13"]}

    def answers():
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
        except OSError:
            return False
        return True

    try:
        assert until(answers, 120)
        body = json.dumps({"dataframe_records": [row]}).encode()
        (found,) = fetch(f"http://127.0.0.1:{port}/invocations", body)["predictions"]
        assert len(found["title_ids"]) == 4
        assert not {"t1", "t7", "t13"} & set(found["title_ids"])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
