"""Tests of values and times: types, nulls and statuses; late writes never win, and the ttl is what was promised."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from playbill_feast.conformance.online_repository import OnlineRepository, ago, vector

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
    def test_a_value_of_every_type_comes_back(self, repository: OnlineRepository, feature: str, value: Any) -> None:
        """Equal, and of the same Python type."""
        member = f"{feature} {VALUES.index((feature, value))}"
        repository.write("kinds", {"member_id": member, "event_timestamp": ago(seconds=1), feature: value})
        actual = repository.one(f"kinds:{feature}", member_id=member)
        assert actual == value
        assert type(actual) is type(value)
        assert repository.status(f"kinds:{feature}", member_id=member) == "PRESENT"

    def test_a_null_beside_a_value_stays_null(self, repository: OnlineRepository) -> None:
        """Null is None with the row's event time; stores that mark nulls return NULL_VALUE, Feast's PRESENT."""
        repository.write("taste", {"member_id": "null_1", "event_timestamp": ago(seconds=1), "x": None, "y": "known"})
        answer = repository.read(["taste:x", "taste:y"], [{"member_id": "null_1"}])
        assert answer.values["x"] == [None]
        assert answer.values["y"] == ["known"]
        assert answer.statuses["x"][0] in {"NULL_VALUE", "PRESENT"}
        assert answer.event_seconds["x"] == answer.event_seconds["y"] != [0]

    def test_a_null_replaces_an_older_value(self, repository: OnlineRepository) -> None:
        """A newer row counts as a whole: its null hides the value before."""
        for seconds, x in ((20, 1.0), (10, None)):
            row = {"member_id": "null_2", "event_timestamp": ago(seconds=seconds), "x": x, "y": f"{x}"}
            repository.write("taste", row)
        assert repository.one("taste:x", member_id="null_2") is None
        assert repository.one("taste:y", member_id="null_2") == "None"

    def test_the_event_time_comes_with_the_value(self, repository: OnlineRepository) -> None:
        """In whole seconds, as in Feast's dictionary; a time without zone is UTC."""
        at = ago(hours=2).floor("s")
        repository.write(
            "mood",
            {"member_id": "when_1", "event_timestamp": at, "x": 1.0},
            {"member_id": "when_2", "event_timestamp": at, "x": 2.0},
        )
        naive = repository.frame("mood", [{"member_id": "when_3", "event_timestamp": at.tz_localize(None), "x": 3.0}])
        repository.store.write_to_online_store("mood", df=naive)
        members = [{"member_id": f"when_{n}"} for n in (3, 1, 2, 9)]
        answer = repository.read(["mood:x"], members)
        assert answer.values["x"] == [3.0, 1.0, 2.0, None]
        assert answer.event_seconds["x"] == [int(at.timestamp())] * 3 + [0]


def mood(member: str, seconds_ago: float, x: float, **more: Any) -> dict[str, Any]:
    """Return a row of the view `mood`."""
    return {"member_id": member, "event_timestamp": ago(seconds=seconds_ago), "x": x, **more}


class OnlineOrderTests:
    """Event time decides, then creation time; never the order of writing."""

    def test_a_late_write_never_wins(self, repository: OnlineRepository) -> None:
        """An older value written after a newer one is dropped; a newer one replaces it."""
        repository.write("mood", mood("late", 60, 1.0))
        repository.write("mood", mood("late", 3600, 2.0))
        assert repository.one("mood:x", member_id="late") == 1.0
        repository.write("mood", mood("late", 30, 3.0))
        assert repository.one("mood:x", member_id="late") == 3.0

    def test_event_times_are_compared_below_the_second(self, repository: OnlineRepository) -> None:
        """A millisecond decides."""
        at = ago(seconds=60).floor("s")
        for milliseconds, x in ((2, 1.0), (1, 2.0)):
            later = at.replace(microsecond=milliseconds * 1000)
            repository.write("mood", {"member_id": "fine", "event_timestamp": later, "x": x})
        assert repository.one("mood:x", member_id="fine") == 1.0

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["created_in_order", "created_out_of_order"])
    def test_of_equal_event_times_the_later_created_wins(
        self, repository: OnlineRepository, order: tuple[int, int]
    ) -> None:
        """A correction is created later for the same event time, and may arrive first."""
        at, member = ago(hours=5), f"created_{order}"
        for place in order:
            row = {"member_id": member, "event_timestamp": at, "created_timestamp": ago(hours=4 - place)}
            repository.write("mood", row | {"x": float(place)})
        assert repository.one("mood:x", member_id=member) == 1.0

    @pytest.mark.parametrize("first", [1.0, 2.0], ids=["newest_last", "newest_first"])
    def test_rows_of_one_entity_in_one_write(self, repository: OnlineRepository, first: float) -> None:
        """The newest of them stays, wherever it stands in the frame."""
        rows = [mood(f"batch_{first}", 60 * (3 - x), x) for x in (first, 3.0 - first)]
        repository.write("mood", *rows)
        assert repository.one("mood:x", member_id=f"batch_{first}") == 2.0

    def test_a_late_row_holds_up_no_other(self, repository: OnlineRepository) -> None:
        """Of one write, the late row is dropped and the others are kept."""
        repository.write("mood", mood("held_1", 60, 1.0))
        repository.write("mood", mood("held_1", 3600, 9.0), mood("held_2", 3600, 2.0), mood("held_3", 30, 3.0))
        answer = repository.read(["mood:x"], [{"member_id": f"held_{n}"} for n in (1, 2, 3)])
        assert answer.values["x"] == [1.0, 2.0, 3.0]

    def test_materialization_does_not_undo_what_was_pushed_later(self, repository: OnlineRepository) -> None:
        """The offline history ends before the pushed value, which stays; what only it has is loaded."""
        repository.write("mood", mood("pushed", 60, 4.0))
        repository.load("mood", mood("pushed", 7200, 1.0), mood("loaded", 7200, 2.0), mood("loaded", 7300, 3.0))
        assert repository.one("mood:x", member_id="pushed") == 4.0
        assert repository.one("mood:x", member_id="loaded") == 2.0


class OnlineTtlTests:
    """What becomes of a value older than its view's ttl, by the store's own promise."""

    enforces_ttl: ClassVar[bool] = True

    def assert_expired(self, repository: OnlineRepository, feature: str, value: Any, **keys: Any) -> None:
        """Assert the promise for one value that is past its ttl."""
        actual, status = repository.one(feature, **keys), repository.status(feature, **keys)
        promised = (None, "OUTSIDE_MAX_AGE") if self.enforces_ttl else (value, "PRESENT")
        assert (actual, status) == promised

    def test_a_value_past_its_ttl(self, repository: OnlineRepository) -> None:
        """Null with status OUTSIDE_MAX_AGE; from a store that promises no more, the old value."""
        repository.write("taste", {"member_id": "old", "event_timestamp": ago(hours=72), "x": 1.0, "y": "old"})
        self.assert_expired(repository, "taste:x", 1.0, member_id="old")
        self.assert_expired(repository, "taste:y", "old", member_id="old")

    def test_a_value_within_its_ttl_and_one_without(self, repository: OnlineRepository) -> None:
        """Fresh values are served, and a ttl of none or zero is no limit."""
        ancient = ago(hours=24 * 3650)
        repository.write("taste", {"member_id": "fresh", "event_timestamp": ago(hours=0.9), "x": 1.0, "y": "fresh"})
        repository.write("mood", {"member_id": "fresh", "event_timestamp": ancient, "x": 2.0})
        repository.write("fame", {"title_id": "fresh", "event_timestamp": ancient, "score": 3.0})
        keys = {"member_id": "fresh", "title_id": "fresh"}
        for feature, value in {"taste:x": 1.0, "mood:x": 2.0, "fame:score": 3.0}.items():
            assert (repository.one(feature, **keys), repository.status(feature, **keys)) == (value, "PRESENT")

    def test_age_is_each_views_own(self, repository: OnlineRepository) -> None:
        """In one request an expired view leaves the other, and the other entity, alone."""
        for member, hours in (("aged_1", 72.0), ("aged_2", 0.1)):
            at = ago(hours=hours)
            repository.write("taste", {"member_id": member, "event_timestamp": at, "x": 1.0, "y": member})
            repository.write("mood", {"member_id": member, "event_timestamp": at, "x": 2.0})
        entities = [{"member_id": f"aged_{n}"} for n in (1, 2, 9)]
        answer = repository.read(["taste:y", "mood:x"], entities)
        assert answer.values["x"] == [2.0, 2.0, None]
        assert answer.values["y"] == [None if self.enforces_ttl else "aged_1", "aged_2", None]
        assert answer.statuses["y"][1:] == ["PRESENT", "NOT_FOUND"]

    def test_a_new_value_takes_the_place_of_an_expired_one(self, repository: OnlineRepository) -> None:
        """An entity that was past its ttl is served again."""
        for hours, x in ((72, 1.0), (0.5, 2.0)):
            repository.write("taste", {"member_id": "back", "event_timestamp": ago(hours=hours), "x": x, "y": "back"})
        assert repository.one("taste:x", member_id="back") == 2.0
        assert repository.status("taste:x", member_id="back") == "PRESENT"
