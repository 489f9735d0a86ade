"""Blocks of whole members: every event once, members together and in order, none larger than it must be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from playbill.labels.blocks import PLACE, member_blocks

START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ["member_id", "seq", "event_at"]
OWNERS = "aaabbcccc"
LOG = pl.DataFrame(
    {"member_id": list(OWNERS), "seq": range(9), "event_at": [START + timedelta(hours=n) for n in range(9)]}
)
MIXED = LOG[[4, 8, 0, 7, 2, 5, 1, 6, 3]]


@pytest.mark.parametrize("size", range(1, 11))
@pytest.mark.parametrize("log", [LOG, MIXED, LOG.lazy(), MIXED.lazy()], ids=["sorted", "mixed", "lazy", "lazy mixed"])
def test_members_come_whole_once_and_in_order(log: pl.DataFrame | pl.LazyFrame, size: int) -> None:
    blocks = list(member_blocks(log, COLUMNS, size))
    assert pl.concat(blocks).select(COLUMNS).equals(LOG)
    owners = [set(block["member_id"]) for block in blocks]
    assert sum(map(len, owners)) == 3
    assert all(block.height >= size for block in blocks[:-1])
    # Without its last member a block would be too small.
    assert all(block.filter(pl.col("member_id") != block["member_id"][-1]).height < size for block in blocks)


def test_events_know_their_row_of_a_log_in_memory() -> None:
    for block in member_blocks(MIXED, COLUMNS, 4):
        assert MIXED[block[PLACE]].equals(block.select(COLUMNS))


def test_a_log_without_events_has_no_blocks() -> None:
    assert list(member_blocks(LOG.clear(), COLUMNS, 4)) == []
    assert list(member_blocks(LOG.clear().lazy(), COLUMNS, 4)) == []


def test_equal_order_within_a_member_is_settled_by_time() -> None:
    ties = LOG.with_columns(seq=pl.lit(0, dtype=pl.Int64))
    assert pl.concat(member_blocks(ties.reverse(), COLUMNS, 4)).select(COLUMNS).equals(ties)
