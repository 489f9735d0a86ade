"""Tests of the asynchronous twins: the same answers as the synchronous calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from playbill_feast.conformance.online_repository import Answer, Serving, ago, answer_of

FEATURES = ["taste:x", "taste:y", "fame:score", "weather:rain"]


class TwinTests:
    """`get_online_features_async` and `write_to_online_store_async`, for a store that says it has them."""

    def test_the_asynchronous_read_is_the_synchronous_one(self, serving: Serving, runner: asyncio.Runner) -> None:
        """Values, statuses and event times agree, also of requests that run at once; or a plain refusal."""
        at = ago(seconds=1)
        serving.write("taste", {"member_id": "async", "event_timestamp": at, "x": 1.0, "y": "one"})
        serving.write("fame", {"title_id": "async", "event_timestamp": at, "score": 0.5})
        entities = [{"member_id": name, "title_id": name} for name in ("async", "nobody")]

        async def ask() -> list[Answer]:
            request: dict[str, Any] = {"features": FEATURES, "entity_rows": entities}
            responses = await asyncio.gather(
                *(serving.store.get_online_features_async(**request, full_feature_names=full) for full in (False, True))
            )
            return [answer_of(response) for response in responses]

        if serving.store._get_provider().async_supported.online.read:
            assert runner.run(ask()) == [serving.read(FEATURES, entities, full_names=full) for full in (False, True)]
        else:
            with pytest.raises(NotImplementedError):
                runner.run(ask())

    def test_the_asynchronous_write_is_the_synchronous_one(self, serving: Serving, runner: asyncio.Runner) -> None:
        """It is read back, and a late row loses; or a plain refusal."""

        async def write() -> None:
            for seconds, x in ((60, 1.0), (3600, 2.0)):
                row = {"member_id": "async_write", "event_timestamp": ago(seconds=seconds), "x": x}
                await serving.store.write_to_online_store_async("mood", df=serving.frame("mood", [row]))

        if serving.store._get_provider().async_supported.online.write:
            runner.run(write())
            assert serving.one("mood:x", member_id="async_write") == 1.0
        else:
            with pytest.raises(NotImplementedError):
                runner.run(write())
