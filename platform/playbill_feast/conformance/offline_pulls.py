"""Tests of everything that asks by dates: snapshots, the pulls behind materialization, and writes."""

from __future__ import annotations

import pandas as pd

from playbill_feast.conformance.cells import cells
from playbill_feast.conformance.offline_repository import Warehouse, moment, source_table


def fill(warehouse: Warehouse) -> None:
    """Member m1 at hours 0, 1 (corrected once) and 2, member m2 at hour 1."""
    warehouse.write(
        "taste",
        {"member_id": "m1", "event_timestamp": moment(1), "created_timestamp": moment(3), "x": 1.5},
        {"member_id": "m1", "event_timestamp": moment(0), "x": 0.0},
        {"member_id": "m1", "event_timestamp": moment(1), "created_timestamp": moment(1), "x": 1.0},
        {"member_id": "m1", "event_timestamp": moment(2), "x": 2.0},
        {"member_id": "m2", "event_timestamp": moment(1), "x": 9.0},
    )


def triples(frame: pd.DataFrame) -> list[tuple[str, pd.Timestamp, float]]:
    """Return (member, moment, x) of a frame, sorted."""
    times = pd.to_datetime(frame["event_timestamp"], utc=True)
    return sorted(zip(frame["member_id"], times, cells(frame["x"]), strict=True))


class PullTests:
    """Dates include both of their ends; a moment just outside is left out."""

    def test_a_snapshot_by_dates_has_every_moment_of_every_key(self, warehouse: Warehouse) -> None:
        """Without entity rows, each moment of a key between the dates is a row with the value that held then."""
        fill(warehouse)
        result = warehouse.get(
            None, ["taste:x"], start_date=moment(0).to_pydatetime(), end_date=moment(2).to_pydatetime()
        )
        assert triples(result) == [
            ("m1", moment(0), 0.0),
            ("m1", moment(1), 1.5),
            ("m1", moment(2), 2.0),
            ("m2", moment(1), 9.0),
        ]

    def test_a_snapshot_leaves_out_what_lies_outside_its_dates(self, warehouse: Warehouse) -> None:
        """A microsecond before the start or after the end is outside."""
        fill(warehouse)
        dates = {
            "start_date": moment(0, microseconds=1).to_pydatetime(),
            "end_date": moment(2, microseconds=-1).to_pydatetime(),
        }
        assert triples(warehouse.get(None, ["taste:x"], **dates)) == [("m1", moment(1), 1.5), ("m2", moment(1), 9.0)]

    def test_the_latest_of_each_key_between_two_moments(self, warehouse: Warehouse) -> None:
        """What materialization reads: one row per key, corrections applied, both ends included."""
        fill(warehouse)
        latest = "pull_latest_from_table_or_query"
        assert triples(warehouse.pull(latest, "taste", moment(0), moment(2))) == [
            ("m1", moment(2), 2.0),
            ("m2", moment(1), 9.0),
        ]
        assert triples(warehouse.pull(latest, "taste", moment(1), moment(2, microseconds=-1))) == [
            ("m1", moment(1), 1.5),
            ("m2", moment(1), 9.0),
        ]
        assert triples(warehouse.pull(latest, "taste", moment(-1), moment(0))) == [("m1", moment(0), 0.0)]

    def test_every_row_between_two_moments(self, warehouse: Warehouse) -> None:
        """The whole history, corrections and all, both ends included."""
        fill(warehouse)
        every = "pull_all_from_table_or_query"
        assert len(warehouse.pull(every, "taste", moment(0), moment(2))) == 5
        inner = warehouse.pull(every, "taste", moment(0, microseconds=1), moment(2, microseconds=-1))
        assert triples(inner) == [("m1", moment(1), 1.0), ("m1", moment(1), 1.5), ("m2", moment(1), 9.0)]

    def test_a_pull_of_a_view_without_entity(self, warehouse: Warehouse) -> None:
        """One newest row for everybody."""
        warehouse.write("weather", *({"event_timestamp": moment(n), "rain": float(n)} for n in (2, 1)))
        result = warehouse.pull("pull_latest_from_table_or_query", "weather", moment(0), moment(3))
        assert cells(result["rain"]) == [2.0]

    def test_written_rows_are_read_beside_the_old(self, warehouse: Warehouse) -> None:
        """Writing to the offline store adds to the history, and hides none of it."""
        old, new = ({"member_id": "m1", "event_timestamp": moment(n), "entry": f"of hour {n}"} for n in (2, 4))
        warehouse.write("journal", old)
        added = source_table(warehouse.views["journal"], [new]).to_pandas()
        warehouse.store.write_to_offline_store("journal", added, allow_registry_cache=False)
        rows = pd.DataFrame({"member_id": ["m1"] * 4, "event_timestamp": [moment(n) for n in (5, 4, 3, 1)]})
        assert cells(warehouse.get(rows, ["journal:entry"])["entry"]) == ["of hour 4", "of hour 4", "of hour 2", None]
