"""A pytest plug-in for runs of Feast's universal suites without cloud accounts.

The suites import BigQuery's client even where no test uses it, so a stand-in is put in its place. And they ask
FEAST_IS_LOCAL_TEST twice: while modules are imported, to leave the clouds out (wanted), and inside some tests,
to return before anything was tested (not wanted). So it is true until the tests are collected.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any


class _Anything(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


for _name in ("google.cloud.bigquery", "google.cloud.bigquery_storage"):
    sys.modules.setdefault(_name, _Anything(_name))
os.environ["FEAST_IS_LOCAL_TEST"] = "True"


def pytest_collection_finish() -> None:
    """Let every collected test run to its end."""
    os.environ["FEAST_IS_LOCAL_TEST"] = "False"
