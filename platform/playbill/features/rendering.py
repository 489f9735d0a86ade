"""The rendered `feature_store.yaml` of a workspace: what plain `feast -f ... -c feature_repo` reads."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import yaml

from playbill.config import Workspace
from playbill.errors import StateError
from playbill.files import make_folder, write_text

OFFLINE_STORE = "playbill_feast.offline.store.AsofOfflineStore"
ONLINE_STORE = "playbill_feast.online.store.PackedOnlineStore"
COMPUTE_ENGINE = "playbill_feast.compute_engine.PackedComputeEngine"

_HEADER = "# Rendered by `playbill apply` from playbill.toml. Edit that, not this.\n"


def feature_store_config(workspace: Workspace) -> dict[str, Any]:
    """Return the Feast configuration of a workspace, with absolute paths only.

    A service URL that takes a secret from the environment keeps its `${NAME}`, which Feast fills in as well.
    Feast's own MLflow link is on when MLflow is installed: a retrieval inside a run tags the run.
    """
    services = workspace.project.settings.services
    config: dict[str, Any] = {
        "project": workspace.name,
        "provider": "local",
        "registry": {
            "registry_type": "sql",
            "path": _with_secrets_named(workspace, services.feast_registry, workspace.feast_registry_url),
            # Servers go on answering from a view while it is being materialized.
            "serve_features_while_materializing": True,
        },
        "offline_store": _offline_store(workspace),
        "online_store": _online_store(workspace),
        "batch_engine": {"type": COMPUTE_ENGINE},
        "entity_key_serialization_version": 3,
    }
    if find_spec("mlflow") is not None:
        uri = _with_secrets_named(workspace, services.mlflow, workspace.mlflow_uri)
        config["mlflow"] = {"enabled": True, "tracking_uri": uri}
    return config


def _offline_store(workspace: Workspace) -> dict[str, Any]:
    settings = workspace.project.settings.features
    config: dict[str, Any] = {
        "type": OFFLINE_STORE,
        "features_folder": str(workspace.features),
        "build_command": f"playbill -w {workspace.name} features build",
    }
    if settings.engine == "ray":
        ray = {"address": workspace.project.settings.services.ray_address, **settings.ray.model_dump()}
        config |= {"engine": "ray", "ray": {name: value for name, value in ray.items() if value is not None}}
    if settings.storage_options:
        config["storage_options"] = dict(settings.storage_options)
    return config


def _online_store(workspace: Workspace) -> dict[str, Any]:
    config: dict[str, Any] = {"type": ONLINE_STORE}
    path = workspace.online_store_path
    if path is not None:
        config |= {"backend": "sqlite", "path": str(path)}
    else:
        template = workspace.project.settings.services.online_store
        config |= {"backend": "redis", "connection_string": _with_places_filled(workspace, template)}
    if workspace.clock_setting != "wall":
        # Historical data is years past every ttl by the wall clock that plain Feast commands go by. Playbill holds
        # values to the request's own moment itself.
        config["enforce_ttl"] = False
    return config


def render(workspace: Workspace) -> bool:
    """Write HOME/NAME/feature_store.yaml, if it would change. Returns whether it did."""
    text = _HEADER + yaml.safe_dump(feature_store_config(workspace), sort_keys=False)
    path = workspace.feature_store_yaml
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    if workspace.online_store_path is not None:
        make_folder(workspace.online_store_path.parent)
    write_text(path, text, "Feast's settings")
    return True


def require_rendered(workspace: Workspace) -> None:
    """Bring the rendered file up to date with playbill.toml.

    Raises:
        StateError: The workspace was never applied, or its registry file is gone.
    """
    advice = f"Run `playbill -w {workspace.name} apply` first."
    if not workspace.feature_store_yaml.is_file():
        raise StateError(f"workspace '{workspace.name}' has no feature registry. {advice}")
    url = workspace.feast_registry_url
    # Feast would quietly create an empty database in its place.
    if url.startswith("sqlite:///") and not os.path.isfile(url.removeprefix("sqlite:///")):
        raise StateError(f"the feature registry {url.removeprefix('sqlite:///')} does not exist. {advice}")
    render(workspace)


def _with_secrets_named(workspace: Workspace, template: str, filled: str) -> str:
    return _with_places_filled(workspace, template) if "${" in template else filled


def _with_places_filled(workspace: Workspace, template: str) -> str:
    return template.replace("{home}", str(workspace.project.home)).replace("{workspace}", workspace.name)
