"""Tests of time: which value held at a row's moment, how old it may be, and how times may be written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from playbill_feast.conformance.cells import cells
from playbill_feast.conformance.offline_repository import PAIR_TTL, TASTE_TTL, Warehouse, moment

TEXT = ["2024-01-01T02:00:00", "2024-01-01T02:00:00"]
SORTS_OF_TIME = [
    pytest.param(TEXT, id="text"),
    pytest.param([f"{text}Z" for text in TEXT], id="text_utc"),
    pytest.param([pd.Timestamp(text) for text in TEXT], id="naive"),
    pytest.param([pd.Timestamp("2024-01-01T11:00", tz="Asia/Tokyo")] * 2, id="zoned"),
    pytest.param([datetime(2024, 1, 1, 2, tzinfo=UTC)] * 2, id="utc"),
]


def of_member(at: list[pd.Timestamp], member: str = "m1") -> pd.DataFrame:
    """Return entity rows of one member at several moments."""
    return pd.DataFrame({"member_id": [member] * len(at), "event_timestamp": at})


def value(hours: float, x: float, **more: Any) -> dict[str, Any]:
    """Return one row of the view `taste` for member m1."""
    return {"member_id": "m1", "event_timestamp": moment(hours), "x": x, **more}


class TimeTests:
    """The newest value at or before the row's moment, not older than the ttl."""

    def test_a_value_holds_from_its_own_moment_on(self, warehouse: Warehouse) -> None:
        """At the very moment of a value it is seen; one microsecond before, the earlier one is."""
        warehouse.write("taste", value(2, 2.0), value(1, 1.0))
        rows = of_member([moment(2), moment(2, microseconds=-1), moment(1, microseconds=-1)])
        assert cells(warehouse.get(rows, ["taste:x"])["x"]) == [2.0, 1.0, None]

    def test_age_of_exactly_the_ttl_is_kept_and_a_microsecond_more_is_null(self, warehouse: Warehouse) -> None:
        """The ttl's edge belongs to the value."""
        warehouse.write("taste", value(0, 1.0))
        warehouse.write("pair", {"member_id": "m1", "title_id": "t1", "event_timestamp": moment(), "z": 3.0})
        edges = [moment() + ttl + pd.Timedelta(microseconds=over) for ttl in (TASTE_TTL, PAIR_TTL) for over in (0, 1)]
        result = warehouse.get(of_member(edges).assign(title_id="t1"), ["taste:x", "pair:z"])
        assert cells(result["x"]) == [1.0, None, None, None]
        assert cells(result["z"]) == [3.0, 3.0, 3.0, None]

    def test_a_ttl_of_none_or_zero_is_no_limit(self, warehouse: Warehouse) -> None:
        """Ten years later the value still holds."""
        warehouse.write("fame", {"title_id": "t1", "event_timestamp": moment(), "score": 0.5})
        warehouse.write("age", {"title_id": "t1", "event_timestamp": moment(), "days": 3})
        rows = pd.DataFrame({"title_id": ["t1"], "event_timestamp": [moment(24 * 3650)]})
        result = warehouse.get(rows, ["fame:score", "age:days"])
        assert cells(result["score"]) == [0.5]
        assert cells(result["days"]) == [3]

    @pytest.mark.parametrize("later_first", [True, False], ids=["later_written_first", "later_written_last"])
    def test_of_equal_event_times_the_later_created_wins(self, warehouse: Warehouse, later_first: bool) -> None:
        """A correction is the row of the same moment that was created later, wherever it stands in the file."""
        first, later = (value(0, float(hour), created_timestamp=moment(hour)) for hour in (1, 2))
        warehouse.write("taste", *((later, first) if later_first else (first, later)))
        assert cells(warehouse.get(of_member([moment(3)]), ["taste:x"])["x"]) == [2.0]

    def test_the_later_event_wins_over_the_later_created(self, warehouse: Warehouse) -> None:
        """Creation decides between equal event times only: late data is not newer data."""
        warehouse.write("taste", value(2, 2.0, created_timestamp=moment(2)), value(1, 1.0, created_timestamp=moment(9)))
        assert cells(warehouse.get(of_member([moment(3)]), ["taste:x"])["x"]) == [2.0]

    def test_values_created_after_the_row_can_be_left_out(self, warehouse: Warehouse) -> None:
        """`filter_by_created_timestamp`: only what had been written by the row's moment; or a plain refusal."""
        warehouse.write(
            "taste",
            value(0, 1.0, created_timestamp=moment(0)),
            value(1, 2.0, created_timestamp=moment(4)),
            value(2, 3.0, created_timestamp=moment(5)),
        )
        rows = of_member([moment(3), moment(4), moment(4.5), moment(5)])
        options = {"filter_by_created_timestamp": True}
        if warehouse.offline.supports_filter_by_created_timestamp:
            assert cells(warehouse.get(rows, ["taste:x"], **options)["x"]) == [1.0, 2.0, 2.0, 3.0]
        else:
            with pytest.raises(NotImplementedError):
                warehouse.get(rows, ["taste:x"], **options)
        assert cells(warehouse.get(rows, ["taste:x"])["x"]) == [3.0] * 4

    @pytest.mark.parametrize("times", SORTS_OF_TIME)
    def test_times_of_every_sort_mean_one_moment(self, warehouse: Warehouse, times: list[Any]) -> None:
        """Text, naive (UTC) and zoned times at 02:00 UTC see the value of 02:00 and not that of 02:30."""
        warehouse.write("taste", value(2, 1.0), value(2.5, 2.0))
        rows = pd.DataFrame({"member_id": ["m1", "m9"], "event_timestamp": times})
        assert cells(warehouse.get(rows, ["taste:x"])["x"]) == [1.0, None]

    def test_the_time_column_may_have_another_name(self, warehouse: Warehouse) -> None:
        """One time column, whatever its name, is the row's moment."""
        warehouse.write("taste", value(0, 1.0))
        rows = of_member([moment(1), moment(7)]).rename(columns={"event_timestamp": "seen_at"})
        result = warehouse.get(rows, ["taste:x"])
        assert cells(result["x"]) == [1.0, None]
        assert "seen_at" in result.columns
