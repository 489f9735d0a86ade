"""Labels: one where it is said, zero where it is said, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.derived_columns import add_derived
from playbill.definitions.specs import EXTRACTORS, LabelSpec, Spec, parse_where
from playbill.errors import DataError, StateError
from playbill.labels import LabelContext, extract
from playbill.labels.rules import compile_where
from playbill.registry import Plugin
from playbill.schema import BEFORE_COLUMNS

START = datetime(1998, 1, 1, tzinfo=UTC)
END = START + timedelta(days=30)
MOMENT = pl.Datetime("us", "UTC")
SCHEMA: dict[str, Any] = {
    "event_id": pl.String,
    "member_id": pl.String,
    "seq": pl.Int64,
    "event_at": MOMENT,
    "recorded_at": MOMENT,
    "action": pl.String,
    "title_id": pl.String,
    "request_id": pl.String,
    "country": pl.String,
    "device": pl.String,
    "position": pl.Int32,
    "progress": pl.Float32,
}


def log(*events: dict[str, Any]) -> pl.DataFrame:
    """Fill in what an event does not say: one hour apart, member m, title t."""
    rows = []
    for number, event in enumerate(events):
        at = START + timedelta(hours=event.pop("hour", number))
        usual = {"event_id": f"e{number}", "member_id": "m", "seq": number, "event_at": at, "recorded_at": at}
        rows.append(usual | {"action": "play", "title_id": "t", "country": "US", "progress": 1.0} | event)
    return pl.DataFrame(rows, schema=SCHEMA)


def label(**changes: Any) -> LabelSpec:
    base: dict[str, Any] = {"name": "it", "version": 1, "from": {"action": "play"}}
    return LabelSpec.model_validate(base | changes)


def values(frame: pl.DataFrame) -> dict[str, float]:
    return dict(zip(frame["event_id"], frame["value"], strict=True))


def test_only_matching_events_are_labelled() -> None:
    events = log({}, {"action": "thumbs_up"}, {"progress": 0.05}, {"title_id": "u", "progress": 0.1})
    spec = label(**{"from": {"action": "play", "where": "prior_plays_of_title = 0 and progress >= 0.1"}})
    found = extract(spec, events, END)
    assert values(found) == {"e0": 1.0, "e3": 1.0}
    assert found.columns == ["event_id", "title_id", "member_id", "seq", "value"]
    assert found.schema["value"] == pl.Float32


def test_the_opposite_condition_gives_zeros() -> None:
    events = log({"action": "thumbs_up"}, {"action": "thumbs_down"}, {})
    up = label(**{"from": {"action": "thumbs_up"}, "negatives": {"actions": ["thumbs_down"]}})
    down = label(**{"from": {"action": "thumbs_down"}, "negatives": {"actions": ["thumbs_up"]}})
    assert values(extract(up, events, END)) == {"e0": 1.0, "e1": 0.0}
    assert values(extract(down, events, END)) == {"e0": 0.0, "e1": 1.0}


def test_an_action_that_gives_both_leaves_null_unlabelled() -> None:
    events = log({"progress": 0.95}, {"progress": 0.2}, {"progress": None}, {"progress": float("nan")})
    rule = {"action": "play", "where": "progress >= 0.9"}
    spec = label(**{"from": rule, "negatives": {"actions": ["play"]}})
    assert values(extract(spec, events, END)) == {"e0": 1.0, "e1": 0.0}


def test_an_impression_is_a_zero_only_without_a_play_in_its_request() -> None:
    shown = {"action": "impression", "progress": None}
    events = log(
        shown | {"request_id": "r1", "title_id": "t"},
        shown | {"request_id": "r1", "title_id": "u"},
        {"request_id": "r1", "title_id": "t"},
        shown | {"request_id": "r2", "title_id": "t"},
        shown | {"request_id": None, "title_id": "t"},
        shown | {"request_id": "r3", "title_id": None},
    )
    spec = label(negatives={"shown_not_played": True})
    assert values(extract(spec, events, END)) == {"e1": 0.0, "e2": 1.0, "e3": 0.0}


def test_a_log_without_requests_gives_no_zeros() -> None:
    events = log({}).drop("request_id")
    assert values(extract(label(negatives={"shown_not_played": True}), events, END)) == {"e0": 1.0}


def test_young_events_are_absent_not_zero() -> None:
    events = log({"action": "thumbs_down"}, {"action": "thumbs_up"}, {"action": "thumbs_up"})
    spec = label(**{"from": {"action": "thumbs_up"}, "negatives": {"actions": ["thumbs_down"]}, "matures_after": "24h"})
    assert values(extract(spec, events, START + timedelta(hours=25))) == {"e0": 0.0, "e1": 1.0}
    assert values(extract(spec, events, START + timedelta(hours=24))) == {"e0": 0.0}
    assert extract(spec, events, START + timedelta(hours=3)).is_empty()


def test_nothing_at_or_after_the_cut_off_or_recorded_later_exists() -> None:
    events = log({}, {"title_id": "u"}, {"title_id": "v", "recorded_at": END})
    assert values(extract(label(), events, START + timedelta(hours=1))) == {"e0": 1.0}
    assert values(extract(label(), events, START + timedelta(hours=9))) == {"e0": 1.0, "e1": 1.0}


def test_the_order_within_a_member_is_seq_whatever_the_order_of_rows() -> None:
    events = log({"hour": 0}, {"hour": 0}, {"hour": 0, "member_id": "n"}).reverse()
    spec = label(**{"from": {"action": "play", "where": "prior_plays_of_title = 0"}})
    found = extract(spec, events, END)
    assert found["event_id"].to_list() == ["e0", "e2"]
    assert found["member_id"].is_sorted()


def test_derived_columns_against_plain_loops() -> None:
    events = log(
        {"title_id": "t"},
        {"title_id": "t", "action": "thumbs_up"},
        {"title_id": "u", "hour": 30},
        {"title_id": "t", "hour": 30},
        {"title_id": None, "action": "search", "hour": 60},
        {"title_id": "t", "member_id": "n", "hour": 61},
    )
    availability = pl.DataFrame(
        {
            "title_id": ["t", "t", "t", "v"],
            "country": ["*", "US", "DE", "*"],
            "available_from": [
                START - timedelta(days=1),
                START - timedelta(days=3),
                START - timedelta(days=9),
                START,
            ],
        },
        schema_overrides={"available_from": MOMENT},
    )
    titles = pl.DataFrame({"title_id": ["t", "u"], "genres": [["A", "B"], ["B", "B"]]})
    derived = add_derived(events, BEFORE_COLUMNS, availability, titles)
    assert set(BEFORE_COLUMNS) <= set(derived.columns)
    for row in derived.iter_rows(named=True):
        before = [
            other
            for other in events.iter_rows(named=True)
            if other["member_id"] == row["member_id"] and other["seq"] < row["seq"] and other["action"] == "play"
        ]
        same = sum(other["title_id"] == row["title_id"] for other in before)
        assert row["prior_plays"] == len(before)
        assert row["prior_plays_of_title"] == (None if row["title_id"] is None else same)
        last = max((other["event_at"] for other in before), default=None)
        days = None if last is None else (row["event_at"] - last) / timedelta(days=1)
        assert row["days_since_last_play"] == (None if days is None else pytest.approx(days))
        rarest = {"t": min(same, same + sum(other["title_id"] == "u" for other in before)), "u": len(before)}
        assert row["prior_plays_of_rarest_genre"] == rarest.get(row["title_id"] or "")
        launched = START - timedelta(days=3) if row["title_id"] == "t" else None
        age = None if launched is None else (row["event_at"] - launched) / timedelta(days=1)
        assert row["title_age_days"] == (None if age is None else pytest.approx(age))


def test_the_age_of_a_title_needs_availability() -> None:
    spec = label(**{"from": {"action": "play", "where": "title_age_days < 30"}})
    with pytest.raises(StateError, match="playbill ingest"):
        extract(spec, log({}), END)


def test_a_label_without_rows_says_why() -> None:
    spec = label(**{"from": {"action": "my_list_add"}})
    assert extract(spec, log({}), END).is_empty()
    with pytest.raises(DataError, match=r"label it.*\n.*no 'my_list_add' event\. Actions in it: play"):
        extract(spec, log({}), END, require_rows=True)
    strict = label(**{"from": {"action": "play", "where": "progress > 0.5"}})
    with pytest.raises(DataError, match=r"none of 1 'play' events matches and is mature\. Check where: progress > 0.5"):
        extract(strict, log({"progress": 0.1}), END, require_rows=True)


def test_only_zeros_are_no_rows() -> None:
    spec = label(**{"from": {"action": "thumbs_up"}, "negatives": {"actions": ["thumbs_down"]}})
    with pytest.raises(DataError, match="no 'thumbs_up' event"):
        extract(spec, log({"action": "thumbs_down"}), END, require_rows=True)


def test_missing_columns_are_named_together() -> None:
    spec = label(**{"from": {"action": "play", "where": "device = 'tv' and progress > 0"}})
    with pytest.raises(DataError) as caught:
        extract(spec, log({}).drop("device", "progress", "seq"), END)
    assert [problem.what for problem in caught.value.problems] == [
        f"column '{name}' is missing" for name in ("device", "progress", "seq")
    ]


def test_a_cut_off_needs_a_zone() -> None:
    with pytest.raises(DataError, match="no time zone"):
        extract(label(), log({}), datetime(1998, 1, 1))  # noqa: DTZ001


class FollowOptions(Spec):
    """Options of the extractor below."""

    value: float


def follow(events: pl.DataFrame, context: LabelContext) -> pl.Series:
    """An outside extractor."""
    return events.select(pl.when(pl.col("seq") > 0).then(context.options.value)).to_series()


@pytest.mark.usefixtures("own_plugins")
def test_an_outside_extractor_of_bare_functions_labels_events(monkeypatch: pytest.MonkeyPatch) -> None:
    EXTRACTORS.claim("follow", Plugin("x:follow", "x:FollowOptions"))
    monkeypatch.setattr(Plugin, "load_options", lambda self: FollowOptions)
    monkeypatch.setattr(Plugin, "load", lambda self: follow)
    spec = label(**{"from": None, "extractor": "follow", "options": {"value": 0.5}})
    assert values(extract(spec, log({}, {}), END)) == {"e1": 0.5}


ATOMS = ["progress > 0.5", "progress != 0.5", "position in (1, 2)", "device not in ('tv')", "device = 'tv'"]
COLUMNS = ["progress", "position", "device"]
EXPRESSIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({' '.join(parts)})"),
    ),
    max_leaves=5,
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "progress": st.sampled_from([None, float("nan"), 0.1, 0.5, 0.9]),
            "position": st.sampled_from([None, 1, 2, 3]),
            "device": st.sampled_from([None, "tv", "phone"]),
            "hour": st.integers(0, 72),
        }
    ),
    min_size=1,
    max_size=8,
)


@given(text=EXPRESSIONS, events=EVENTS)
@settings(max_examples=60, deadline=None)
def test_an_expression_over_nulls_only_never_matches_nor_does_its_opposite(text: str, events: Sequence[Any]) -> None:
    nulls = log(*(event | dict.fromkeys(COLUMNS) for event in map(dict, events)))
    for written in (text, f"not ({text})"):
        spec = label(**{"from": {"action": "play", "where": written}, "negatives": {"actions": ["play"]}})
        assert extract(spec, nulls, END).is_empty()


@given(text=EXPRESSIONS, events=EVENTS)
@settings(max_examples=60, deadline=None)
def test_an_event_never_matches_both_an_expression_and_its_opposite(text: str, events: Sequence[Any]) -> None:
    frame = log(*map(dict, events))
    for written in (text, f"not ({text})"):
        matched = frame.filter(compile_where(parse_where(written), frame.schema))
        opposite = frame.filter(compile_where(parse_where(f"not ({written})"), frame.schema))
        assert matched.join(opposite, on="event_id", how="inner").is_empty()


@given(text=st.sampled_from(ATOMS), events=EVENTS)
@settings(max_examples=60, deadline=None)
def test_a_comparison_agrees_with_plain_python(text: str, events: Sequence[Any]) -> None:
    plain: dict[str, Callable[[dict[str, Any]], bool]] = {
        "progress > 0.5": lambda row: known(row["progress"]) and row["progress"] > 0.5,
        "progress != 0.5": lambda row: known(row["progress"]) and row["progress"] != 0.5,
        "position in (1, 2)": lambda row: row["position"] in (1, 2),
        "device not in ('tv')": lambda row: known(row["device"]) and row["device"] != "tv",
        "device = 'tv'": lambda row: row["device"] == "tv",
    }
    frame = log(*map(dict, events))
    matched = frame.filter(compile_where(parse_where(text), frame.schema))["event_id"].to_list()
    assert matched == [row["event_id"] for row in frame.iter_rows(named=True) if plain[text](row)]


def known(value: object) -> bool:
    return value is not None and value == value


@given(events=EVENTS, hours=st.integers(0, 100), wait=st.integers(0, 48))
@settings(max_examples=60, deadline=None)
def test_immature_rows_are_absent_and_mature_ones_are_not(events: Sequence[Any], hours: int, wait: int) -> None:
    frame = log(*map(dict, events))
    as_of = START + timedelta(hours=hours)
    found = set(extract(label(matures_after=f"{wait}h"), frame, as_of)["event_id"])
    for row in frame.iter_rows(named=True):
        mature = row["event_at"] < as_of and row["event_at"] + timedelta(hours=wait) <= as_of
        assert (row["event_id"] in found) == mature
