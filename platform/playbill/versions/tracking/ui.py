"""How the MLflow UI is started beside our server, and where in it a model is."""

from __future__ import annotations

import sys
from urllib.parse import quote

from playbill.config import Workspace


def ui_command(workspace: Workspace, host: str, port: int) -> list[str]:
    """Return the command that serves the workspace's MLflow database, one worker, on loopback by default.

    Host headers other than those named in `--allowed-hosts` are answered with 403 by MLflow; its own list is
    replaced by ours, so localhost is in it too.
    """
    hosts = ",".join(f"{name}:{port}" for name in dict.fromkeys([host, "localhost", "127.0.0.1"]))
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", workspace.mlflow_uri),
        *("--default-artifact-root", workspace.artifacts),
        *("--host", host, "--port", str(port), "--workers", "1"),
        *("--allowed-hosts", hosts),
    ]


def ui_environment() -> dict[str, str]:
    """Return the settings that keep it at two processes instead of ten, and from asking about usage data."""
    return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def model_page(base: str, workspace: Workspace, model: str) -> str:
    """Return the address of a registered model's page.

    MLflow opens in its mode for generative models, in which the registry is not in the menu; the address names the
    other mode (`workflowType`, MLflow 3.17).

    Args:
        base: Address of the MLflow UI.
        workspace: Whose model.
        model: Its name without the workspace.
    """
    name = quote(workspace.registered_name(model), safe="")
    return f"{base.rstrip('/')}/#/models/{name}?workflowType=machine_learning"
