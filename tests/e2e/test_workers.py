"""The whole run on two Ray workers: same data, same definition, a version like any other."""

import pytest

from fixtures.small_project import Shell, few_canvases

LOSS_TOLERANCE = 0.02
"""Of a mean loss near 4: workers add up bfloat16 products in another order."""


def test_two_workers_register_a_version_with_the_same_loss(filled, tmp_path):
    project = filled.copy(tmp_path / "project")
    shell = Shell(project.folder)
    few_canvases(shell)
    assert shell.type("apply").exit_code == 0
    alone = shell.json("train", "everycanvas", "--epochs", "3")
    together = project.json("train", "everycanvas", "--epochs", "3", "--workers", "2")
    assert (alone["version"], together["version"]) == (1, 2)
    assert together["epochs"] == 3
    assert together["final_loss"] == pytest.approx(alone["final_loss"], abs=LOSS_TOLERANCE)
