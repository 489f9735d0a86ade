"""Views of one's own over the event log: against plain loops, and what is refused."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from fixtures.random_log import SPREADS, TITLES, assert_same_states, by_key, plain_states, random_log
from playbill.errors import DataError, UnknownNameError
from playbill.features.axis import Span
from playbill.features.leak_checks import code_leaks
from playbill.features.recipes import Aggregate, Recipe, columns_of

TICK = timedelta(microseconds=1)
WEEK = timedelta(days=7)
PROGRESS = pl.col("progress")


def recipe(keys=("member_id",), actions=("play",), **values):
    return Recipe("mine", keys, actions, values=values)


def function_view(function, keys=("member_id",), **types):
    return Recipe("mine", keys, ("play",), function=function, types=types or {"value": pl.Float32()})


def mean(values):
    known = [value for value in values if value is not None]
    return float(np.float32(sum(known) / len(known))) if known else None


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("seed", range(2))
def test_counts_sums_and_means_of_members_are_the_plain_ones(seed, spread):
    events = random_log(80, seed, spread).sort("member_id", "seq")
    mine = recipe(
        plays=Aggregate("count"),
        halves=Aggregate("count", PROGRESS > 0.5, within=WEEK),
        summed=Aggregate("sum", PROGRESS, last=3),
        mean=Aggregate("mean", PROGRESS),
        recent=Aggregate("mean", PROGRESS, within=WEEK),
        latest=Aggregate("mean", PROGRESS - 0.5, last=2),
    )

    def moments(own):
        plays = [event for event in own if event["action"] == "play"]
        left = {e["event_at"] + TICK + WEEK for e in plays if e["progress"] is not None}
        return {event["event_at"] + TICK for event in plays} | left

    def state(own, at):
        past = [event for event in own if event["action"] == "play" and event["event_at"] < at]
        week = [event["progress"] for event in past if event["event_at"] >= at - WEEK]
        values = [event["progress"] for event in past]
        return {
            "created_timestamp": max(event["recorded_at"] for event in past),
            "plays": float(len(past)),
            "halves": float(sum(value is not None and value > 0.5 for value in week)),
            "summed": sum(value or 0.0 for value in values[-3:]),
            "mean": mean(values),
            "recent": mean(week),
            "latest": mean([None if value is None else value - 0.5 for value in values[-2:]]),
        }

    groups = {key: own for key, own in by_key(events, "member_id").items() if moments(own)}
    assert_same_states(mine.encode(events, TITLES), plain_states(groups, ["member_id"], moments, state))


def test_titles_are_counted_in_closed_hours():
    events = random_log(60, 3, timedelta(days=2)).drop_nulls("title_id")
    at = recipe(("title_id",), plays=Aggregate("count")).encode(events, TITLES)["event_timestamp"]
    assert at.equals(at.dt.truncate("1h"))


def test_columns_of_a_title_are_joined():
    titles = TITLES.with_columns(runtime_min=pl.int_range(pl.len()).cast(pl.Int32) * 10)
    mine = Recipe(
        "mine",
        ("member_id",),
        ("play",),
        values={"length": Aggregate("sum", pl.col("runtime_min"))},
        reads=("runtime_min",),
    )
    events = random_log(40, 1, timedelta(days=2))
    total = mine.encode(events, titles).group_by("member_id").agg(pl.col("length").last()).sort("member_id")
    plays = events.filter(pl.col("action") == "play").join(titles, on="title_id")
    expected = plays.group_by("member_id").agg(pl.col("runtime_min").sum()).sort("member_id")
    assert total["length"].to_list() == expected["runtime_min"].cast(pl.Float64).to_list()


def test_states_do_not_depend_on_other_members_or_on_what_else_is_returned():
    events = random_log(200, 5, timedelta(days=40))
    mine = recipe(mean=Aggregate("mean", PROGRESS * 1e5, within=WEEK), last=Aggregate("sum", PROGRESS / 3, last=5))
    whole = mine.encode(events, TITLES)
    for member in ("m0", "m3"):
        alone = mine.encode(events.filter(pl.col("member_id") == member), TITLES)
        assert alone.equals(whole.filter(pl.col("member_id") == member))
    since = whole["event_timestamp"].sort()[60]
    assert mine.encode(events, TITLES, Span(since=since)).equals(whole.filter(pl.col("event_timestamp") >= since))


def test_a_function_is_seen_strictly_after_its_row_and_the_last_row_of_a_moment_wins():
    events = random_log(60, 2, timedelta(hours=3))
    mine = function_view(lambda plays: plays.with_columns(value=pl.int_range(1, pl.len() + 1).over("member_id")))
    states = mine.encode(events, TITLES)
    plays = events.filter(pl.col("action") == "play")
    counts = plays.group_by("member_id", "event_at").len().sort("member_id", "event_at")
    expected = counts.with_columns(pl.col("len").cum_sum().over("member_id"))
    assert states["event_timestamp"].to_list() == (expected["event_at"] + TICK).to_list()
    assert states["value"].to_list() == expected["len"].cast(pl.Float64).to_list()
    assert states["created_timestamp"].null_count() == 0


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda plays: plays, "value: is not returned"),
        (lambda plays: None, "returns NoneType"),
        (lambda plays: plays.with_columns(value=pl.col("nothing")), "ColumnNotFoundError"),
        (lambda plays: plays.with_columns(pl.col("event_at") + TICK, value=1.0), "without an event of theirs"),
    ],
)
def test_a_function_that_returns_something_else_is_refused(function, match):
    with pytest.raises(DataError, match=match):
        function_view(function).encode(random_log(40, 1, WEEK), TITLES)


def test_values_that_cannot_be_summed_are_refused():
    with pytest.raises(DataError, match="beyond"):
        recipe(huge=Aggregate("sum", PROGRESS * 1e15)).encode(random_log(40, 1, WEEK), TITLES)
    with pytest.raises(DataError, match="one for each"):
        recipe(short=Aggregate("mean", PROGRESS.head(3))).encode(random_log(40, 1, WEEK), TITLES)


def test_unknown_columns_are_named_with_the_nearest_one():
    with pytest.raises(UnknownNameError, match="Did you mean 'progress'"):
        columns_of([pl.col("progres").mean()])
    assert columns_of([pl.col("kuairand.comment_ms")], ["runtime_min"]) == ("kuairand.comment_ms", "runtime_min")


def test_nan_is_no_value():
    events = random_log(40, 1, WEEK).with_columns(pl.lit(float("nan")).alias("progress"))
    assert recipe(mean=Aggregate("mean", PROGRESS)).encode(events, TITLES)["mean"].is_null().all()


LOOKS_AHEAD = {
    "the next event": lambda plays: plays.with_columns(value=pl.col("progress").shift(-1).over("member_id")),
    "the mean of all": lambda plays: plays.with_columns(value=pl.col("progress").mean().over("member_id")),
    "other members": lambda plays: plays.with_columns(value=pl.col("progress").rank() / pl.len()),
}


@pytest.mark.parametrize("function", LOOKS_AHEAD.values(), ids=LOOKS_AHEAD)
def test_code_that_reads_later_events_or_other_entities_is_refused(function):
    events = random_log(300, 4, timedelta(days=40), members=12)
    leaks = code_leaks(function_view(function).view("x"), events, TITLES)
    assert [leak.feature for leak in leaks] == ["value"]
    assert leaks[0].code


def test_code_that_reads_an_entitys_own_past_passes():
    events = random_log(300, 4, timedelta(days=40), members=12)
    honest = function_view(lambda plays: plays.with_columns(value=pl.col("progress").cum_sum().over("member_id")))
    assert code_leaks(honest.view("x"), events, TITLES) == []
    windows = recipe(("title_id",), recent=Aggregate("mean", PROGRESS, within=WEEK), last=Aggregate("count", last=4))
    assert code_leaks(windows.view("x"), events, TITLES) == []


def test_another_definition_is_another_version():
    one = recipe(mean=Aggregate("mean", PROGRESS, within=WEEK))
    assert one.view("a").version != one.view("b").version
    assert one.view("a").version == recipe(mean=Aggregate("mean", PROGRESS, within=WEEK)).view("a").version
    assert one.view("a").version != recipe(mean=Aggregate("mean", PROGRESS, last=3)).view("a").version
