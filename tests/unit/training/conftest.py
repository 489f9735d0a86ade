"""Loads the tiny problem that unit, parity and Ray tests share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "problems" / "ring_problem.py"


@pytest.fixture(scope="session")
def ring() -> ModuleType:
    """The module `ring_problem`."""
    if "ring_problem" not in sys.modules:
        spec = importlib.util.spec_from_file_location("ring_problem", PATH)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["ring_problem"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["ring_problem"])
    return sys.modules["ring_problem"]
