"""Our offline store has everything that the conformance suite asks of one."""

from typing import ClassVar

from playbill_feast.conformance import OfflineStoreConformance


class TestAsofOfflineStore(OfflineStoreConformance):
    offline_store: ClassVar = {"type": "playbill_feast.offline.store.AsofOfflineStore"}
