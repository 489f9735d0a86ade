"""Values that know the event they are joined to, and honest ones that look much like them."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from fixtures.random_log import MOMENT, START
from playbill.features.leaks import leaks_of
from playbill.features.members import member_activity
from playbill.features.outcomes import outcomes_of
from playbill_feast.asof_join import ViewValues

TICK = timedelta(microseconds=1)
MEMBER = ("member_id",)


def service(members=60, events=40, seed=3):
    """Members with a taste of their own, who play titles of some years and finish those they like."""
    rng = np.random.default_rng(seed)
    years = rng.integers(1960, 2020, 50)
    titles = pl.DataFrame({"title_id": [f"t{i}" for i in range(50)], "release_date": [f"{y}-06-01" for y in years]})
    titles = titles.with_columns(
        pl.col("release_date").str.to_datetime("%Y-%m-%d").dt.replace_time_zone("UTC"),
        pl.when(pl.int_range(50) % 2 == 0).then(pl.lit("Drama")).otherwise(pl.lit("Comedy")).alias("genre"),
    ).select("title_id", "release_date", pl.concat_list("genre").alias("genres"))
    rows = []
    for member in range(members):
        likes = rng.dirichlet(np.full(50, 0.3))
        at = np.sort(rng.integers(0, 90 * 86_400, events))
        for order in range(events):
            title = int(rng.choice(50, p=likes))
            action = str(rng.choice(["play", "impression", "thumbs_up"], p=[0.6, 0.3, 0.1]))
            progress = float(rng.random()) if action == "play" else None
            rows.append((f"e{member}-{order}", f"m{member}", order, int(at[order]), action, f"t{title}", progress))
    log = pl.DataFrame(
        rows, schema=["event_id", "member_id", "seq", "s", "action", "title_id", "progress"], orient="row"
    )
    at = pl.lit(START, dtype=MOMENT) + pl.duration(seconds="s")
    return log.with_columns(event_at=at, recorded_at=at, country=pl.lit("NL"), canvas=pl.lit("home")).drop("s"), titles


LOG, TITLES = service()
PLAYS = LOG.filter(pl.col("action") == "play").join(
    TITLES.select("title_id", pl.col("release_date").dt.year().cast(pl.Float64).alias("year")), on="title_id"
)
PLAYS = PLAYS.sort("member_id", "seq")
YEAR = pl.col("year")


def found(values, name="value", stamped=timedelta(0), log=LOG):
    frame = PLAYS.select("member_id", (pl.col("event_at") + stamped).alias("at"), values.alias(name))
    return judged(frame.unique(["member_id", "at"], keep="last", maintain_order=True), name, log)


def judged(frame, name="value", log=LOG):
    view = ViewValues("mine", frame.lazy(), {"member_id": "member_id"}, "at", None, {name: name})
    return leaks_of(view, outcomes_of(log, TITLES, MEMBER))


def over(values):
    return values.over("member_id")


LEAKS = {
    "running mean": over(YEAR.cum_sum() / YEAR.cum_count()),
    "last ten": over(YEAR.rolling_mean(10, min_samples=1)),
    "own event alone": YEAR,
    "decayed": over(YEAR.ewm_mean(span=30)),
    "count": over(YEAR.cum_count()),
    "log of the count": over(YEAR.cum_count()).log1p().cast(pl.Float32),
    "completed": over((pl.col("progress") >= 0.5).cast(pl.Float64).rolling_mean(15, min_samples=1)),
    "its title": pl.col("title_id"),
    "the next event": over(YEAR.shift(-1)),
    "mean of the whole log": over(YEAR.mean()),
    "plays of the whole log": over(pl.len()).cast(pl.Float64),
}


@pytest.mark.parametrize("values", LEAKS.values(), ids=LEAKS)
def test_a_value_stamped_at_its_own_event_is_a_leak(values):
    result = found(values)
    assert len(result.leaks) == 1, result
    leak = result.leaks[0]
    assert (leak.view, leak.feature) == ("mine", "value")
    row = LOG.filter((pl.col("member_id") == leak.entity["member_id"]) & (pl.col("event_at") == leak.at))
    assert row.height
    assert leak.stamp is not None
    assert leak.stamp <= leak.at
    assert str(leak.entity["member_id"]) in str(leak)


HONEST = {name: values for name, values in LEAKS.items() if "whole" not in name and "next" not in name}


@pytest.mark.parametrize("values", HONEST.values(), ids=HONEST)
def test_the_same_value_stamped_after_its_event_is_none(values):
    assert found(values, stamped=TICK).leaks == ()


@pytest.mark.parametrize("values", HONEST.values(), ids=HONEST)
def test_a_value_of_earlier_events_may_be_stamped_at_the_event(values):
    known = PLAYS.select("event_id", values.alias("value"))
    every = LOG.sort("member_id", "seq").join(known, on="event_id", how="left", maintain_order="left")
    before = pl.col("value").forward_fill().shift(1).over("member_id")
    result = judged(every.select("member_id", pl.col("event_at").alias("at"), before))
    assert result.leaks == ()
    assert result.on_events > 0.9


def test_a_value_of_earlier_plays_that_is_renewed_at_plays_alone_says_that_the_event_is_a_play():
    (leak,) = found(over(YEAR.cum_count()).shift(1).over("member_id")).leaks
    assert "share of 'play' of the event at it" in leak.what


OTHERS = {
    "age of the member": (pl.col("member_id").hash(1) % 60).cast(pl.Float64),
    "taste known from elsewhere": over(YEAR.mean()) + (pl.col("event_id").hash(3) % 100) / 5.0,
    "noise": (pl.col("event_id").hash(2) % 1000).cast(pl.Float64),
    "hour": pl.col("event_at").dt.hour().cast(pl.Float64),
    "constant": pl.lit(1.0),
}


@pytest.mark.parametrize("values", OTHERS.values(), ids=OTHERS)
def test_what_has_nothing_to_do_with_the_event_is_none(values):
    assert found(values).leaks == ()


def test_a_batch_of_a_day_is_stamped_at_its_end_not_at_its_beginning():
    day = (
        PLAYS.with_columns(at=pl.col("event_at").dt.truncate("1d"))
        .group_by("member_id", "at")
        .agg(YEAR.sum(), pl.len())
    )
    day = day.sort("member_id", "at").with_columns(value=(YEAR.cum_sum() / pl.col("len").cum_sum()).over("member_id"))
    assert len(judged(day.select("member_id", "at", "value")).leaks) == 1
    ended = day.select("member_id", pl.col("at") + timedelta(days=1), "value")
    assert judged(ended).leaks == ()


def test_a_shipped_view_passes_and_is_reported_when_stamped_at_its_events():
    rows = member_activity(LOG, TITLES).rename({"event_timestamp": "at"})
    for name in ("log_plays_30d", "completion_rate", "thumbs_up_share", "log_plays_total"):
        frame = rows.select("member_id", "at", name)
        assert judged(frame, name).leaks == ()
    moved = rows.select("member_id", pl.col("at") - TICK, "log_plays_total")
    assert len(judged(moved, "log_plays_total").leaks) == 1


def test_a_log_too_short_for_statistics_says_nothing():
    assert found(YEAR, log=LOG.head(100)).leaks == ()
