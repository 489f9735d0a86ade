"""The suite that an online store inherits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from feast.types import Float64

from playbill_feast.conformance.folders import in_folder
from playbill_feast.conformance.online_keys import OnlineKeyTests
from playbill_feast.conformance.online_lifecycle import LifecycleTests
from playbill_feast.conformance.online_order import OnlineOrderTests, OnlineTtlTests
from playbill_feast.conformance.online_repository import MEMBER, Serving, online_view, open_serving
from playbill_feast.conformance.online_twins import TwinTests
from playbill_feast.conformance.online_values import OnlineValueTests


class OnlineStoreConformance(
    OnlineValueTests, OnlineKeyTests, OnlineOrderTests, OnlineTtlTests, LifecycleTests, TwinTests
):
    """What any Feast online store owes its users, as tests.

    Subclass it in a test module, name the subclass `Test...`, set `online_store`. Everything is written under
    project names that no other run has, and removed afterwards.
    """

    online_store: ClassVar[Mapping[str, Any]]
    """The `online_store:` section of feature_store.yaml; `{folder}` in a text is the suite's own folder."""
    enforces_ttl: ClassVar[bool] = True
    """What the store promises of values older than their view's ttl: True, null and OUTSIDE_MAX_AGE; False, the old
    value as PRESENT, as Feast's own stores serve it. The tests hold it to either."""

    @pytest.fixture(scope="class")
    @classmethod
    def serving(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
        """A registered repository on the store under test, for all tests of the class."""
        folder = tmp_path_factory.mktemp("online_conformance")
        serving = open_serving(folder, in_folder(cls.online_store, folder))
        yield serving
        serving.store.teardown()

    @pytest.fixture
    def another(self, tmp_path: Path) -> Iterator[Callable[..., Serving]]:
        """Return a maker of projects with a few member views, all in one database that no other test uses."""
        opened: list[Serving] = []

        def make(*names: str, features: Mapping[str, Any] | None = None) -> Serving:
            views = [online_view(tmp_path, name, [MEMBER], features or {"x": Float64}) for name in names]
            opened.append(open_serving(tmp_path, in_folder(self.online_store, tmp_path), views))
            return opened[-1]

        yield make
        for one in opened:
            one.store.teardown()

    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls, serving: Serving) -> Iterator[asyncio.Runner]:
        """One event loop for the class, closed as a server closes it: clients may keep connections in it."""
        with asyncio.Runner() as runner:
            yield runner
            runner.run(serving.store.close())
