"""The rendered feature_store.yaml, and what importing the room costs."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from playbill.config import (
    FeaturesRaySettings,
    FeaturesSettings,
    ProjectFolder,
    ProjectSettings,
    ServicesSettings,
    WorkspaceSettings,
)
from playbill.errors import StateError
from playbill.features.registration import feature_store_config, render, require_rendered


def project(root: Path, **services: str) -> ProjectFolder:
    return ProjectFolder(root, ProjectSettings(services=ServicesSettings(**services)))


def test_every_path_is_absolute_and_the_workspaces_own(tmp_path: Path) -> None:
    one, other = project(tmp_path).workspace("one"), project(tmp_path).workspace("other")
    config = feature_store_config(one)
    assert config["project"] == "one"
    assert config["registry"]["path"] == f"sqlite:///{tmp_path}/.playbill/one/feast_registry.db"
    assert config["registry"]["registry_type"] == "sql"
    assert config["offline_store"]["features_folder"] == str(one.features)
    assert Path(config["online_store"]["path"]).is_absolute()
    assert config["entity_key_serialization_version"] == 3
    assert feature_store_config(other)["online_store"] != config["online_store"]


def test_a_secret_stays_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "hunter2")
    workspace = project(tmp_path, feast_registry="postgresql+psycopg://u:${PW}@db/{workspace}").workspace("one")
    render(workspace)
    text = workspace.feature_store_yaml.read_text()
    assert "hunter2" not in text
    assert yaml.safe_load(text)["registry"]["path"] == "postgresql+psycopg://u:${PW}@db/one"


def test_features_are_served_from_a_packed_file_of_the_workspace(tmp_path: Path) -> None:
    config = feature_store_config(project(tmp_path).workspace("one"))
    assert config["online_store"]["type"] == "playbill_feast.online.store.PackedOnlineStore"
    assert config["online_store"]["path"] == f"{tmp_path}/.playbill/one/online_store.db"
    assert config["batch_engine"] == {"type": "playbill_feast.compute_engine.PackedComputeEngine"}


def test_redis_is_named_with_its_secret_left_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PW", "hunter2")
    workspace = project(tmp_path, online_store="rediss://:${PW}@cache:6379/3").workspace("one")
    render(workspace)
    text = workspace.feature_store_yaml.read_text()
    assert "hunter2" not in text
    online = yaml.safe_load(text)["online_store"]
    assert (online["backend"], online["connection_string"]) == ("redis", "rediss://:${PW}@cache:6379/3")
    assert "path" not in online


def test_plain_feast_holds_live_values_to_their_ttl_and_leaves_historical_ones(tmp_path: Path) -> None:
    live = ProjectSettings(workspaces={"live": WorkspaceSettings(clock="wall")})
    workspaces = ProjectFolder(tmp_path, live)
    assert "enforce_ttl" not in feature_store_config(workspaces.workspace("live"))["online_store"]
    assert feature_store_config(workspaces.workspace("old"))["online_store"]["enforce_ttl"] is False


def test_the_ray_engine_gets_what_was_set_and_keeps_its_own_defaults(tmp_path: Path) -> None:
    assert "ray" not in feature_store_config(project(tmp_path).workspace("one"))["offline_store"]
    features = FeaturesSettings(
        engine="ray", ray=FeaturesRaySettings(partitions=8), storage_options={"endpoint": "http://s3"}
    )
    services = ServicesSettings(ray_address="auto")
    workspace = ProjectFolder(tmp_path, ProjectSettings(features=features, services=services)).workspace("one")
    config = feature_store_config(workspace)["offline_store"]
    assert (config["engine"], config["ray"]) == ("ray", {"address": "auto", "partitions": 8})
    assert config["storage_options"] == {"endpoint": "http://s3"}


def test_rendering_again_changes_nothing(tmp_path: Path) -> None:
    workspace = project(tmp_path).workspace("one")
    assert render(workspace)
    assert not render(workspace)
    assert [path.name for path in workspace.folder.iterdir()] == ["feature_store.yaml"]


def test_a_workspace_never_applied_names_the_command(tmp_path: Path) -> None:
    workspace = project(tmp_path).workspace("one")
    with pytest.raises(StateError, match="playbill -w one apply"):
        require_rendered(workspace)


def test_a_registry_that_vanished_is_not_created_empty(tmp_path: Path) -> None:
    workspace = project(tmp_path).workspace("one")
    render(workspace)
    with pytest.raises(StateError, match=r"feast_registry\.db does not exist.*playbill -w one apply"):
        require_rendered(workspace)
    assert not (workspace.folder / "feast_registry.db").exists()


def test_importing_the_room_and_its_commands_imports_no_feast() -> None:
    code = (
        "import sys, playbill.features, playbill.cli.features, playbill.cli.features, playbill.cli.features\n"
        "print([name for name in ('feast', 'pandas', 'torch', 'mlflow', 'dask') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
