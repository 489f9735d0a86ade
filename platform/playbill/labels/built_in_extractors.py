"""The extractor `acted_on`: what members did about what they were shown, one value for each exposure."""

from __future__ import annotations

import polars as pl

from playbill.labels.extractors import LabelContext

_EXPOSURE = ["_member", "request_id", "title_id"]


def acted_on(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Label every impression by whether one of some actions came of it.

    1 if the member did one of the actions to the title of the impression, in the same request, after the impression
    and within the window of it; else 0. An impression without `request_id` or title cannot be told apart from others
    and is unlabelled, and so is every other event. A log in which each exposure is a request of its own, such as
    KuaiRand's, so gets one 0 or 1 for each exposure and kind of feedback.

    Args:
        events: n events of whole members.
        context: Its options name the actions; its window counts from the impression.

    Returns:
        [n] 1, 0 or null.
    """
    numbered = events.select(
        "request_id",
        "title_id",
        "event_at",
        "action",
        _member=pl.col("member_id").rle_id(),
        _event=pl.int_range(pl.len()),
    ).filter(pl.col("request_id").is_not_null(), pl.col("title_id").is_not_null())
    shown = numbered.filter(pl.col("action") == "impression").drop("action")
    acted = numbered.filter(pl.col("action").is_in(context.options.actions)).drop("action")
    pairs = shown.join(acted, on=_EXPOSURE, how="inner", suffix="_acted")
    assert context.window is not None
    within = pl.col("event_at_acted") <= pl.col("event_at") + context.window
    came = pairs.filter(pl.col("_event_acted") > pl.col("_event"), within)
    values = pl.select(pl.repeat(None, events.height, dtype=pl.Float32)).to_series()
    values = values.scatter(shown["_event"], 0.0)
    return values.scatter(came["_event"].unique(), 1.0)
