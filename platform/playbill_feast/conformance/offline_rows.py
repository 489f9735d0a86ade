"""Tests of what happens to entity rows: none is lost, added, changed or moved."""

from __future__ import annotations

import pandas as pd
import pytest

from playbill_feast.conformance.cells import cells
from playbill_feast.conformance.offline_repository import Warehouse, moment

MEMBER_FIRST, TITLE_FIRST = ["taste:x", "fame:score"], ["fame:score", "taste:x"]


def fill(warehouse: Warehouse) -> None:
    """Members m1 and m2 and titles t1 and t2, each with one value from hour 0 on."""
    warehouse.write("taste", *({"member_id": f"m{n}", "event_timestamp": moment(), "x": float(n)} for n in (1, 2)))
    warehouse.write("fame", *({"title_id": f"t{n}", "event_timestamp": moment(), "score": n / 10} for n in (1, 2)))


class RowTests:
    """Entity rows in, the same rows out."""

    @pytest.mark.parametrize("features", [MEMBER_FIRST, TITLE_FIRST], ids=["member_view_first", "title_view_first"])
    def test_slate_rows_are_all_kept(self, warehouse: Warehouse, features: list[str]) -> None:
        """Three titles shown to one member at one moment are three rows, whichever view is asked first."""
        fill(warehouse)
        slate = pd.DataFrame(
            {"member_id": ["m1"] * 3, "title_id": ["t2", "t1", "t9"], "event_timestamp": [moment(1)] * 3}
        )
        result = warehouse.get(slate, features)
        assert list(result["title_id"]) == ["t2", "t1", "t9"]
        assert cells(result["x"]) == [1.0, 1.0, 1.0]
        assert cells(result["score"]) == [0.2, 0.1, None]

    @pytest.mark.parametrize("label", [[0, 1, 0], [1, 1, 1]], ids=["labels_differ", "rows_equal"])
    def test_exact_duplicates_are_kept(self, warehouse: Warehouse, label: list[int]) -> None:
        """A key and moment seen three times are three rows, with the labels they came with."""
        fill(warehouse)
        rows = pd.DataFrame({"member_id": ["m1"] * 3, "event_timestamp": [moment(1)] * 3, "label": label})
        result = warehouse.get(rows, ["taste:x"])
        assert list(result["label"]) == label
        assert cells(result["x"]) == [1.0, 1.0, 1.0]

    def test_output_has_the_order_of_the_input(self, warehouse: Warehouse) -> None:
        """Rows come back in the order given, not sorted by time or key, whatever the frame's index."""
        fill(warehouse)
        hours = [5, 1, 4, 2, 3, 0]
        rows = pd.DataFrame(
            {
                "member_id": ["m2", "m1"] * 3,
                "event_timestamp": [moment(hour) for hour in hours],
                "place": range(6),
            },
            index=[3, 3, 0, 9, 1, 2],
        )
        result = warehouse.job(rows, ["taste:x"]).to_df()
        assert list(result["place"]) == list(range(6))
        assert cells(result["x"]) == [2.0, 1.0] * 3

    def test_given_columns_and_the_given_frame_stay_as_they_are(self, warehouse: Warehouse) -> None:
        """Labels and other columns pass through, and the caller's frame is not written to."""
        fill(warehouse)
        rows = pd.DataFrame(
            {"member_id": ["m2", "m1"], "event_timestamp": [moment(2), moment(1)], "label": [0.5, 0.25]}
        )
        before = rows.copy(deep=True)
        result = warehouse.get(rows, ["taste:x"])
        pd.testing.assert_frame_equal(rows, before)
        assert list(result["label"]) == [0.5, 0.25]
        assert list(pd.to_datetime(result["event_timestamp"], utc=True)) == [moment(2), moment(1)]

    def test_rows_whose_history_is_all_expired_are_kept_with_null(self, warehouse: Warehouse) -> None:
        """A key whose every value is older than the ttl still gives its row."""
        fill(warehouse)
        rows = pd.DataFrame({"member_id": ["m1", "m2"], "event_timestamp": [moment(100), moment(1)]})
        assert cells(warehouse.get(rows, ["taste:x"])["x"]) == [None, 2.0]

    def test_rows_whose_history_lies_all_ahead_are_kept_with_null(self, warehouse: Warehouse) -> None:
        """A key whose every value is later than the row still gives its row, and nothing of the future."""
        fill(warehouse)
        rows = pd.DataFrame({"member_id": ["m1", "m2"], "event_timestamp": [moment(-1), moment(1)]})
        assert cells(warehouse.get(rows, ["taste:x"])["x"]) == [None, 2.0]

    def test_unknown_keys_are_null(self, warehouse: Warehouse) -> None:
        """A key that no source has gives its row with nulls."""
        fill(warehouse)
        rows = pd.DataFrame({"member_id": ["m9", "m1"], "event_timestamp": [moment(1)] * 2})
        assert cells(warehouse.get(rows, ["taste:x"])["x"]) == [None, 1.0]

    def test_null_text_keys_are_kept_and_match_nothing(self, warehouse: Warehouse) -> None:
        """A row without a key is kept, and does not meet values without a key."""
        warehouse.write(
            "taste",
            {"member_id": None, "event_timestamp": moment(), "x": 7.0},
            {"member_id": "m1", "event_timestamp": moment(), "x": 1.0},
        )
        rows = pd.DataFrame({"member_id": [None, "m1"], "event_timestamp": [moment(1)] * 2})
        assert cells(warehouse.get(rows, ["taste:x"])["x"]) == [None, 1.0]

    def test_null_whole_number_keys_are_kept(self, warehouse: Warehouse) -> None:
        """The same for keys that are whole numbers, which pandas turns into floats when one is missing."""
        warehouse.write("wallet", {"account_id": 7, "event_timestamp": moment(), "credit": 1.5})
        rows = pd.DataFrame({"account_id": [7, None], "event_timestamp": [moment(1)] * 2})
        assert cells(warehouse.get(rows, ["wallet:credit"])["credit"]) == [1.5, None]
