"""What the shipped rewards prize, by the published examples and by properties over outcomes.

Source: "Recommending for long-term member satisfaction at Netflix", Netflix TechBlog, August 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playbill.definitions.zoo import Zoo
from playbill.labels import label_events
from playbill.rewards import reward_values

START = datetime(2024, 3, 1, 12, tzinfo=UTC)
LATE = START + timedelta(days=200)
MOMENT = pl.Datetime("us", "UTC")
DAY = 24
TITLES = pl.DataFrame(
    {
        "title_id": ["t", "u", "other"],
        "valid_from": [START - timedelta(days=900)] * 3,
        "recorded_at": [START - timedelta(days=900)] * 3,
        "genres": [["drama"], ["western"], ["drama"]],
    },
    schema_overrides={"valid_from": MOMENT, "recorded_at": MOMENT},
)
SHIPPED = ("click_like", "long_term", "play")

Log = Callable[..., pl.DataFrame]

PROPERTY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def values(zoo: Zoo, name: str, log: pl.DataFrame) -> dict[str, float]:
    """Return what each play and impression of a log is worth, when everything is known."""
    reward = zoo.rewards[name]
    labels = {term: zoo.labels[term] for term in reward.terms}
    outcomes = label_events(list(labels.values()), log, LATE, None, TITLES)
    found = reward_values(reward, labels, outcomes, log, LATE)
    assert found["matured"].all()
    return dict(zip(found["event_id"], found["value"], strict=True))


SEEN = {"event_id": "old", "hour": -30 * DAY, "title_id": "other", "progress": 1.0}
"""A play long ago, so that its genre is no discovery."""


def season(hours: list[int], *, thumb: str | None = None, title: str = "t") -> list[dict[str, Any]]:
    """Plays of one title, the last of which finishes it, perhaps a thumb, and a visit each week until the end."""
    last = len(hours) - 1
    plays = [
        {
            "event_id": f"play{n}",
            "hour": hour,
            "title_id": title,
            "progress": 1.0 if n == last else (n + 1) / (last + 2),
        }
        for n, hour in enumerate(hours)
    ]
    thumbs = [{"event_id": "thumb", "hour": hours[-1] + 1, "action": thumb, "title_id": title}] if thumb else []
    visits = [
        {
            "event_id": f"visit{week}",
            "hour": week * 5 * DAY + 30,
            "action": "search",
            "title_id": None,
            "progress": None,
        }
        for week in range(12)
    ]
    return [SEEN, *sorted([*plays, *thumbs, *visits], key=lambda event: event["hour"])]


def test_the_published_examples_come_in_their_order(zoo: Zoo, make_log: Log) -> None:
    def plays(events: list[dict[str, Any]]) -> list[float]:
        found = values(zoo, "long_term", make_log(*events))
        return [value for event, value in found.items() if event.startswith("play")]

    day, weeks = [0, 5, 10, 20], [0, 9 * DAY, 18 * DAY, 27 * DAY]
    in_a_day, in_a_day_silent = plays(season(day, thumb="thumbs_up")), plays(season(day))
    disliked = plays(season(weeks, thumb="thumbs_down"))
    (ten_minutes,) = plays(
        [event | {"progress": 0.1} if event["event_id"] == "play0" else event for event in season([0])]
    )
    new_genre = plays(season(day, title="u"))

    assert min(in_a_day_silent) > 0.7
    assert sum(in_a_day) > sum(in_a_day_silent) > sum(disliked)
    assert disliked[-1] < 0 < ten_minutes
    assert abs(ten_minutes) <= 0.25 < 0.35 * in_a_day_silent[0]
    assert new_genre[0] == pytest.approx(in_a_day_silent[0] + 0.2)
    assert new_genre[1:] == pytest.approx(in_a_day_silent[1:])


def test_a_false_start_is_worth_less_than_nothing(zoo: Zoo, make_log: Log) -> None:
    false_start = values(zoo, "long_term", make_log(SEEN, {"event_id": "p", "hour": 0, "progress": 0.02}))
    assert false_start["p"] < -0.4
    assert values(zoo, "click_like", make_log(SEEN, {"event_id": "p", "hour": 0, "progress": 0.02}))["p"] == 1.0


@pytest.mark.parametrize("name", SHIPPED)
def test_what_was_shown_in_vain_counts_against_it(zoo: Zoo, make_log: Log, name: str) -> None:
    shown = {"action": "impression", "request_id": "r", "progress": None}
    log = make_log(
        shown | {"title_id": "t"}, shown | {"title_id": "u"}, {"title_id": "t", "request_id": "r", "progress": 1.0}
    )
    found = values(zoo, name, log)
    assert found["e1"] < 0 <= found["e0"]
    assert found["e2"] > 0


SITTINGS = st.lists(st.integers(1, 5), min_size=0, max_size=5)


def of_plays(zoo: Zoo, events: list[dict[str, Any]], make_log: Log) -> list[float]:
    """Return what each play of `season` is worth to the long-term reward."""
    found = values(zoo, "long_term", make_log(*events))
    return [value for event, value in found.items() if event.startswith("play")]


def hours(gaps: list[int]) -> list[int]:
    return [sum(gaps[:number]) for number in range(len(gaps) + 1)]


@PROPERTY
@given(gaps=SITTINGS.filter(lambda gaps: sum(gaps) <= DAY), thumb=st.sampled_from([None, "thumbs_up"]))
def test_a_season_finished_in_a_day_is_worth_much_play_by_play(
    zoo: Zoo, make_log: Log, gaps: list[int], thumb: str | None
) -> None:
    found = of_plays(zoo, season(hours(gaps), thumb=thumb), make_log)
    assert len(found) == len(gaps) + 1
    assert min(found) >= 0.75
    assert found[-1] >= (1.05 if thumb else 0.75)


@PROPERTY
@given(gaps=st.lists(st.integers(8 * DAY, 20 * DAY), min_size=1, max_size=4))
def test_one_finished_over_weeks_and_disliked_is_worth_less_than_any_loved_one(
    zoo: Zoo, make_log: Log, gaps: list[int]
) -> None:
    """Beginnings without a finish within a week count for little, the play that was disliked for less than 0."""
    slow = of_plays(zoo, season(hours(gaps), thumb="thumbs_down"), make_log)
    quick = of_plays(zoo, season(hours([1] * len(gaps))), make_log)
    assert slow[-1] < 0
    assert max(slow) < min(quick)
    assert sum(slow) < 0.5 * sum(quick)


@PROPERTY
@given(progress=st.floats(0.125, 0.625, width=32), back=st.booleans())
def test_a_part_of_a_film_says_little(zoo: Zoo, make_log: Log, progress: float, back: bool) -> None:
    """Ten minutes are neither good nor bad: nearer to nothing than what was finished, or left at once."""
    play = {"event_id": "p", "hour": 0}
    visit = {"hour": 2 * DAY, "action": "search", "title_id": None, "progress": None}
    after = [visit] if back else []

    def worth(share: float) -> float:
        return values(zoo, "long_term", make_log(SEEN, play | {"progress": share}, *after))["p"]

    assert abs(worth(progress)) <= 0.25
    assert worth(0.02) < worth(progress) - 0.4 < worth(0.95) - 0.4 - 0.5


@PROPERTY
@given(gaps=SITTINGS, thumb=st.sampled_from([None, "thumbs_up", "thumbs_down"]))
def test_a_new_genre_adds_the_same_to_any_history(zoo: Zoo, make_log: Log, gaps: list[int], thumb: str | None) -> None:
    known = of_plays(zoo, season(hours(gaps), thumb=thumb), make_log)
    new = of_plays(zoo, season(hours(gaps), thumb=thumb, title="u"), make_log)
    assert new[0] == pytest.approx(known[0] + 0.2)
    assert new[1:] == pytest.approx(known[1:])


PROGRESS = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5)
GAPS = st.lists(st.integers(1, 12 * DAY), min_size=5, max_size=5)


@PROPERTY
@given(progress=PROGRESS, gaps=GAPS, which=st.integers(0, 4), more=st.floats(0, 1, width=32))
@pytest.mark.parametrize("name", SHIPPED)
def test_more_progress_never_lowers_anything(
    zoo: Zoo, make_log: Log, name: str, progress: list[float], gaps: list[int], which: int, more: float
) -> None:
    which %= len(progress)
    raised = [max(value, more) if number == which else value for number, value in enumerate(progress)]

    def worth(all_progress: list[float]) -> dict[str, float]:
        events = [
            {"hour": sum(gaps[: number + 1]), "progress": value, "title_id": "tu"[number % 2]}
            for number, value in enumerate(all_progress)
        ]
        return values(zoo, name, make_log(SEEN, *events))

    before, after = worth(progress), worth(raised)
    assert all(after[event] >= before[event] - 1e-6 for event in before)


@PROPERTY
@given(progress=PROGRESS, gaps=GAPS, after=st.integers(1, 7 * DAY - 1))
def test_a_thumb_down_always_lowers_and_a_thumb_up_always_raises(
    zoo: Zoo, make_log: Log, progress: list[float], gaps: list[int], after: int
) -> None:
    plays = [{"hour": sum(gaps[: number + 1]), "progress": value} for number, value in enumerate(progress)]
    visit = {"event_id": "visit", "hour": sum(gaps) + 30 * DAY, "action": "search", "title_id": None}

    def last(thumb: str) -> float:
        texts = {"event_id": "said", "hour": plays[-1]["hour"] + after, "action": thumb}
        return values(zoo, "long_term", make_log(*plays, texts, visit))[f"e{len(plays) - 1}"]

    neutral = last("details_view")
    assert last("thumbs_down") < neutral - 0.5
    assert last("thumbs_up") > neutral + 0.2
    for name in ("click_like", "play"):
        assert values(zoo, name, make_log(*plays)) == values(
            zoo, name, make_log(*plays, {"hour": 999, "action": "thumbs_down"})
        )


@PROPERTY
@given(data=st.data())
@pytest.mark.parametrize("name", SHIPPED)
def test_every_term_pulls_the_way_its_weight_says(zoo: Zoo, make_log: Log, name: str, data: st.DataObject) -> None:
    """Over outcomes as such: a label that turns from 0 to 1 moves the value by weight minus `otherwise`."""
    reward = zoo.rewards[name]
    labels = {term: zoo.labels[term] for term in reward.terms}
    texts = {term: data.draw(st.sampled_from([None, 0.0, 1.0])) for term in reward.terms}
    turned = data.draw(st.sampled_from(sorted(reward.terms)))

    def worth(outcome: float) -> float:
        columns = {term: pl.Series([value], dtype=pl.Float32) for term, value in (texts | {turned: outcome}).items()}
        frame = pl.DataFrame({"event_id": ["e0"]} | columns)
        return float(reward_values(reward, labels, frame, make_log({}), LATE)["value"][0])

    term = reward.terms[turned]
    assert worth(1.0) - worth(0.0) == pytest.approx(term.weight - term.otherwise, abs=1e-5)
    assert term.otherwise <= 0
