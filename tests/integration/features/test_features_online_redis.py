"""The feature door with Redis as the online store: the same answers, shared by workspaces, and down."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from fixtures.throwaway_redis import free_port, throwaway_redis
from playbill.cli.main import main
from playbill.config import ProjectFolder, ProjectSettings, ServicesSettings, Workspace
from playbill.errors import ServiceError
from playbill.features import FeatureDoor, build_features, online_store_state
from playbill.serving.member_state import of_one
from playbill.tables import workspace_clock

SERVICE = "everycanvas_v2"
Ingest = Callable[..., None]


def on_redis(root: Path, url: str, name: str) -> Workspace:
    (root / "playbill.toml").write_text(f'[services]\nonline_store = "{url}"\n')
    return ProjectFolder(root, ProjectSettings(services=ServicesSettings(online_store=url))).workspace(name)


def filled(workspace: Workspace, ingest: Ingest, **size: int) -> FeatureDoor:
    ingest(workspace, **size)
    build_features(workspace)
    door = FeatureDoor(workspace)
    door.apply()
    door.materialize()
    return door


def status(workspace: Workspace) -> dict:
    done = CliRunner().invoke(
        main, ["--project", str(workspace.project.root), "-w", workspace.name, "status", "--json"]
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_workspaces_share_a_redis_and_not_their_members(tmp_path: Path, redis_url: str, ingest: Ingest) -> None:
    door = filled(on_redis(tmp_path, redis_url, "several"), ingest)
    other = filled(on_redis(tmp_path, redis_url, "few"), ingest, members=2)
    now = workspace_clock(door.workspace).now()
    members = [f"m{number}" for number in range(12)] + [None, "nobody"]
    served = door.online(SERVICE, members, now)
    assert_frame_equal(served, door.member_features(SERVICE, served.select("member_id", "event_at")))
    plays = "member_activity__log_plays_total"
    assert served.get_column(plays).null_count() == 2
    assert other.online(SERVICE, members, now).get_column(plays).null_count() == 12
    assert not (tmp_path / ".playbill" / "several" / "online_store.db").exists()
    assert status(door.workspace)["online_store"] is True
    early = now - timedelta(days=365)
    replayed = door.online(SERVICE, members, early)
    assert_frame_equal(replayed, door.member_features(SERVICE, replayed.select("member_id", "event_at")))


def test_a_redis_that_is_down_is_told_with_its_address_and_without_its_password(
    tmp_path: Path, redis_url: str, ingest: Ingest
) -> None:
    filled(on_redis(tmp_path, redis_url, "lost"), ingest)
    workspace = on_redis(tmp_path, f"redis://:hunter2@127.0.0.1:{free_port()}/0", "lost")
    door = FeatureDoor(workspace)
    with pytest.raises(
        ServiceError, match=r"at redis://127.0.0.1:\d+/0 does not answer.*services.online_store"
    ) as found:
        door.online(SERVICE, ["m1"], workspace_clock(workspace).now())
    assert "hunter2" not in str(found.value)
    with pytest.raises(ServiceError, match="does not answer"):
        door.materialize()
    progress = status(workspace)
    assert progress["online_store"] is False
    assert "hunter2" not in json.dumps(progress)
    assert "refused" in progress["online_store_problem"]
    done = CliRunner().invoke(main, ["--project", str(tmp_path), "-w", "lost", "doctor", "--json"])
    findings = {finding["what"]: finding for finding in json.loads(done.stdout.splitlines()[-1])["findings"]}
    assert findings["online store"]["ok"] is False
    assert "hunter2" not in done.stdout


@pytest.mark.usefixtures("redis_program")
def test_a_redis_that_was_restarted_empty_is_told(tmp_path: Path, ingest: Ingest) -> None:
    port = free_port()
    with throwaway_redis(port) as url:
        workspace = on_redis(tmp_path, url, "restarted")
        door = filled(workspace, ingest)
        now = workspace_clock(workspace).now()
        assert not of_one(SERVICE, door.served(SERVICE, ["m1"], now)).of_nothing
        assert online_store_state(workspace).imputed_because is None
    assert "does not answer" in str(online_store_state(workspace).imputed_because)
    with throwaway_redis(port):
        assert of_one(SERVICE, door.served(SERVICE, ["m1"], now)).of_nothing
        assert "is empty: run `playbill materialize`" in str(online_store_state(workspace).imputed_because)
        door.materialize()
        assert not of_one(SERVICE, door.served(SERVICE, ["m1"], now)).of_nothing
