"""KuaiRand's exposures -> events: each is an impression, and what the member did about it are further events.

All events of an exposure share its moment, the only one there is, and `request_id`, the exposure's own: which
exposures were answered by one request is not in the data, but which play belongs to which impression is. What came
of an exposure was known when the view was over, so `recorded_at` is that moment; an impression is known at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from playbill.schema import UNKNOWN_COUNTRY
from playbill.tables import TIMESTAMP

RANDOM_POOL = 7_583
"""Videos in the pool that random exposures were drawn from, each equally likely (the publisher's README)."""


@dataclass(frozen=True, slots=True)
class EventKind:
    """One event an exposure can become.

    Attributes:
        action: Its action.
        when: Which exposures have it.
        milliseconds: Column with how long it lasted, if that is known.
        of_title: That time is time played, so it also gives the progress.
    """

    action: str
    when: pl.Expr
    milliseconds: str | None = None
    of_title: bool = False


def _is(column: str) -> pl.Expr:
    return pl.col(column) == 1


EVENT_KINDS = (
    EventKind("impression", pl.lit(True)),
    EventKind("play", _is("is_click"), "play_time_ms", of_title=True),
    EventKind("kuairand.brief_view", ~_is("is_click") & (pl.col("play_time_ms") > 0), "play_time_ms", of_title=True),
    EventKind("kuairand.long_view", _is("long_view")),
    EventKind("thumbs_up", _is("is_like")),
    EventKind("thumbs_down", _is("is_hate")),
    EventKind("kuairand.follow", _is("is_follow")),
    EventKind("kuairand.comment", _is("is_comment")),
    EventKind("kuairand.forward", _is("is_forward")),
    EventKind(
        "kuairand.profile_enter", _is("is_profile_enter") | (pl.col("profile_stay_time") > 0), "profile_stay_time"
    ),
    EventKind("kuairand.comments_view", pl.col("comment_stay_time") > 0, "comment_stay_time"),
)
"""In the order that an exposure's events take within the member."""

_SEQ_STEP = 16
"""Numbers kept for the events of one exposure; more than there are kinds."""

_KEY = ("user_id", "time_ms", "video_id", "tab")


def exposure_events(exposures: pl.DataFrame) -> pl.DataFrame:
    """Turn whole members' exposures into events.

    Exposures of one member at one moment are ordered by the number of the video: their order in a file would be an
    accident.

    Args:
        exposures: The columns of `kuairand_logs.LOG_COLUMNS`, int64, without nulls and repeated rows.

    Returns:
        Canonical interactions, unsorted; `country` is `ZZ`.
    """
    rest = [name for name in exposures.columns if name not in _KEY]
    ordered = exposures.sort(*_KEY, *sorted(rest))
    ranked = ordered.with_columns(
        _rank=pl.int_range(pl.len(), dtype=pl.Int64).over("user_id"),
        _copy=pl.int_range(pl.len(), dtype=pl.Int64).over(_KEY),
    )
    again = pl.when(pl.col("_copy") > 0).then(pl.format("-{}", pl.col("_copy") + 1)).otherwise(pl.lit(""))
    described = ranked.with_columns(
        request_id=pl.concat_str(pl.format("{}-{}-{}-{}", "user_id", "video_id", "time_ms", "tab"), again),
        event_at=_moment(pl.col("time_ms")),
        known_at=_moment(pl.col("time_ms") + pl.col("play_time_ms")),
        canvas=pl.format("kuairand.tab_{}", "tab"),
        propensity=pl.when(_is("is_rand")).then(pl.lit(1 / RANDOM_POOL, dtype=pl.Float32)),
    )
    return pl.concat([_events(described, kind, place) for place, kind in enumerate(EVENT_KINDS)])


def _events(exposures: pl.DataFrame, kind: EventKind, place: int) -> pl.DataFrame:
    played = pl.col("play_time_ms") / pl.col("duration_ms")
    seconds = pl.col(kind.milliseconds) / 1000 if kind.milliseconds else pl.lit(None)
    share = pl.when(pl.col("duration_ms") > 0).then(pl.min_horizontal(1.0, played))
    return exposures.filter(kind.when).select(
        event_id=pl.concat_str("request_id", pl.lit(f"-{kind.action.removeprefix('kuairand.')}")),
        member_id=pl.col("user_id").cast(pl.String),
        seq=pl.col("_rank") * _SEQ_STEP + place,
        event_at="event_at",
        recorded_at="event_at" if place == 0 else "known_at",
        action=pl.lit(kind.action),
        title_id=pl.col("video_id").cast(pl.String),
        canvas="canvas",
        request_id="request_id",
        country=pl.lit(UNKNOWN_COUNTRY),
        duration_s=seconds.cast(pl.Float32),
        progress=(share if kind.of_title else pl.lit(None)).cast(pl.Float32),
        propensity="propensity",
    )


def _moment(milliseconds: pl.Expr) -> pl.Expr:
    return pl.from_epoch(milliseconds, "ms").dt.replace_time_zone("UTC").cast(TIMESTAMP)
