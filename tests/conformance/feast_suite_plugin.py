"""A pytest plug-in for runs of Feast's universal suites without cloud accounts.

The suites import BigQuery's client even where no test uses it, so a stand-in is put in its place. And they ask
FEAST_IS_LOCAL_TEST twice: while modules are imported, to leave the clouds out (wanted), and inside some tests,
to return before anything was tested (not wanted). So it is true until the tests are collected.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Anything(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _stand_in(name: str) -> None:
    module = _Anything(name)
    module.__path__ = []
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    setattr(sys.modules.get(parent) or import_module(parent), child, module)


for _name in ("google.cloud", "google.cloud.bigquery"):
    try:
        import_module(_name)
    except ImportError:
        _stand_in(_name)
os.environ["FEAST_IS_LOCAL_TEST"] = "True"


def pytest_collection_finish() -> None:
    """Let every collected test run to its end."""
    os.environ["FEAST_IS_LOCAL_TEST"] = "False"


def pytest_itemcollected(item: Any) -> None:
    """Note in the outcome for which stores a test is meant, where it is not meant for all."""
    for mark in item.iter_markers("universal_online_stores"):
        if only := mark.kwargs.get("only"):
            item.user_properties.append(("only", ", ".join(only)))
