"""Tests of values and names: arrays, nulls, field mappings, renamed keys, services, on-demand views."""

from __future__ import annotations

import pandas as pd

from playbill_feast.conformance.cells import cells
from playbill_feast.conformance.offline_repository import Warehouse, friends, moment


class ValueTests:
    """What comes back, and under which name."""

    def test_arrays_of_numbers_and_of_text(self, warehouse: Warehouse) -> None:
        """Arrays come back whole and in order; an empty one is not a null one."""
        warehouse.write(
            "lists",
            {"member_id": "m1", "event_timestamp": moment(), "tags": ["b", "a"], "vector": [0.5, -1.0]},
            {"member_id": "m2", "event_timestamp": moment(), "tags": [], "vector": None},
        )
        rows = pd.DataFrame({"member_id": ["m2", "m1", "m9"], "event_timestamp": [moment(1)] * 3})
        result = warehouse.get(rows, ["lists:tags", "lists:vector"])
        assert cells(result["tags"]) == [[], ["b", "a"], None]
        assert cells(result["vector"]) == [None, [0.5, -1.0], None]

    def test_a_null_value_is_null_and_not_the_one_before(self, warehouse: Warehouse) -> None:
        """The newest row counts as a whole, its nulls too."""
        warehouse.write(
            "taste",
            {"member_id": "m1", "event_timestamp": moment(0), "x": 1.0, "y": "old"},
            {"member_id": "m1", "event_timestamp": moment(1), "x": None, "y": "new"},
        )
        rows = pd.DataFrame({"member_id": ["m1"], "event_timestamp": [moment(2)]})
        result = warehouse.get(rows, ["taste:x", "taste:y"])
        assert cells(result["x"]) == [None]
        assert cells(result["y"]) == ["new"]

    def test_whole_numbers_stay_exact(self, warehouse: Warehouse) -> None:
        """A 64-bit number beyond a float's precision is not rounded."""
        exact = 2**53 + 1
        warehouse.write("age", {"title_id": "t1", "event_timestamp": moment(), "days": exact})
        rows = pd.DataFrame({"title_id": ["t1"], "event_timestamp": [moment(1)]})
        assert warehouse.job(rows, ["age:days"]).to_arrow().column("days").to_pylist() == [exact]

    def test_arrow_and_pandas_say_the_same(self, warehouse: Warehouse) -> None:
        """`to_arrow` and `to_df` of one question agree."""
        warehouse.write("taste", {"member_id": "m1", "event_timestamp": moment(), "x": 1.0, "y": "why"})
        rows = pd.DataFrame({"member_id": ["m1", "m9"], "event_timestamp": [moment(1)] * 2})
        features = ["taste:x", "taste:y"]
        table, frame = warehouse.job(rows, features).to_arrow(), warehouse.job(rows, features).to_df()
        for feature, known in {"x": 1.0, "y": "why"}.items():
            assert table.column(feature).to_pylist() == cells(frame[feature])
            assert set(cells(frame[feature])) == {known, None}

    def test_columns_are_mapped_to_features(self, warehouse: Warehouse) -> None:
        """A source column of another name is found through the source's field mapping, and needs no created time."""
        warehouse.write("mapped", {"member_id": "m1", "event_timestamp": moment(), "v": 4.0})
        rows = pd.DataFrame({"member_id": ["m1", "m9"], "event_timestamp": [moment(1)] * 2})
        assert cells(warehouse.get(rows, ["mapped:value"])["value"]) == [4.0, None]

    def test_join_keys_can_be_renamed(self, warehouse: Warehouse) -> None:
        """One view serves a member and the member's friend in one service, each under its own name."""
        warehouse.write("taste", *({"member_id": f"m{n}", "event_timestamp": moment(), "x": float(n)} for n in (1, 2)))
        rows = pd.DataFrame({"member_id": ["m1", "m2"], "friend_id": ["m2", "m9"], "event_timestamp": [moment(1)] * 2})
        result = warehouse.get(rows, friends(warehouse.views["taste"]), full_feature_names=True)
        assert cells(result["own__x"]) == [1.0, 2.0]
        assert cells(result["friend__x"]) == [2.0, None]

    def test_a_view_without_entity_holds_for_every_row(self, warehouse: Warehouse) -> None:
        """Its newest value at the row's moment, with and beside views that have keys."""
        warehouse.write("taste", {"member_id": "m1", "event_timestamp": moment(), "x": 1.0})
        warehouse.write("weather", *({"event_timestamp": moment(n), "rain": float(n)} for n in (2, 1)))
        rows = pd.DataFrame({"member_id": ["m1", "m1", "m9"], "event_timestamp": [moment(n) for n in (3, 1.5, 0)]})
        result = warehouse.get(rows, ["weather:rain", "taste:x"])
        assert cells(result["rain"]) == [2.0, 1.0, None]
        assert cells(result["x"]) == [1.0, 1.0, None]

    def test_full_feature_names(self, warehouse: Warehouse) -> None:
        """`view__feature` when asked for, `feature` when not."""
        warehouse.write("taste", {"member_id": "m1", "event_timestamp": moment(), "x": 1.0})
        rows = pd.DataFrame({"member_id": ["m1"], "event_timestamp": [moment(1)]})
        full = warehouse.get(rows, ["taste:x"], full_feature_names=True)
        short = warehouse.get(rows, ["taste:x"])
        assert "x" not in full.columns
        assert cells(full["taste__x"]) == cells(short["x"]) == [1.0]

    def test_on_demand_features_are_computed_row_by_row(self, warehouse: Warehouse) -> None:
        """An on-demand view sees the joined value and the request's own column of the same row."""
        warehouse.write("taste", *({"member_id": f"m{n}", "event_timestamp": moment(), "x": float(n)} for n in (1, 2)))
        rows = pd.DataFrame(
            {"member_id": ["m2", "m1"], "event_timestamp": [moment(2), moment(1)], "boost": [10.0, 20.0]}
        )
        result = warehouse.get(rows, ["taste:x", "boosted:boosted_x"])
        assert cells(result["x"]) == [2.0, 1.0]
        assert cells(result["boosted_x"]) == [12.0, 21.0]
