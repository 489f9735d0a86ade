"""The small service of `tests/fixtures/serving_world.py`, ingested once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import serving_world as world
from playbill.config import Workspace


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The ingested workspace. Shared: do not write to it."""
    workspace: Workspace = world.make_workspace(tmp_path_factory.mktemp("serving"))
    return workspace


@pytest.fixture
def own(tmp_path: Path) -> Workspace:
    """An ingested workspace that a test may change."""
    workspace: Workspace = world.make_workspace(tmp_path)
    return workspace
