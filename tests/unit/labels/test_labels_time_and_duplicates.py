"""What trips labels up: zones and countries, events that come twice, rows and pages, and values that come too early."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.derived_columns import add_derived
from playbill.definitions.specs import LabelSpec
from playbill.definitions.zoo import load_zoo
from playbill.errors import DataError
from playbill.labels import ages, label_columns, label_events, label_parts, summarise
from playbill.testing.made_log import START, made_log, made_tables

ZOO = load_zoo(Path(__file__).parents[3] / "model_zoo")
LABELS = [label for name, label in ZOO.labels.items() if not name.startswith("kuairand")]
NAMES = [label.name for label in LABELS]
LOG, TABLES = made_log().sort("member_id", "seq"), made_tables()
LATE = START + timedelta(days=365)


def progress(frame: pl.DataFrame, as_of: datetime = LATE) -> pl.DataFrame:
    return frame.select("event_id").with_columns(label_columns(LABELS, frame, as_of, **TABLES))


@pytest.mark.parametrize(
    "zone", [ZoneInfo("Asia/Tokyo"), ZoneInfo("America/New_York"), timezone(-timedelta(hours=9, minutes=30))], ids=str
)
@pytest.mark.parametrize("days", [11.0, 20.3])
def test_a_moment_is_the_same_in_every_zone(zone: tzinfo, days: float) -> None:
    as_of = START + timedelta(days=days)
    assert progress(LOG, as_of.astimezone(zone)).equals(progress(LOG, as_of))
    parts = label_parts(LABELS, LOG, as_of, **TABLES)
    other = label_parts(LABELS, LOG, as_of.astimezone(zone), **TABLES)
    assert summarise(LABELS, other, as_of.astimezone(zone)) == summarise(LABELS, parts, as_of)


def test_windows_and_ages_are_counted_in_hours_not_by_the_clocks_of_a_zone() -> None:
    """On 29 March 2026 the clocks of Berlin go from two to three: thirty hours later they show thirty-one."""
    berlin = ZoneInfo("Europe/Berlin")
    shown = datetime(2026, 3, 28, 12, tzinfo=berlin)
    impression = LOG.filter(pl.col("action") == "impression", pl.col("request_id").is_not_null()).head(1)
    frame = impression.with_columns(
        pl.lit(shown.astimezone(UTC)).cast(pl.Datetime("us", "UTC")).alias(name) for name in ("event_at", "recorded_at")
    )
    for minutes, values in ((-1, [None]), (0, [0.0])):
        as_of = (shown.astimezone(UTC) + timedelta(hours=30, minutes=minutes)).astimezone(berlin)
        assert as_of.hour in (18, 19)
        assert progress(frame, as_of)["page_play"].to_list() == values


def test_where_a_member_is_changes_no_label() -> None:
    draw = np.random.default_rng(0)
    moved = LOG.with_columns(
        country=pl.Series(draw.choice(["US", "JP", "ZZ"], LOG.height)),
        language=pl.Series(draw.choice(["en", "ja"], LOG.height)),
    )
    assert progress(moved).equals(progress(LOG))


def test_the_age_of_a_title_is_that_in_the_country_of_the_event() -> None:
    spec = LabelSpec.model_validate(
        {"name": "fresh", "version": 1, "from": {"action": "play", "where": "title_age_days < 3"}}
    )
    plays = LOG.filter(pl.col("action") == "play").head(3).with_columns(title_id=pl.lit("t0"))
    at = pl.lit(START + timedelta(days=10)).cast(pl.Datetime("us", "UTC"))
    plays = plays.with_columns(event_at=at, recorded_at=at, country=pl.Series(["US", "JP", "ZZ"]))
    spans = pl.DataFrame(
        {"title_id": "t0", "country": ["US", "JP"], "available_from": [START, START + timedelta(days=9)]},
        schema_overrides={"available_from": pl.Datetime("us", "UTC")},
    )
    assert label_columns([spec], plays, LATE, spans)["fresh"].to_list() == [None, 1.0, None]


def test_an_event_that_is_there_twice_is_refused() -> None:
    play = LOG.filter(pl.col("action") == "play").head(1)
    with pytest.raises(DataError, match=rf"1 events are there more than once, first '{play['event_id'][0]}'"):
        label_events(LABELS, pl.concat([LOG, play]), LATE, **TABLES)
    with pytest.raises(DataError, match="more than once"):
        list(label_parts(LABELS, pl.concat([LOG, LOG]).lazy(), LATE, **TABLES))


def test_a_second_event_like_the_first_is_one_that_came_after_it() -> None:
    play = LOG.filter(pl.col("action") == "play", pl.col("progress") > 0.1).head(1)
    twice = pl.concat([play, play.with_columns(event_id=pl.lit("again"), seq=pl.col("seq") + 1)])
    found = progress(twice)
    assert found["discovery_play"].to_list() == [1.0, None]
    assert found["continue_play"].to_list() == [None, 1.0]
    assert found["any_play"].to_list() == [1.0, 1.0]


@pytest.mark.parametrize(("name", "place"), [("row_play", ["request_id", "row_id"]), ("page_play", ["request_id"])])
def test_a_row_or_page_has_one_value_at_its_first_impression(name: str, place: list[str]) -> None:
    frame = LOG.with_columns(progress(LOG)[name])
    shown = frame.filter(pl.col("action") == "impression").group_by("member_id", *place, maintain_order=True)
    assert shown.agg(pl.col(name).first())[name].null_count() == 0
    assert frame[name].count() == shown.len().height


@pytest.mark.parametrize(("row", "rows"), [("b", [0.0, 1.0]), ("a", [1.0, 0.0]), (None, [1.0, 1.0]), ("c", [0.0, 0.0])])
def test_a_play_is_of_the_row_it_names_and_else_of_all_that_showed_it(row: str | None, rows: list[float]) -> None:
    at = [START + timedelta(hours=hour) for hour in range(3)]
    three = LOG.filter(pl.col("member_id") == "m0").head(3)
    frame = three.with_columns(
        pl.Series("action", ["impression", "impression", "play"]),
        pl.Series("row_id", ["a", "b", row]),
        *(pl.Series(name, at, dtype=pl.Datetime("us", "UTC")) for name in ("event_at", "recorded_at")),
        title_id=pl.lit("t0"),
        request_id=pl.lit("r"),
    )
    assert progress(frame)["row_play"].to_list() == [*rows, None]
    assert progress(frame)["page_play"].to_list() == [1.0, None, None]


def test_a_rule_of_a_page_speaks_of_the_first_event_of_each() -> None:
    """A search that is logged twice for a page counts once; one that belongs to no page counts for itself."""
    at = [START + timedelta(minutes=5 * place) for place in range(6)]
    six = LOG.filter(pl.col("member_id") == "m0").head(6)
    frame = six.with_columns(
        pl.Series("request_id", ["r", "r", "s", None, None, None]),
        *(pl.Series(name, at, dtype=pl.Datetime("us", "UTC")) for name in ("event_at", "recorded_at")),
        action=pl.Series(["search"] * 5 + ["play"]),
        canvas=pl.lit("search"),
    )
    assert progress(frame)["search_success"].to_list() == [1.0, None, 1.0, 1.0, 1.0, None]


def test_a_row_that_begins_with_its_page_says_no_more_than_the_page() -> None:
    both = progress(LOG).drop_nulls(["row_play", "page_play"])
    assert both["row_play"].sum() > 3
    assert (both["row_play"] <= both["page_play"]).all()
    assert (both["row_play"] < both["page_play"]).any()


@pytest.mark.parametrize("days", [12, 20])
def test_an_outcome_is_null_until_its_window_has_passed(days: int) -> None:
    as_of, window = START + timedelta(days=days), timedelta(days=3)
    found = add_derived(LOG, ["later_plays", "later_visits"], window=window, as_of=as_of)
    passed = LOG["event_at"] + window <= as_of
    for name in ("later_plays", "later_visits"):
        assert found[name].is_not_null().equals(passed), name
        assert (found[name].drop_nulls() > 0).any()


@pytest.mark.parametrize(("late_us", "counted"), [(-1, 1), (0, 1), (1, 0)])
def test_a_window_ends_with_its_last_moment(late_us: int, counted: int) -> None:
    """To the microsecond, for what came of the title and for what came at all; and what comes at once counts."""
    at = START + timedelta(days=1)
    moments = pl.Series([at, at + timedelta(days=2, microseconds=late_us)], dtype=pl.Datetime("us", "UTC"))
    plays = LOG.filter(pl.col("action") == "play").head(2)
    plays = plays.with_columns(title_id=pl.lit("t0"), event_at=moments, recorded_at=moments)
    names = ["later_plays", "later_plays_of_title"]
    found = add_derived(plays, names, window=timedelta(days=2), as_of=LATE)
    assert found.select(names).rows() == [(counted, counted), (0, 0)]
    together = plays.with_columns(event_at=pl.lit(moments[0]))
    found = add_derived(together, names, window=timedelta(minutes=1), as_of=LATE)
    assert found.select(names).rows() == [(1, 1), (0, 0)]


@given(minutes=st.integers(0, 50 * 24 * 60), more=st.integers(0, 20 * 24 * 60))
@settings(max_examples=25, deadline=None)
def test_values_are_null_until_they_are_mature_and_then_stay(minutes: int, more: int) -> None:
    """Of every label and event at once: null below its age, and never another value at a later moment."""
    as_of = START + timedelta(minutes=minutes)
    early, later = progress(LOG, as_of), progress(LOG, as_of + timedelta(minutes=more))
    age = as_of - LOG["event_at"]
    for label in LABELS:
        told_early = early[label.name].is_not_null()
        zero = (early[label.name] == 0).filter(told_early)
        assert (age.filter(told_early).filter(zero) >= label.zeros_mature_after).all()
        assert (age.filter(told_early).filter(~zero) >= label.matures_after).all()
        assert early[label.name].filter(told_early).equals(later[label.name].filter(told_early))


@pytest.mark.parametrize("days", [0, 3, 20, 60])
def test_the_counts_of_a_summary_add_up(days: int) -> None:
    """Each event that a label speaks of is a one, a zero, too young, or has no value for another reason."""
    as_of = START + timedelta(days=days)
    known = LOG.filter(pl.col("event_at") < as_of)
    for label, found in zip(
        LABELS, summarise(LABELS, label_parts(LABELS, LOG, as_of, **TABLES, block=50), as_of), strict=True
    ):
        by_action = ages(label)
        assert by_action is not None
        spoken = known.filter(pl.col("action").is_in(list(by_action)))
        values = progress(LOG, as_of)[label.name]
        assert (found.positives, found.zeros) == ((values > 0).sum(), (values == 0).sum())
        assert found.positives + found.zeros + found.unlabelled == spoken.height
        young = [row for row in spoken.iter_rows(named=True) if row["event_at"] + by_action[row["action"]] > as_of]
        labelled = set(LOG.filter(values.is_not_null())["event_id"])
        assert found.too_young == sum(row["event_id"] not in labelled for row in young)
        assert found.first == (known.filter(pl.col("event_id").is_in(labelled))["event_at"].dt.date().min())


def test_an_action_that_gives_ones_and_zeros_waits_for_the_longer_of_the_two() -> None:
    assert ages(ZOO.labels["discovery_play"]) == {"play": timedelta(0), "impression": timedelta(hours=30)}
    assert ages(ZOO.labels["page_play"]) == {"impression": timedelta(hours=30)}
    rule = {"from": {"action": "play", "where": "progress > 0.5"}, "matures_after": "1h"}
    both = rule | {"negatives": {"actions": ["play", "search"], "matures_after": "5h"}}
    spec = LabelSpec.model_validate({"name": "both", "version": 1, **both})
    assert ages(spec) == {"play": timedelta(hours=5), "search": timedelta(hours=5)}


@pytest.mark.parametrize(("early_us", "young"), [(1, 1), (0, 0)])
def test_an_event_is_no_longer_too_young_at_the_moment_it_is_old_enough(early_us: int, young: int) -> None:
    play = LOG.filter(pl.col("action") == "play").head(1).with_columns(progress=pl.lit(None, pl.Float32))
    as_of = play["event_at"][0] + timedelta(days=2) - timedelta(microseconds=early_us)
    label = ZOO.labels["quick_abandon"]
    (found,) = summarise([label], label_parts([label], play, as_of), as_of)
    assert (found.positives, found.zeros, found.too_young, found.unlabelled) == (0, 0, young, 1)
