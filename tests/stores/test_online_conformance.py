"""Our online store has everything that the conformance suite asks of one, on both of its databases."""

from typing import ClassVar

import pytest

from playbill_feast.conformance import OnlineStoreConformance

PACKED = {"type": "playbill_feast.online.store.PackedOnlineStore"}


class TestPackedOnSqlite(OnlineStoreConformance):
    online_store: ClassVar = PACKED | {"backend": "sqlite", "path": "{folder}/online.db"}


class TestPackedOnSqliteWithoutTtl(OnlineStoreConformance):
    online_store: ClassVar = PACKED | {"backend": "sqlite", "path": "{folder}/online.db", "enforce_ttl": False}
    enforces_ttl = False


class TestPackedOnRedis(OnlineStoreConformance):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls, redis_url: str) -> None:
        cls.online_store = PACKED | {"backend": "redis", "connection_string": redis_url}
