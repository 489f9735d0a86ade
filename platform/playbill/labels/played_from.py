"""The extractor `played_from`: whether something was played from a row of a page, or from a page."""

from __future__ import annotations

import polars as pl

from playbill.labels.extractors import LabelContext
from playbill.labels.rules import LEVEL_COLUMNS

_TITLE = ["_member", "request_id", "title_id"]


def played_from(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Label the first impression of each row (`level: row`) or page (`level: page`).

    1 if a title shown there within the window of that first impression was also played from there within it: a play
    with the same request and title, after the first impression. A play that names another row is of that row. 0 if
    none was. Impressions without `request_id` (or `row_id`, for rows) belong nowhere and are unlabelled.

    Args:
        events: n events of whole members; `row_id` only for rows.
        context: Its label's level is `row` or `page`; its window counts from the first impression.

    Returns:
        [n] 1, 0 or null.
    """
    columns = list(LEVEL_COLUMNS[context.label.level])
    place = ["_member", *columns]
    numbered = events.select(
        "request_id",
        *(["row_id"] if "row_id" in events.columns else [pl.lit(None, pl.String).alias("row_id")]),
        "title_id",
        "event_at",
        "action",
        _member=pl.col("member_id").rle_id(),
        _event=pl.int_range(pl.len()),
    ).filter(pl.all_horizontal(pl.col(name).is_not_null() for name in ("request_id", "title_id")))
    shown = numbered.filter(pl.col("action") == "impression", *(pl.col(name).is_not_null() for name in columns)).drop(
        "action"
    )
    firsts = shown.unique(place, keep="first", maintain_order=True).with_columns(_first="_event")
    plays = numbered.filter(pl.col("action") == "play").drop("action")
    seen = plays.join(shown, on=_TITLE, how="inner", suffix="_shown")
    if context.label.level == "row":
        seen = seen.filter(pl.col("row_id").is_null() | (pl.col("row_id") == pl.col("row_id_shown")))
    own = [pl.col(f"{name}_shown").alias(name) if name == "row_id" else pl.col(name) for name in place]
    seen = seen.select(*own, "event_at", "_event", "event_at_shown")
    joined = seen.join(firsts.select(*place, pl.col("event_at").alias("_began"), "_first"), on=place, how="inner")
    assert context.window is not None
    end = pl.col("_began") + context.window
    played = joined.filter(
        pl.col("_event") > pl.col("_first"), pl.col("event_at") <= end, pl.col("event_at_shown") <= end
    )
    return _values(events.height, firsts["_event"], played["_first"])


def _values(count: int, firsts: pl.Series, played: pl.Series) -> pl.Series:
    values = pl.select(pl.repeat(None, count, dtype=pl.Float32)).to_series()
    values = values.scatter(firsts, 0.0)
    return values.scatter(played.unique(), 1.0)
