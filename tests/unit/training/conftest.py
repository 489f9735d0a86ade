"""Loads the tiny problem that unit, parity and Ray tests share."""

from __future__ import annotations

from types import ModuleType

import pytest

from fixtures import ring_problem


@pytest.fixture(scope="session")
def ring() -> ModuleType:
    """The module `ring_problem`."""
    return ring_problem
