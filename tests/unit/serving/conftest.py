"""The small service of `tests/fixtures/serving_world.py`, ingested once."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from fixtures import serving_world
from playbill.config import Workspace


@pytest.fixture(scope="session")
def world() -> ModuleType:
    """The module of the small service: its data, fake scorer, fake stores and makers."""
    return serving_world


@pytest.fixture(scope="session")
def stocked(world: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The ingested workspace. Shared: do not write to it."""
    workspace: Workspace = world.make_workspace(tmp_path_factory.mktemp("serving"))
    return workspace


@pytest.fixture
def own(world: ModuleType, tmp_path: Path) -> Workspace:
    """An ingested workspace that a test may change."""
    workspace: Workspace = world.make_workspace(tmp_path)
    return workspace
