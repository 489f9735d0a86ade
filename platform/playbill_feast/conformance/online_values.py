"""Tests of values: every type comes back as it was written, null stays null."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from playbill_feast.conformance.online_repository import Serving, ago, vector

VALUES: list[tuple[str, Any]] = [
    ("an_int32", -(2**31)),
    ("an_int32", 2**31 - 1),
    ("an_int64", -(2**63)),
    ("an_int64", 2**53 + 1),
    ("a_float32", 0.5),
    ("a_float64", 0.1),
    ("a_float64", float("inf")),
    ("a_bool", True),
    ("a_bool", False),
    ("a_text", "Ünïcode, 'quotes' and \n lines"),
    ("a_text", ""),
    ("some_bytes", b"\x00\xff\x01 bytes"),
    ("a_moment", datetime(1998, 4, 22, 23, 59, 59, tzinfo=UTC)),
    ("int_list", [3, -1, 2**53 + 1]),
    ("float_list", [0.1, -0.0, 1e300]),
    ("text_list", ["b", "", "ä"]),
    ("bool_list", [True, False, True]),
    ("vector", vector(1)),
]


class OnlineValueTests:
    """Written and read back."""

    @pytest.mark.parametrize(
        ("feature", "value"), VALUES, ids=[f"{feature}_{place}" for place, (feature, _) in enumerate(VALUES)]
    )
    def test_a_value_of_every_type_comes_back(self, serving: Serving, feature: str, value: Any) -> None:
        """Equal, and of the same Python type."""
        member = f"{feature} {VALUES.index((feature, value))}"
        serving.write("kinds", {"member_id": member, "event_timestamp": ago(seconds=1), feature: value})
        found = serving.one(f"kinds:{feature}", member_id=member)
        assert found == value
        assert type(found) is type(value)
        assert serving.status(f"kinds:{feature}", member_id=member) == "PRESENT"

    def test_a_null_beside_a_value_stays_null(self, serving: Serving) -> None:
        """Null is None with the row's event time; whoever tells nulls apart says NULL_VALUE, Feast says PRESENT."""
        serving.write("taste", {"member_id": "null_1", "event_timestamp": ago(seconds=1), "x": None, "y": "known"})
        answer = serving.read(["taste:x", "taste:y"], [{"member_id": "null_1"}])
        assert answer.values["x"] == [None]
        assert answer.values["y"] == ["known"]
        assert answer.statuses["x"][0] in {"NULL_VALUE", "PRESENT"}
        assert answer.event_seconds["x"] == answer.event_seconds["y"] != [0]

    def test_a_null_replaces_an_older_value(self, serving: Serving) -> None:
        """A newer row counts as a whole: its null hides the value before."""
        for seconds, x in ((20, 1.0), (10, None)):
            row = {"member_id": "null_2", "event_timestamp": ago(seconds=seconds), "x": x, "y": f"{x}"}
            serving.write("taste", row)
        assert serving.one("taste:x", member_id="null_2") is None
        assert serving.one("taste:y", member_id="null_2") == "None"

    def test_the_event_time_comes_with_the_value(self, serving: Serving) -> None:
        """In whole seconds, as Feast's dictionary tells it; a time without zone is UTC."""
        at = ago(hours=2).floor("s")
        serving.write(
            "mood",
            {"member_id": "when_1", "event_timestamp": at, "x": 1.0},
            {"member_id": "when_2", "event_timestamp": at, "x": 2.0},
        )
        naive = serving.frame("mood", [{"member_id": "when_3", "event_timestamp": at.tz_localize(None), "x": 3.0}])
        serving.store.write_to_online_store("mood", df=naive)
        members = [{"member_id": f"when_{n}"} for n in (3, 1, 2, 9)]
        answer = serving.read(["mood:x"], members)
        assert answer.values["x"] == [3.0, 1.0, 2.0, None]
        assert answer.event_seconds["x"] == [int(at.timestamp())] * 3 + [0]
