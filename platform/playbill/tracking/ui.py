"""How the MLflow UI is started beside our server."""

from __future__ import annotations

import sys

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
    """Return the settings that keep it at two processes instead of ten."""
    return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
