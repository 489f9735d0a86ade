"""The services of a team: Feast's registry in Postgres, online features in Redis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from polars.testing import assert_frame_equal

from playbill.config import ProjectFolder, ProjectSettings, ServicesSettings, Workspace
from playbill.features import FeatureDoor, build_features
from playbill.tables import workspace_clock

SERVICE = "everycanvas_v1"


def test_features_on_postgres_and_redis_equal_those_on_embedded_defaults(
    tmp_path: Path, ingest: Callable[[Workspace], None], door: FeatureDoor, postgres_url: str, redis_url: str
) -> None:
    services = ServicesSettings(feast_registry=postgres_url, online_store=redis_url)
    workspace = ProjectFolder(tmp_path, ProjectSettings(services=services)).workspace("team")
    ingest(workspace)
    build_features(workspace)
    team = FeatureDoor(workspace)
    team.apply()
    assert team.schema(SERVICE).version == door.schema(SERVICE).version

    written = team.materialize()
    assert {view.view: view.rows for view in written.views} == {
        view.view: view.rows for view in door.materialize().views
    }

    at = workspace_clock(workspace).now()
    members = [f"m{number}" for number in range(12)] + ["nobody", None]
    answer = FeatureDoor(workspace).online(SERVICE, members, at)
    assert answer["member_activity__log_plays_total"].null_count() == 2
    assert_frame_equal(answer, door.online(SERVICE, members, at))
    assert not (workspace.folder / "online_store.db").exists()
