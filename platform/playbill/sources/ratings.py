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
    """How ratings become events."""

    up: float = 4.0
    """Ratings from here on are also a thumbs_up."""
    down: float = 2.0
    """Ratings up to here are also a thumbs_down."""
    canvas: str = "home"
    """The canvas the plays are taken to come from."""


def rating_events(ratings: pl.DataFrame, rule: RatingRule) -> pl.DataFrame:
    """Turn ratings into plays and thumbs; all ratings of a member are in one frame.

    Args:
        ratings: member_id, title_id (strings), event_at, `RATING`, optionally event_id, `ORDER` and further columns
            of interactions, which both events get.
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


def continued(events: pl.DataFrame, log: pl.DataFrame) -> pl.DataFrame:
    """Number ratings that arrive later, with ids made here, after those of the same titles in the log.

    `log` has member_id, title_id, event_at, action and event_id of the members' events so far. A rating whose moment is
    in it has the id it has there, so that it changes nothing; any other one has the next number of its member and
    title.
    """
    plays = _in_order(events.with_columns(_number=_number()))
    known = _in_order(log.with_columns(_number=_number()).filter(pl.col("_number").is_not_null()))
    same = known.select(*_RATED, "event_at", "_place", _known="_number")
    highest = known.group_by(_RATED).agg(_highest=pl.col("_number").max())
    found = plays.join(same, on=[*_RATED, "event_at", "_place"], how="left")
    found = found.join(highest, on=_RATED, how="left").sort("event_at", "_number")
    later = pl.col("_known").is_null().cum_sum().over(_RATED) + pl.col("_highest").fill_null(0)
    renumbered = found.select(*_RATED, "_number", _free=pl.coalesce("_known", later))
    joined = events.with_columns(_number=_number()).join(renumbered, on=[*_RATED, "_number"], how="left")
    return joined.with_columns(event_id=_id(pl.col("event_id").str.slice(0, 2), pl.col("_free"))).select(events.columns)


_RATED = ["member_id", "title_id"]


def _in_order(events: pl.DataFrame) -> pl.DataFrame:
    """Return the plays among events, with their place among those of their member, title and moment."""
    plays = events.filter(pl.col("action") == "play").sort("_number")
    return plays.with_columns(_place=pl.int_range(pl.len()).over(*_RATED, "event_at"))


def _number() -> pl.Expr:
    """Read an event's number from an id that was made here; null where the id was not."""
    base = pl.concat_str("member_id", pl.lit("-"), "title_id")
    rest = pl.col("event_id").str.slice(2).str.strip_prefix(base)
    made = pl.col("event_id").str.slice(2).str.starts_with(base)
    written = rest.str.extract(r"^~(\d+)$").cast(pl.Int64, strict=False)
    return pl.when(made & (rest == "")).then(pl.lit(1, dtype=pl.Int64)).when(made).then(written)


def _made_id() -> pl.Expr:
    return _id(pl.lit("p-"), pl.int_range(1, pl.len() + 1).over(_RATED))


def _id(kind: pl.Expr, number: pl.Expr) -> pl.Expr:
    """Name an event by its member and title; those of further ratings of a title get their number behind `~`."""
    again = pl.when(number > 1).then(pl.format("~{}", number)).otherwise(pl.lit(""))
    return pl.concat_str(kind, "member_id", pl.lit("-"), "title_id", again)


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
