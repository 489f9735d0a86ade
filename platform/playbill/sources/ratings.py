"""Ratings -> events: a rating is a play, and above or below a bound also a thumb.

For a member's i-th rating, the play has seq 2i and the thumb, if any, 2i+1 at the same moment. The i-th is by
time, then by title id (numbers by value): at equal timestamps the order of the file would be an accident that
decides which title is held out. A source that knows the true order gives it instead. A missing rating, NaN
included, is a play whose thumbs are unlabelled.

A title may be rated any number of times. The first rating of a member and title is the event `p-MEMBER-TITLE`, the
n-th is `p-MEMBER-TITLE~n`, and their thumbs `t-` and the same. With ids of the source's own a play has that id, and
its thumb `t-` and that id.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

ORDER = "_order"
"""Column with the true order within a member, where a source knows it."""

RATING = "_rating"
"""Column with the rating, null where it is missing."""


@dataclass(frozen=True, slots=True)
class RatingRule:
    """How ratings become events.

    Attributes:
        up: Ratings from here on are also a thumbs_up.
        down: Ratings up to here are also a thumbs_down.
        canvas: The canvas the plays are taken to come from.
    """

    up: float = 4.0
    down: float = 2.0
    canvas: str = "home"


def rating_events(ratings: pl.DataFrame, rule: RatingRule) -> pl.DataFrame:
    """Turn whole members' ratings into plays and thumbs.

    Args:
        ratings: member_id, title_id (strings), event_at, `RATING`, optionally event_id, `ORDER` and further columns
            of interactions, which both events get. All ratings of a member are in one frame.
        rule: Bounds and canvas.

    Returns:
        Events with event_id, seq, action, canvas and progress added, unsorted.
    """
    # Polars orders NaN above every number, so an unknown rating would count as the best one.
    ranked = with_rank(ratings.with_columns(pl.col(RATING).fill_nan(None)))
    own = "event_id" in ratings.columns
    plays = ranked.with_columns(
        event_id=pl.col("event_id") if own else _made_id(),
        seq=2 * pl.col("_rank"),
        action=pl.lit("play"),
        progress=pl.lit(1.0, dtype=pl.Float32),
        canvas=pl.lit(rule.canvas),
    )
    rated = plays.filter((pl.col(RATING) >= rule.up) | (pl.col(RATING) <= rule.down))
    thumbs = rated.with_columns(
        event_id="t-" + (pl.col("event_id") if own else pl.col("event_id").str.strip_prefix("p-")),
        seq=pl.col("seq") + 1,
        action=pl.when(pl.col(RATING) >= rule.up).then(pl.lit("thumbs_up")).otherwise(pl.lit("thumbs_down")),
        progress=pl.lit(None, dtype=pl.Float32),
    )
    return pl.concat([plays, thumbs]).drop("_rank", RATING, ORDER, strict=False)


def _made_id() -> pl.Expr:
    """Name a play by its member and title; further ratings of a title get their number behind `~`."""
    number = pl.int_range(1, pl.len() + 1).over("member_id", "title_id")
    again = pl.when(number > 1).then(pl.format("~{}", number)).otherwise(pl.lit(""))
    return pl.concat_str(pl.lit("p-"), "member_id", pl.lit("-"), "title_id", again)


def with_rank(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort rows by member and the tie rule, and number them from 0 within the member as `_rank` (int64)."""
    # Numbers without leading zeros sort by value when sorted by length first; other ids by text.
    by_title = [pl.col("title_id").str.len_bytes(), pl.col("title_id")]
    by_time = [pl.col("event_at"), *by_title]
    order = [pl.col(ORDER), *by_time] if ORDER in rows.columns else by_time
    if RATING in rows.columns:
        # Two ratings of one title at one moment keep their numbers however the rows were stored.
        order = [*order, pl.col(RATING)]
    ordered = rows.sort("member_id", *order, maintain_order=True)
    return ordered.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).over("member_id").alias("_rank"))
