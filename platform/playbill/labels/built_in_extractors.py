"""The label extractors that come with Playbill.

`acted_on`: what members did about what they were shown, one value for each exposure. `visit_continues`: whether the
first play of a visit goes on with something or is a discovery. `measured`: a number that the log has of an event, such
as how far a title was watched. `played_from`: whether something was played from a row of a page, or from a page.
"""

from __future__ import annotations

import polars as pl

from playbill.labels.extractors import LabelContext
from playbill.labels.rules import LEVEL_COLUMNS

_EXPOSURE = ["_member", "request_id", "title_id"]


def acted_on(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Label every impression by whether one of some actions came of it.

    1 if the member did one of the actions to the title of the impression, in the same request, after the impression and
    within the window of it; else 0. An impression without `request_id` or title cannot be told apart from others and is
    unlabelled, and so is every other event. A log in which each exposure is a request of its own, such as KuaiRand's,
    so gets one 0 or 1 for each exposure and kind of feedback.
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


_VISIT = ["_member", "_visit"]


def visit_continues(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Label the first impression of each page by the first play that follows in the visit.

    1 if the member had played that title before (a continuation), 0 if not (a discovery). A page after which nothing is
    played in its visit within the window, from the page's first impression on, is unlabelled: it says nothing of what
    the member came for. A visit is a session; where a log has none, the page alone.
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


def measured(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Label the events of some actions with one of their columns; where the column is null they are unlabelled.

    For heads whose label is a number (`loss: huber`): `progress` is the share of the title, 0 to 1, and `duration_s`
    the seconds watched. The head's options say in which unit they are learnt and what counts as the most.
    """
    wanted = pl.col("action").is_in(context.options.actions)
    value = pl.col(context.options.column).cast(pl.Float32)
    found = pl.when(wanted & value.is_finite()).then(value).alias("value")
    return events.select(found).to_series()


_TITLE = ["_member", "request_id", "title_id"]


def played_from(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """Label the first impression of each row (`level: row`) or page (`level: page`).

    1 if a title shown there within the window of that first impression was also played from there within it: a play
    with the same request and title, after the first impression. A play that names another row is of that row. 0 if none
    was. Impressions without `request_id` (or `row_id`, for rows) belong nowhere and are unlabelled.
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
