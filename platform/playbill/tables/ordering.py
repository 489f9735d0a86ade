"""`seq` for events that come without one: where in the member's order a late or a new event belongs."""

from __future__ import annotations

import polars as pl


def with_seq(events: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Fill `seq` where it is null; events stay in the order given.

    An event belongs after everything of its member up to its moment and before everything later. Its number is its
    time in microseconds where that fits there, else the next free number, and where none is free that of the event
    it follows: `event_at` then tells the two apart. Events of one moment keep the order they are given in.

    Args:
        events: Interactions of any members; rows with a `seq` are returned as they are.
        stored: member_id, event_at and seq of everything these members have already.
    """
    numbered = events.with_row_index("_row")
    missing = numbered.filter(pl.col("seq").is_null())
    if missing.is_empty():
        return events
    given = numbered.filter(pl.col("seq").is_not_null()).select("member_id", "event_at", "seq")
    placed = _placed(missing.select("_row", "member_id", "event_at"), pl.concat([stored.select(given.columns), given]))
    found = numbered.join(placed, on="_row", how="left", maintain_order="left")
    return found.with_columns(seq=pl.coalesce("seq", "_seq")).drop("_row", "_seq")


def _placed(missing: pl.DataFrame, there: pl.DataFrame) -> pl.DataFrame:
    last = there.group_by("member_id").agg(
        pl.col("event_at").max().alias("_last"), pl.col("seq").max().alias("_before")
    )
    rows = missing.join(last, on="member_id", how="left")
    late = pl.col("event_at") < pl.col("_last")
    # Most events come after everything their member has; only the others have to be fitted in between.
    ends = rows.filter(late.not_() | late.is_null()).with_columns(_after=pl.lit(None, dtype=pl.Int64)).drop("_last")
    between = _neighbours(rows.filter(late).drop("_last", "_before"), there)
    gap = ["member_id", "_before", "_after"]
    ordered = pl.concat([ends, between.select(ends.columns)]).sort("event_at", "_row")
    numbered = ordered.with_columns(
        _own=pl.col("event_at").dt.epoch("us"),
        _low=pl.col("_before") + 1,
        _high=pl.col("_after") - 1,
        _place=pl.int_range(pl.len()).over(gap),
        _count=pl.len().over(gap).cast(pl.Int64),
    )
    fits = (pl.col("_own") >= pl.col("_low")).fill_null(True) & (pl.col("_own") <= pl.col("_high")).fill_null(True)
    first = pl.coalesce("_low", pl.col("_high") - pl.col("_count") + 1)
    wanted = pl.when(fits).then("_own").otherwise(first)
    # Each at least one above the one before it in the same gap, and none beyond the gap.
    rising = (wanted - pl.col("_place")).cum_max().over(gap) + pl.col("_place")
    # The event after may share its number with the one before: then this one shares it too.
    return numbered.select("_row", pl.max_horizontal(pl.min_horizontal(rising, "_high"), "_before").alias("_seq"))


def _neighbours(rows: pl.DataFrame, there: pl.DataFrame) -> pl.DataFrame:
    """Add the last `seq` up to each row's moment, and the first one after it."""
    members = rows.select("member_id").unique()
    ordered = there.join(members, on="member_id", how="semi").sort("event_at", "seq")
    ordered = ordered.with_columns(
        _before=pl.col("seq").cum_max().over("member_id"),
        _after=pl.col("seq").cum_min(reverse=True).over("member_id"),
    )
    before, after = (ordered.select("member_id", "event_at", name) for name in ("_before", "_after"))
    found = rows.sort("event_at").join_asof(before, on="event_at", by="member_id", check_sortedness=False)
    return found.join_asof(
        after,
        on="event_at",
        by="member_id",
        strategy="forward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
