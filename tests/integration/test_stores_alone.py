"""The stores and their conformance suites, run by a Python that has `playbill_feast` and cannot import Playbill."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STORES = ROOT / "tests" / "stores"
BLOCK = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("playbill", "playbill_lab"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """Return a folder with a copy of the stores, and what hides Playbill from every Python that has it on its path."""
    shutil.copytree(ROOT / "platform" / "playbill_feast", tmp_path / "playbill_feast")
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "tests"),
    [
        pytest.param(["test_offline_conformance.py", "test_plain_project.py"], 45, id="offline"),
        pytest.param(["test_online_conformance.py"], 100, id="online"),
    ],
)
def test_the_stores_pass_their_suites_without_playbill(alone: Path, files: list[str], tests: int) -> None:
    options = ["-q", "-p", "no:cacheprovider", f"--confcutdir={STORES}", f"--basetemp={alone / 'tmp'}"]
    command = [sys.executable, "-m", "pytest", *options, *(str(STORES / file) for file in files)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(alone)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= tests, done.stdout[-2000:]
