"""Which play or impression an outcome belongs to, and what each of them was worth to a term."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from playbill.definitions.specs import LabelSpec, TermSpec
from playbill.definitions.specs.reward import REWARDED
from playbill.definitions.specs.reward_terms import attribution, attribution_window

_KEY = ("member_id", "title_id")


def rewarded_rows(log: pl.DataFrame) -> pl.DataFrame:
    """Return the plays and impressions of a log, in its order: the rows that have a reward."""
    return log.filter(pl.col("action").is_in(REWARDED))


def term_values(
    name: str, term: TermSpec, label: LabelSpec, outcomes: pl.DataFrame, log: pl.DataFrame, rows: pl.DataFrame
) -> pl.Series:
    """Return what a term's label says of each row, null where it says nothing.

    Args:
        name: Column of `outcomes`.
        term: How the label counts.
        label: Its definition.
        outcomes: event_id and a column per label, as `labels.label_events` gives it.
        log: Rows of the canonical log, known then.
        rows: Rows of it that have a reward.
    """
    said = outcomes.select("event_id", pl.col(name).alias("said")).filter(pl.col("said").is_not_null())
    if attribution(term, label) == "same_title":
        said = _attributed(said, log, rows, attribution_window(term, label))
    joined = rows.select("event_id").join(said, on="event_id", how="left", maintain_order="left")
    return joined["said"].cast(pl.Float32).rename(name)


def _attributed(said: pl.DataFrame, log: pl.DataFrame, rows: pl.DataFrame, window: timedelta | None) -> pl.DataFrame:
    """Give each outcome to the latest play of its title before it, or else to the latest impression; the last counts.

    What the label says of a row itself stays with it unless something later on the title says otherwise.
    """
    keys = log.select("event_id", *_KEY, "seq", "event_at")
    own = said.join(rows.select("event_id"), on="event_id", how="semi")
    others = said.join(rows.select("event_id"), on="event_id", how="anti")
    outcomes = others.join(keys, on="event_id").filter(pl.col("title_id").is_not_null()).sort("seq")
    found = []
    for action in REWARDED:
        targets = rows.filter((pl.col("action") == action) & pl.col("title_id").is_not_null())
        matched = _latest_before(outcomes, targets, window)
        found.append(matched)
        outcomes = outcomes.join(matched, on="event_id", how="anti", maintain_order="left")
    whole = pl.concat(found).sort("seq", maintain_order=True)
    last = whole.group_by("target", maintain_order=True).agg(pl.col("said").last())
    given = last.select(pl.col("target").alias("event_id"), "said")
    return pl.concat([given, own.join(given, on="event_id", how="anti")])


def _latest_before(outcomes: pl.DataFrame, targets: pl.DataFrame, window: timedelta | None) -> pl.DataFrame:
    asked = targets.select(pl.col("event_id").alias("target"), *_KEY, "seq", pl.col("event_at").alias("began")).sort(
        "seq"
    )
    matched = outcomes.join_asof(
        asked, on="seq", by=list(_KEY), strategy="backward", allow_exact_matches=False, check_sortedness=False
    ).filter(pl.col("target").is_not_null())
    if window is not None:
        matched = matched.filter(pl.col("event_at") - pl.col("began") <= window)
    return matched.select("event_id", "seq", "said", "target")


def slate_values(values: pl.DataFrame, log: pl.DataFrame) -> pl.DataFrame:
    """Return what each impression was worth: its own value and those of the plays it led to.

    A play belongs to the impressions of the same title in the same request; a title shown twice in one request
    shares its plays' value evenly.

    Args:
        values: What `reward_values` gave for the log: event_id, value, matured.
        log: Rows of the canonical log.

    Returns:
        event_id, value (float32), matured, one row per impression in the log's order. Matured only when its plays are.
    """
    worth = log.select("event_id", "request_id", "title_id", "action").join(
        values.select("event_id", "value", "matured"), on="event_id", how="inner", maintain_order="left"
    )
    key = ["request_id", "title_id"]
    plays = worth.filter((pl.col("action") == "play") & pl.all_horizontal(pl.col(key).is_not_null()))
    played = plays.group_by(key).agg(pl.col("value").sum().alias("play"), pl.col("matured").all().alias("play_matured"))
    shown = worth.filter(pl.col("action") == "impression")
    joined = shown.with_columns(pl.len().over(key).alias("times")).join(
        played, on=key, how="left", maintain_order="left"
    )
    return joined.select(
        "event_id",
        (pl.col("value") + pl.col("play").fill_null(0.0) / pl.col("times")).cast(pl.Float32).alias("value"),
        pl.col("matured") & pl.col("play_matured").fill_null(value=True),
    )


def row_values(impressions: pl.DataFrame, log: pl.DataFrame) -> pl.DataFrame:
    """Return what each row of each page was worth: the sum over the titles shown in it.

    Source: GenPage, arXiv 2606.31031: a row's reward is the aggregate of its entities'.

    Args:
        impressions: What `slate_values` gave.
        log: Rows of the canonical log.

    Returns:
        request_id, row_id, value (float32), matured, titles (how many were shown), sorted.
    """
    placed = log.select("event_id", "request_id", "row_id").filter(pl.col("row_id").is_not_null())
    return (
        impressions.join(placed, on="event_id")
        .group_by("request_id", "row_id")
        .agg(pl.col("value").sum(), pl.col("matured").all(), pl.len().alias("titles"))
        .sort("request_id", "row_id")
    )
