"""What plays and impressions are worth: which outcome belongs to which, and what is not known yet."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.definitions.specs import LabelSpec, RewardSpec
from playbill.errors import DataError
from playbill.rewards import reward_values, reward_version, slate_values

Log = Callable[..., pl.DataFrame]

START = datetime(2024, 3, 1, 12, tzinfo=UTC)
LATE = START + timedelta(days=365)
UP = LabelSpec.model_validate({"name": "up", "version": 1, "from": {"action": "thumbs_up"}})
DONE = LabelSpec.model_validate(
    {
        "name": "done",
        "version": 1,
        "from": {"action": "play", "where": "progress >= 0.9"},
        "window": "7d",
        "matures_after": "8d",
    }
)
SHOWN = LabelSpec.model_validate(
    {
        "name": "shown",
        "version": 1,
        "from": {"action": "play"},
        "negatives": {"shown_not_played": True, "matures_after": "1d"},
    }
)
LABELS = {"up": UP, "done": DONE, "shown": SHOWN}


def reward(terms: dict[str, Any], **more: Any) -> RewardSpec:
    return RewardSpec.model_validate({"name": "worth", "version": 1, "terms": terms} | more)


def outcomes(**texts: dict[str, float]) -> pl.DataFrame:
    """Return a frame with a column per label: label -> event -> value."""
    events = sorted({event for values in texts.values() for event in values})
    columns = {
        name: pl.Series([values.get(event) for event in events], dtype=pl.Float32) for name, values in texts.items()
    }
    return pl.DataFrame({"event_id": events} | columns, schema_overrides={"event_id": pl.String})


def worth(frame: pl.DataFrame) -> dict[str, float]:
    return {event: round(value, 5) for event, value in zip(frame["event_id"], frame["value"], strict=True)}


def test_terms_add_up_by_what_their_labels_say(make_log: Log) -> None:
    log = make_log({}, {}, {"action": "impression"})
    texts = outcomes(done={"e0": 1.0, "e1": 0.0}, shown={"e0": 1.0, "e2": 0.0})
    spec = reward({"done": {"weight": 0.6, "otherwise": -0.1}, "shown": {"weight": 0.2, "otherwise": -0.05}})
    found = reward_values(spec, LABELS, texts, log, LATE)
    assert worth(found) == {"e0": 0.8, "e1": -0.1, "e2": -0.05}
    assert found["matured"].all()
    assert found["done"].to_list() == [1.0, 0.0, None]
    assert found.schema["value"] == pl.Float32


def test_the_sum_is_clipped(make_log: Log) -> None:
    found = reward_values(reward({"done": 3.0}, clip=[-1, 1]), LABELS, outcomes(done={"e0": 1.0}), make_log({}), LATE)
    assert worth(found) == {"e0": 1.0}


def test_a_thumb_counts_for_the_latest_play_before_it(make_log: Log) -> None:
    log = make_log(
        {}, {"action": "impression"}, {}, {"title_id": "u"}, {"action": "thumbs_up"}, {"action": "impression"}, {}
    )
    found = reward_values(reward({"up": 1.0}), LABELS, outcomes(up={"e4": 1.0}), log, LATE)
    assert worth(found) == {"e0": 0.0, "e1": 0.0, "e2": 1.0, "e3": 0.0, "e5": 0.0, "e6": 0.0}


def test_without_a_play_it_counts_for_the_latest_impression(make_log: Log) -> None:
    log = make_log({"action": "impression"}, {"action": "impression"}, {"action": "thumbs_up"})
    found = reward_values(reward({"up": 1.0}), LABELS, outcomes(up={"e2": 1.0}), log, LATE)
    assert worth(found) == {"e0": 0.0, "e1": 1.0}


def test_another_members_thumb_or_title_does_not_count(make_log: Log) -> None:
    log = make_log({}, {"member_id": "n", "action": "thumbs_up"}, {"title_id": "u", "action": "thumbs_up"})
    found = reward_values(reward({"up": 1.0}), LABELS, outcomes(up={"e1": 1.0, "e2": 1.0}), log, LATE)
    assert worth(found) == {"e0": 0.0}


def test_a_thumb_after_the_window_does_not_count(make_log: Log) -> None:
    spec = reward({"up": {"weight": 1.0, "within": "1d"}})
    for hours, expected in ((24, 1.0), (25, 0.0)):
        log = make_log({}, {"hour": hours, "action": "thumbs_up"})
        assert worth(reward_values(spec, LABELS, outcomes(up={"e1": 1.0}), log, LATE)) == {"e0": expected}


def test_the_last_word_counts(make_log: Log) -> None:
    log = make_log({}, {"action": "thumbs_up"}, {"action": "thumbs_down"})
    both = outcomes(up={"e1": 1.0, "e2": 0.0})
    assert worth(reward_values(reward({"up": 1.0}), LABELS, both, log, LATE)) == {"e0": 0.0}


def test_what_a_label_says_of_the_row_itself_stays_with_it(make_log: Log) -> None:
    log = make_log({}, {"action": "impression"}, {"action": "impression"}, {"action": "thumbs_up"})
    texts = outcomes(up={"e1": 0.0, "e2": 0.0, "e3": 1.0})
    found = reward_values(reward({"up": {"weight": 1.0, "otherwise": -0.5}}), LABELS, texts, log, LATE)
    assert worth(found) == {"e0": 1.0, "e1": -0.5, "e2": -0.5}


def test_what_a_play_says_of_itself_stays_until_the_title_is_spoken_of_again(make_log: Log) -> None:
    log = make_log({}, {"title_id": "u"}, {"action": "thumbs_up"})
    texts = outcomes(up={"e0": 1.0, "e1": 1.0, "e2": 0.0})
    found = reward_values(reward({"up": {"weight": 1.0, "otherwise": -1.0}}), LABELS, texts, log, LATE)
    assert worth(found) == {"e0": -1.0, "e1": 1.0}
    assert found["event_id"].to_list() == ["e0", "e1"]


def test_young_terms_count_as_far_as_known_and_say_so(make_log: Log) -> None:
    log = make_log({}, {"hour": 1, "action": "thumbs_up"}, {"hour": 2, "action": "impression"})
    spec = reward({"done": 1.0, "up": {"weight": 0.5, "within": "7d"}, "shown": {"weight": 0, "otherwise": -0.1}})
    texts = outcomes(done={}, up={"e1": 1.0}, shown={"e2": 0.0}).cast({"done": pl.Float32})
    for days, matured in ((1.0, [False, False]), (7.1, [False, True]), (8.0, [True, True])):
        found = reward_values(spec, LABELS, texts, log, START + timedelta(days=days))
        assert found["matured"].to_list() == matured, days
        assert worth(found) == {"e0": 0.5, "e2": -0.1}


def test_what_happened_or_was_recorded_later_does_not_exist(make_log: Log) -> None:
    log = make_log({}, {"hour": 1, "action": "thumbs_up"}, {"hour": 30})
    late = log.with_columns(
        recorded_at=pl.when(pl.col("event_id") == "e1").then(START + timedelta(days=2)).otherwise("recorded_at")
    )
    texts = outcomes(up={"e1": 1.0})
    assert worth(reward_values(reward({"up": 1.0}), LABELS, texts, late, START + timedelta(days=1))) == {"e0": 0.0}
    assert worth(reward_values(reward({"up": 1.0}), LABELS, texts, log, START + timedelta(days=1))) == {"e0": 1.0}


class Fixed:
    """A predictor that says how it was asked."""

    def __init__(self) -> None:
        self.requested: dict[str, list[str]] = {}

    def predict(self, requested: dict[str, Any], log: pl.DataFrame, as_of: object) -> dict[str, Any]:
        self.requested = {term: log["event_id"][rows].to_list() for term, rows in requested.items()}
        return {term: np.full(len(rows), 0.25, np.float32) for term, rows in requested.items()}


def test_delayed_terms_of_young_plays_are_predicted_and_nothing_else(make_log: Log) -> None:
    log = make_log({"hour": 0}, {"hour": 20 * 24}, {"hour": 20 * 24, "action": "impression"}, {"hour": 21 * 24})
    spec = reward({"done": 1.0, "up": {"weight": 0.5, "within": "7d"}}, delayed=["done"])
    predictor = Fixed()
    texts = outcomes(done={"e0": 1.0}, up={})
    found = reward_values(spec, LABELS, texts, log, START + timedelta(days=20, hours=12), predictor)
    assert predictor.requested == {"done": ["e1"]}
    assert worth(found) == {"e0": 1.0, "e1": 0.25, "e2": 0.0}
    assert found["matured"].to_list() == [True, False, False]


def test_impressions_are_never_predicted(make_log: Log) -> None:
    log = make_log({"action": "impression", "title_id": "u"}, {"hour": 1})
    predictor = Fixed()
    spec = reward({"up": {"weight": 1.0, "within": "7d"}}, delayed=["up"])
    found = reward_values(spec, LABELS, outcomes(up={}), log, START + timedelta(days=2), predictor)
    assert predictor.requested == {"up": ["e1"]}
    assert worth(found) == {"e0": 0.0, "e1": 0.25}


def test_what_happens_at_the_moment_itself_is_later(make_log: Log) -> None:
    log = make_log({}, {"hour": 5}).drop("recorded_at")
    found = reward_values(reward({"up": 1.0}), LABELS, outcomes(up={}), log, START + timedelta(hours=5))
    assert found["event_id"].to_list() == ["e0"]


def test_all_that_is_missing_is_told_at_once(make_log: Log) -> None:
    with pytest.raises(DataError) as caught:
        reward_values(reward({"done": 1.0}), LABELS, pl.DataFrame({"event_id": []}), make_log({}).drop("seq"), START)
    text = str(pickle.loads(pickle.dumps(caught.value)))
    assert "outcomes: column 'done' is missing" in text
    assert "log: column 'seq' is missing" in text
    with pytest.raises(DataError, match=r"terms\.other: no such label"):
        reward_values(reward({"other": 1.0}), LABELS, outcomes(), make_log({}), LATE)
    with pytest.raises(DataError, match="no time zone"):
        reward_values(reward({"up": 1.0}), LABELS, outcomes(up={}), make_log({}), LATE.replace(tzinfo=None))


def test_a_version_changes_with_everything_it_depends_on() -> None:
    spec = reward({"done": 1.0})
    version = reward_version(spec, LABELS)
    assert version.startswith("worth:1:")
    assert len(version) == len("worth:1:") + 12
    assert reward_version(spec, LABELS | {"up": DONE}) == version
    other = DONE.model_copy(update={"matures_after": timedelta(days=9)})
    assert reward_version(spec, LABELS | {"done": other}) != version
    assert reward_version(reward({"done": 1.1}), LABELS) != version
    assert reward_version(reward({"done": 1.0}, delayed=["done"]), LABELS) != version


def test_an_impression_is_worth_what_came_of_it(make_log: Log) -> None:
    request = {"request_id": "r", "row_id": "top", "action": "impression"}
    log = make_log(
        request | {"title_id": "t"},
        request | {"title_id": "u"},
        request | {"title_id": "v", "row_id": "more"},
        {"request_id": "r", "title_id": "t"},
        {"request_id": "r", "title_id": "w"},
        {"request_id": "other", "title_id": "u"},
    )
    texts = outcomes(done={"e3": 1.0, "e4": 1.0, "e5": 1.0}, shown={"e1": 0.0, "e2": 0.0})
    spec = reward({"done": 1.0, "shown": {"weight": 0.0, "otherwise": -0.1}})
    slates = slate_values(reward_values(spec, LABELS, texts, log, LATE), log)
    assert worth(slates) == {"e0": 1.0, "e1": -0.1, "e2": -0.1}


def test_a_title_shown_twice_shares_what_came_of_it(make_log: Log) -> None:
    request = {"request_id": "r", "row_id": "top", "action": "impression"}
    log = make_log(
        request, request | {"row_id": "more"}, {"request_id": "r"}, {"request_id": None}, request | {"title_id": "u"}
    )
    texts = outcomes(done={"e2": 1.0, "e3": 1.0})
    values = reward_values(reward({"done": 3.0}), LABELS, texts, log, LATE)
    slates = slate_values(values, log)
    assert worth(slates) == {"e0": 1.5, "e1": 1.5, "e4": 0.0}


def test_an_impression_is_final_when_its_plays_are(make_log: Log) -> None:
    request = {"request_id": "r", "row_id": "top", "action": "impression"}
    log = make_log(
        request, request | {"title_id": "u"}, request | {"title_id": "v", "row_id": "more"}, {"request_id": "r"}
    )
    values = reward_values(reward({"done": 1.0}), LABELS, outcomes(done={}), log, START + timedelta(days=1))
    slates = slate_values(values, log)
    assert slates["matured"].to_list() == [False, True, True]


def plain_attribution(log: list[dict[str, Any]], texts: dict[str, float], window: timedelta) -> dict[str, float]:
    """Say what the vectorised version should: one loop over the log for every outcome."""
    found: dict[str, float] = {}
    rows = {event["event_id"]: event for event in log}
    ordered = sorted(texts, key=lambda name: rows[name]["seq"])
    for name in ordered:
        outcome = rows[name]
        for action in ("play", "impression"):
            before = [
                event
                for event in log
                if event["action"] == action
                and event["member_id"] == outcome["member_id"]
                and event["title_id"] == outcome["title_id"]
                and event["seq"] < outcome["seq"]
            ]
            latest = max(before, key=lambda event: event["seq"], default=None)
            if latest is not None and outcome["event_at"] - latest["event_at"] <= window:
                found[latest["event_id"]] = texts[name]
                break
    return found


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["play", "impression", "thumbs_up", "details_view"]),
            st.sampled_from("mn"),
            st.sampled_from("tu"),
            st.integers(0, 30),
        ),
        max_size=25,
    ),
    values=st.lists(st.sampled_from([0.0, 1.0]), min_size=25, max_size=25),
)
def test_attribution_equals_the_plain_loop(events: list[tuple[str, str, str, int]], values: list[float]) -> None:
    hours = np.cumsum([gap for *_, gap in events])
    log = [
        {
            "event_id": f"e{number}",
            "member_id": member,
            "seq": number,
            "event_at": START + timedelta(hours=int(hours[number])),
            "action": action,
            "title_id": title,
        }
        for number, (action, member, title, _) in enumerate(events)
    ]
    texts = {
        event["event_id"]: value for event, value in zip(log, values, strict=False) if event["action"] == "thumbs_up"
    }
    schema = {"event_id": pl.String, "member_id": pl.String, "seq": pl.Int64}
    schema |= {"event_at": pl.Datetime("us", "UTC"), "action": pl.String, "title_id": pl.String}
    frame = pl.DataFrame(log, schema=schema)
    spec = reward({"up": {"weight": 1.0, "within": "2d", "otherwise": -1.0}})
    found = reward_values(spec, LABELS, outcomes(up=texts), frame, LATE)
    expected = plain_attribution(log, texts, timedelta(days=2))
    progress = {event: value for event, value in zip(found["event_id"], found["up"], strict=True) if value is not None}
    assert progress == expected
