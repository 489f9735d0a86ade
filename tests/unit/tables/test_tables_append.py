"""Appending rows to a published generation: what is new, what is there, and where a late event belongs."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.clock import FixedClock
from playbill.errors import DataError, UnknownNameError
from playbill.tables import TIMESTAMP
from playbill.tables.appending import sort_out
from playbill.tables.ordering import with_seq

START = datetime(2020, 1, 1, tzinfo=UTC)
ORDER = pl.Schema({"member_id": pl.String(), "event_at": TIMESTAMP, "seq": pl.Int64()})


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def test_new_and_changed_titles_are_appended(filled, titles):
    day = pl.lit(START + timedelta(days=2), dtype=TIMESTAMP)
    changed = titles.head(1).with_columns(name=pl.lit("Alpha II"), valid_from=day)
    new = titles.head(1).with_columns(title_id=pl.lit("77"), name=pl.lit("New"), genres=pl.lit(["War"]))
    offered = pl.concat([titles, changed, new])
    before = filled.digest("titles")
    report = filled.append_rows("titles", offered)
    assert (report.added, report.duplicates, report.conflicting.height) == (2, 3, 0)
    assert filled.titles().get_column("name").to_list() == ["Alpha II", "Gamma", "Beta", "New"]
    assert filled.row_counts()["titles"] == 5
    assert filled.digest("titles") != before
    assert "War" in filled.vocabulary("genre").entries
    assert filled.interactions().height == 6
    again = filled.append_rows("titles", offered.with_columns(recorded_at=day))
    assert (again.added, again.duplicates) == (0, 5)


def test_contradicting_rows_are_kept_out(filled, titles):
    snapshot = filled.snapshot_id()
    report = filled.append_rows("titles", titles.with_columns(name=pl.col("name") + "!"))
    assert (report.added, report.conflicting.height) == (0, 3)
    assert filled.snapshot_id() == snapshot


def test_rows_with_mistakes_are_refused(filled, titles):
    with pytest.raises(DataError, match=r"titles\.valid_from: a moment after the clock"):
        filled.append_rows("titles", titles, clock=FixedClock(START - timedelta(days=1)))
    with pytest.raises(UnknownNameError):
        filled.append_rows("interactions", titles)
    spans = pl.DataFrame({"title_id": ["1", "x"], "country": ["*"] * 2, "available_from": [START] * 2})
    spans = spans.with_columns(recorded_at="available_from").cast({pl.Datetime: TIMESTAMP})
    with pytest.raises(DataError, match="a title that is not in titles in 1 row"):
        filled.append_rows("availability", spans)
    assert filled.append_rows("availability", spans.head(1)).added == 1
    assert filled.availability().height == 1


def test_an_id_on_another_day_is_still_known(filled, events):
    moved = events.with_columns(pl.col("event_at") + timedelta(days=100))
    assert filled.append_events(moved) == 0
    assert filled.data_end() == START + timedelta(days=5, seconds=1)


def test_sort_out_counts_every_row_once():
    stored = pl.DataFrame({"id": ["a", "b"], "value": [1, None], "tags": [["x"], None], "seen": [0, 0]})
    offered = pl.DataFrame(
        {
            "id": ["a", "a", "b", "b", "c", "c", "c"],
            "value": [1, 2, None, 0, 5, 5, 6],
            "tags": [["x"], ["x"], None, None, [], [], []],
            "seen": [9] * 7,
        }
    )
    found = sort_out(offered, stored, ["id"], ["seen"])
    assert found.fresh.rows() == [("c", 5, [], 9)]
    assert found.duplicates == 3
    assert found.conflicting.get_column("value").to_list() == [2, 0, 6]


def test_a_late_event_takes_the_next_free_number():
    stored = pl.DataFrame([("a", at(0), 0), ("a", at(10), 16), ("a", at(20), 17)], schema=ORDER, orient="row")
    rows = [("a", at(5), None), ("a", at(5), None), ("a", at(15), None), ("a", at(-5), None), ("a", at(30), None)]
    placed = with_seq(pl.DataFrame(rows, schema=ORDER, orient="row"), stored).get_column("seq").to_list()
    # Between 16 and 17 nothing is free: the number of the event it follows.
    assert placed[:4] == [1, 2, 16, -1]
    assert placed[4] == (at(30) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def test_events_that_share_a_number_make_room_for_one_more():
    stored = pl.DataFrame([("a", at(0), 1), ("a", at(2), 1), ("a", at(3), 2)], schema=ORDER, orient="row")
    placed = with_seq(pl.DataFrame([("a", at(1), None)], schema=ORDER, orient="row"), stored)
    assert placed.get_column("seq").to_list() == [1]


moments = st.integers(0, 12)
histories = st.lists(moments, max_size=8).map(sorted)


@given(
    stored=histories,
    gaps=st.lists(st.integers(1, 40), min_size=8, max_size=8),
    pushed=st.lists(st.lists(moments, max_size=5), max_size=3),
    live=st.booleans(),
)
def test_the_order_by_seq_is_the_order_of_time(stored, gaps, pushed, live):
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    numbers = [(at(second) - epoch) // timedelta(microseconds=1) + place for place, second in enumerate(stored)]
    if not live:
        numbers = [sum(gaps[: place + 1]) for place in range(len(stored))]
    log = pl.DataFrame([("a", at(s), n) for s, n in zip(stored, numbers, strict=True)], schema=ORDER, orient="row")
    other = pl.DataFrame([("b", at(6), 3)], schema=ORDER, orient="row")
    for batch in pushed:
        rows = pl.DataFrame([("a", at(second), None) for second in batch], schema=ORDER, orient="row")
        placed = with_seq(rows, pl.concat([log, other]))
        assert placed.select("member_id", "event_at").equals(rows.select("member_id", "event_at"))
        assert placed.get_column("seq").null_count() == 0
        log = pl.concat([log, placed])
    ordered = log.sort("seq", "event_at", maintain_order=True)
    assert ordered.get_column("event_at").is_sorted()
