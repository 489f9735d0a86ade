"""The extractor `visit_continues`: whether the first play of a visit goes on with something or is a discovery."""

from __future__ import annotations

import polars as pl

from playbill.labels.extractors import LabelContext

_VISIT = ["_member", "_visit"]


def visit_continues(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Label the first impression of each page by the first play that follows in the visit.

    1 if the member had played that title before (a continuation), 0 if not (a discovery). A page after which nothing
    is played in its visit within the window is unlabelled: it says nothing of what the member came for. A visit is a
    session; where a log has none, the page alone.

    Args:
        events: n events of whole members, with `request_id` and `session_id`.
        context: Its window counts from the page's first impression.

    Returns:
        [n] 1, 0 or null.
    """
    numbered = events.select(
        "request_id",
        "title_id",
        "event_at",
        "action",
        _member=pl.col("member_id").rle_id(),
        _event=pl.int_range(pl.len(), dtype=pl.Int64),
        _visit=pl.coalesce("session_id", "request_id"),
    )
    shown = numbered.filter(
        pl.col("action") == "impression", pl.col("request_id").is_not_null(), pl.col("title_id").is_not_null()
    )
    firsts = shown.unique(["_member", "request_id"], keep="first", maintain_order=True).sort("_event")
    plays = numbered.filter(pl.col("action") == "play", pl.col("title_id").is_not_null()).with_columns(
        _again=(pl.int_range(pl.len()).over("_member", "title_id") > 0).cast(pl.Float32)
    )
    following = plays.filter(pl.col("_visit").is_not_null()).select(*_VISIT, "_event", "_again", _played="event_at")
    found = firsts.select(*_VISIT, "_event", "event_at").join_asof(
        following.sort("_event"),
        on="_event",
        by=_VISIT,
        strategy="forward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    assert context.window is not None
    known = found.filter(pl.col("_played") <= pl.col("event_at") + context.window)
    values = pl.select(pl.repeat(None, events.height, dtype=pl.Float32)).to_series()
    return values.scatter(known["_event"], known["_again"])
