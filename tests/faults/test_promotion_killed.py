"""A controller killed with SIGKILL in the middle of showing a decision, and the next one that finishes it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.config import Workspace
from playbill.versions.promotion import Controller
from playbill.versions.tracking import Tracking

DIES = """
import os, signal, sys
from pathlib import Path
from playbill.config import ProjectFolder, ProjectSettings
from playbill.versions.promotion import Controller
from playbill.versions.tracking import Tracking

workspace = ProjectFolder(Path(sys.argv[1]), ProjectSettings()).workspace("ml")
tracking = Tracking(workspace, verify=lambda folder: sys.argv[3])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(tracking, sys.argv[2], die)
Controller(workspace, tracking, lease_seconds=0.01, gates_of=lambda _: ()).poll_once()
"""


@pytest.mark.parametrize(("step", "decided"), [("download", False), ("set_version_tag", True)])
def test_a_controller_killed_half_way_is_finished_by_the_next(
    mlflow_workspace: Workspace,
    tiny_bundle: Callable[..., Path],
    tracking_of: Callable[[Workspace], Tracking],
    step: str,
    decided: bool,
) -> None:
    tracking = tracking_of(mlflow_workspace)
    with tracking.start_run("everycanvas", "fit") as run:
        tracking.register(run, tiny_bundle(), "everycanvas", {})
    tracking.set_alias("everycanvas", "champion", 1)
    digest = tracking.version("everycanvas", 1).digest or ""
    command = [sys.executable, "-c", DIES, str(mlflow_workspace.project.root), step, digest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr

    controller = Controller(mlflow_workspace, tracking, gates_of=lambda _: ())
    assert (controller.log.approved("everycanvas") is not None) is decided
    assert len(controller.poll_once()) == (0 if decided else 1)
    assert [row.verdict for row in controller.log.history("everycanvas")] == ["approved"]
    assert controller.log.unsettled() == ()
    assert tracking.version("everycanvas", 1).tags["playbill.promotion"].startswith("approved")
    assert [path.name[0] for path in mlflow_workspace.serving.iterdir()] == ["e"]
