"""The small service of `tests/problems/serving_world.py`, ingested once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from playbill.config import Workspace

PATH = Path(__file__).parents[2] / "problems" / "serving_world.py"


@pytest.fixture(scope="session")
def world() -> ModuleType:
    """The module of the small service: its data, fake scorer, fake stores and makers."""
    spec = importlib.util.spec_from_file_location("serving_world", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serving_world"] = module
    spec.loader.exec_module(module)
    return module


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
