"""Feast's own command line on a rendered workspace, from any folder, unmodified."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from polars.testing import assert_frame_equal

from playbill.config import ProjectFolder, ProjectSettings, ServicesSettings, Workspace
from playbill.features import FeatureDoor, build_features
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
    door = FeatureDoor(own)
    before = door.apply().views
    feast(own, elsewhere, "apply")
    now = workspace_clock(own).now().replace(tzinfo=None).isoformat()
    feast(own, elsewhere, "materialize", "1800-01-01T00:00:00", now)
    assert list(elsewhere.iterdir()) == []
    served = FeatureDoor(own).online("everycanvas_v1", ["m1"], workspace_clock(own).now())
    assert served.get_column("member_activity__log_plays_total").null_count() == 0
    listed = feast(own, elsewhere, "feature-views", "list")
    assert [view for view in (*before, "title_age") if view not in listed] == []


def test_materialize_incremental_goes_on_from_what_is_there(own: Workspace, tmp_path: Path) -> None:
    door = FeatureDoor(own)
    door.apply()
    now = workspace_clock(own).now()
    middle = now - timedelta(days=30)
    door.materialize(middle)
    members = [f"m{number}" for number in range(12)]
    half_way = FeatureDoor(own).online("everycanvas_v1", members, middle)
    feast(own, tmp_path, "materialize-incremental", now.replace(tzinfo=None).isoformat())
    door = FeatureDoor(own)
    served = door.online("everycanvas_v1", members, now)
    assert_frame_equal(served, door.member_features("everycanvas_v1", served.select("member_id", "event_at")))
    plays = "member_activity__log_plays_total"
    assert served.get_column(plays).to_list() != half_way.get_column(plays).to_list()


@contextmanager
def running(workspace: Workspace, folder: Path, *command: str) -> Iterator[str]:
    """A server that a feast command starts, as the address it answers on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "server.log").open("w") as log:
        options = ["--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen([*arguments(workspace), *command, *options], cwd=folder, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.fixture
def ui(door: FeatureDoor, tmp_path: Path) -> Iterator[str]:
    """A running `feast ui`, as the address it answers on."""
    with running(door.workspace, tmp_path, "ui") as address:
        yield address


@pytest.fixture(params=["sqlite", "redis"])
def server(request: pytest.FixtureRequest, door: FeatureDoor, tmp_path: Path) -> Iterator[str]:
    """A running `feast serve` on either database, as the address it answers on."""
    workspace = door.workspace
    if request.param == "redis":
        services = ServicesSettings(online_store=request.getfixturevalue("redis_url"))
        workspace = ProjectFolder(tmp_path, ProjectSettings(services=services)).workspace("served")
        request.getfixturevalue("ingest")(workspace)
        build_features(workspace)
        stored = FeatureDoor(workspace)
        stored.apply()
        stored.materialize()
    with running(workspace, tmp_path, "serve", "--no-access-log") as address:
        yield address


def get(address: str | Request, process_seconds: float = 60) -> str:
    deadline = time.monotonic() + process_seconds
    while True:
        try:
            with urlopen(address, timeout=10) as answer:
                text: str = answer.read().decode()
                return text
        except HTTPError as error:
            raise AssertionError(f"{error}: {error.read().decode()}") from error
        except (URLError, TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_ui_starts_and_shows_the_service(ui: str, door: FeatureDoor) -> None:
    assert "<html" in get(ui)
    project = json.loads(get(f"{ui}/projects-list.json"))["projects"][0]
    assert project["id"] == door.workspace.name
    services = json.loads(get(f"{ui}/api/v1/feature_services?project={door.workspace.name}"))["featureServices"]
    assert "everycanvas_v1" in [service["spec"]["name"] for service in services]


def test_the_feature_server_answers_from_packed_rows(server: str, door: FeatureDoor) -> None:
    assert get(f"{server}/health") is not None
    refs = ["member_activity:log_plays_total", "member_profile:country", "member_activity:last_play_at"]
    body = json.dumps({"features": refs, "entities": {"member_id": ["m1", "nobody"]}}).encode()
    answer = json.loads(get(Request(f"{server}/get-online-features", body, {"Content-Type": "application/json"})))
    found = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    ours = door.online("everycanvas_v1", ["m1"], workspace_clock(door.workspace).now()).row(0, named=True)
    assert found["log_plays_total"]["values"] == [pytest.approx(ours["member_activity__log_plays_total"]), None]
    assert found["log_plays_total"]["statuses"] == ["PRESENT", "NOT_FOUND"]
    assert found["country"]["values"] == ["US-MN", None]
