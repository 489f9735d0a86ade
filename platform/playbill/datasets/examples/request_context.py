"""What a log says of an event's request on other events of the same request: the query typed, the row and its place.

A play that follows a search carries no query of its own: what was typed is on the `search` event of the same request.
Where a row stood on its page is on the `row_ranking` impression that opened it. Both are read strictly before the
event, by seq, so that nothing which came of a request can reach its context.
"""

from __future__ import annotations

import polars as pl

ROW_RANKING = "row_ranking"
"""Canvas of the impressions that say which rows a page showed, and where."""
NAME_END = ":"
"""What ends the name of a row in its `row_id`: `genre_rows:drama` is one of the rows called `genre_rows`."""
PLACE_COLUMNS = ("row", "row_position")
"""Columns that `request_context` adds beside `query`."""

_REQUEST = ("member_id", "request_id")
_OPTIONAL = {"request_id": pl.String, "row_id": pl.String, "query": pl.String, "position": pl.Int32}
_AT = "__at"


def request_context(events: pl.DataFrame, log: pl.DataFrame) -> pl.DataFrame:
    """Return `events` with what their requests had said before them.

    Args:
        events: Rows of `log`, in any order, with member_id and seq; request_id, row_id and query where known.
        log: The events to read it from.

    Returns:
        `events` in the same order with `query` filled: an event's own, else the last thing typed in its request before
        it; `row`, the name of its row; and `row_position`, the place of the row on the page, from 0. Each is null
        where the log does not say.
    """
    asked = _with_optional(events).with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias(_AT))
    known = _with_optional(log)
    typed = known.filter(pl.col("query").is_not_null())
    shown = pl.col("canvas").eq(ROW_RANKING) & pl.col("action").eq("impression") & pl.col("position").is_not_null()
    places = known.filter(shown, pl.col("row_id").is_not_null())
    queries = _last_before(asked.filter(pl.col("query").is_null()), typed, _REQUEST, "query")
    positions = _last_before(asked.filter(pl.col("row_id").is_not_null()), places, (*_REQUEST, "row_id"), "position")
    name = pl.col("row_id").str.split(NAME_END).list.first()
    filled = (
        asked.join(queries, on=_AT, how="left", maintain_order="left", suffix="_typed")
        .join(positions.rename({"position": "row_position"}), on=_AT, how="left", maintain_order="left")
        .with_columns(pl.coalesce("query", "query_typed"), name.alias("row"))
    )
    kept = [column for column in events.columns if column not in ("query", *PLACE_COLUMNS)]
    order = [*events.columns, *(column for column in ("query", *PLACE_COLUMNS) if column not in events.columns)]
    return filled.select(*kept, "query", *PLACE_COLUMNS).select(order)


def _with_optional(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the columns that a log may lack, and drop what an earlier call has added."""
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in _OPTIONAL.items() if name not in frame.columns]
    return frame.drop(*PLACE_COLUMNS, strict=False).with_columns(missing)


def _last_before(asked: pl.DataFrame, said: pl.DataFrame, by: tuple[str, ...], column: str) -> pl.DataFrame:
    """Return the row number and the newest value said strictly before, for the asked rows that have one."""
    keys = said.select(by).unique()
    rows = asked.select(_AT, "seq", *by).join(keys, on=by, how="semi")
    values = said.select("seq", *by, column).sort("seq")
    found = rows.sort("seq").join_asof(
        values, on="seq", by=list(by), strategy="backward", allow_exact_matches=False, check_sortedness=False
    )
    return found.filter(pl.col(column).is_not_null()).select(_AT, column)
