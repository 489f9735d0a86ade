"""The pictures of docs/guide/promotion.md, taken of a real workspace: a model, a version, a run, a refusal.

    python tests/benchmarks/promotion_pictures.py PROJECT WORKSPACE

PROJECT holds a workspace whose model has two versions, the first one champion and the second one refused. Needs
chromium and chromedriver; they are spoken to by the W3C protocol, so no package is needed for them.
"""

import argparse
import base64
import json
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from playbill.config import ProjectFolder
from playbill.versions.tracking import Tracking
from playbill.versions.tracking.connection import model_page, ui_command, ui_environment

PICTURES = Path(__file__).parents[2] / "docs" / "guide" / "pictures"
MODEL = "everycanvas"
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1"]
SETTINGS = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
}
"""What a user would have clicked once: the mode, and the assistant's panel away."""
WAIT_SECONDS = 90


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(url, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
        return json.loads(answer.read() or b"null")


def wait(condition, what):
    deadline = time.perf_counter() + WAIT_SECONDS
    while time.perf_counter() < deadline:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise SystemExit(f"no {what} after {WAIT_SECONDS} s")


@contextmanager
def running(command, environment=None):
    import os

    process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait()


class Browser:
    """One window of a headless browser."""

    def __init__(self, driver, width=1280, height=820):
        wish = {"goog:chromeOptions": {"args": [*OPTIONS, f"--window-size={width},{height}"]}}
        made = call(f"{driver}/session", {"capabilities": {"alwaysMatch": wish}})
        self.session = f"{driver}/session/{made['value']['sessionId']}"

    def open(self, url):
        call(f"{self.session}/url", {"url": url})

    def run(self, script):
        return call(f"{self.session}/execute/sync", {"script": script, "args": []})["value"]

    def shows(self, text):
        return text in (self.run("return document.body.innerText") or "")

    def picture(self, name, text):
        wait(lambda: self.shows(text), f"'{text}' on the page of {name}")
        time.sleep(2)
        path = PICTURES / f"{name}.png"
        path.write_bytes(base64.b64decode(call(f"{self.session}/screenshot")["value"]))
        print(path, f"{path.stat().st_size / 1000:.0f} kB")

    def close(self):
        call(self.session, method="DELETE")


def take(base, workspace, browser):
    tracking = Tracking(workspace)
    champion, refused = tracking.version(MODEL, 1), tracking.version(MODEL, 2)
    name = workspace.registered_name(MODEL)
    experiment = tracking.connection.client.get_run(champion.run_id).info.experiment_id
    browser.open(base)
    for key, value in SETTINGS.items():
        browser.run(f"localStorage.setItem({json.dumps(key)}, {json.dumps(value)})")
    mode = "workflowType=machine_learning"
    for picture, url, text in (
        ("refused_model", model_page(base, workspace, MODEL), "was refused"),
        ("version", f"{base}/#/models/{name}/versions/1?{mode}", "best baseline"),
        ("refused_version", f"{base}/#/models/{name}/versions/{refused.version}?{mode}", "Not promoted"),
        ("run", f"{base}/#/experiments/{experiment}/runs/{champion.run_id}?{mode}", "playbill train"),
    ):
        browser.open("about:blank")
        browser.open(url)
        browser.picture(picture, text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("workspace")
    given = parser.parse_args()
    workspace = ProjectFolder.find(given.project).workspace(given.workspace)
    PICTURES.mkdir(exist_ok=True)
    ui, driver = free_port(), free_port()
    base = f"http://127.0.0.1:{ui}"
    served = running(ui_command(workspace, "127.0.0.1", ui), ui_environment())
    with served, running(["chromedriver", f"--port={driver}"]):
        wait(lambda: urllib.request.urlopen(f"{base}/health", timeout=5).status == 200, "MLflow")
        wait(lambda: call(f"http://127.0.0.1:{driver}/status")["value"]["ready"], "chromedriver")
        browser = Browser(f"http://127.0.0.1:{driver}")
        try:
            take(base, workspace, browser)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
