"""The stores that one run of Feast's universal suites is about, in the form the suites ask for.

The suites import this module by the name in FULL_REPO_CONFIGS_MODULE. It runs in the suites' own environment,
beside Feast's `tests` package. PLAYBILL_SUITE_STORES is a JSON object:

    offline   `offline_store:` section of feature_store.yaml
    online    `online_store:` section
    engine    `batch_engine:` section, or null for Feast's own
    names     names of Feast stores whose tests the online store takes over, beside those for all stores
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from feast.repo_config import get_offline_config_from_type
from tests.universal.feature_repos.universal.data_sources import file as files
from tests.universal.feature_repos.universal.online_store_creator import OnlineStoreCreator

STORES = json.loads(os.environ["PLAYBILL_SUITE_STORES"])


class StoreUnderTest(files.FileDataSourceCreator):
    """Parquet files as sources, read by the offline store under test."""

    def create_offline_store_config(self) -> Any:
        return get_offline_config_from_type(STORES["offline"]["type"])(**STORES["offline"])


class OnlineStoreUnderTest(OnlineStoreCreator):
    """The online store under test; each test has a file of its own, where the store has one."""

    def __init__(self, project_name: str, fixture_request: Any = None, **_: Any) -> None:
        super().__init__(project_name)
        if STORES["engine"]:
            fixture_request.param.batch_engine = STORES["engine"]

    def create_online_store(self) -> dict[str, Any]:
        file = Path(tempfile.mkdtemp(prefix=self.project_name)) / "online.db"
        return {
            key: value.replace("{file}", str(file)) if isinstance(value, str) else value
            for key, value in STORES["online"].items()
        }

    def teardown(self) -> None:
        """Nothing: the run's temporary folder goes as a whole."""


class OneStore(dict[str, Any]):
    """One store under several names: looked up by any of them, listed once."""

    def values(self) -> list[Any]:  # type: ignore[override]
        return list(super().values())[:1]


AVAILABLE_OFFLINE_STORES = [("local", StoreUnderTest)]
AVAILABLE_ONLINE_STORES = OneStore({name: (STORES["online"], OnlineStoreUnderTest) for name in STORES["names"]})
# Tests of online stores read their values through this one too, and tests marked for the file store alone run on it.
files.FileDataSourceCreator = StoreUnderTest
suite = sys.modules["tests.universal.feature_repos.repo_configuration"]
suite.OFFLINE_STORE_TO_PROVIDER_CONFIG["file"] = AVAILABLE_OFFLINE_STORES[0]
