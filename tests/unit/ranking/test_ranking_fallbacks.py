from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.definitions.specs import FALLBACKS
from playbill.errors import UnknownNameError
from playbill.ranking.candidates import Catalogue, MemberHistory, Viewer
from playbill.ranking.fallbacks import PlayLog, fallback_scores, popular, popular_7d
from playbill.tables import empty_frame, polars_schema

NOW = datetime(2024, 5, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
IDS = ("a", "b", "c")


def catalogue(*spans: tuple[str, str, datetime, datetime]) -> Catalogue:
    rows = [
        {"title_id": title, "country": country, "available_from": start, "recorded_at": known}
        for title, country, start, known in spans
    ]
    return Catalogue(IDS, empty_frame("titles"), pl.DataFrame(rows, schema=polars_schema("availability")))


def log(*rows: tuple[str, datetime, str] | tuple[str, datetime, str, str], titles: Catalogue | None = None) -> PlayLog:
    names = ("title_id", "event_at", "action", "country")
    frame = pl.DataFrame(
        [dict(zip(names, (*row, "DE")[:4], strict=True)) for row in rows],
        schema={name: polars_schema("interactions")[name] for name in names},
    )
    return PlayLog(titles or catalogue(), frame)


def requested(at: datetime = NOW, country: str = "DE", past: MemberHistory | None = None) -> Viewer:
    return Viewer(at, country, past=None if past is None else lambda: past)


def order(scores: np.ndarray) -> str:
    return "".join(IDS[place] for place in np.argsort(-scores, kind="stable"))


def test_only_plays_strictly_before_the_moment_count() -> None:
    plays = log(("a", NOW, "play"), ("b", NOW - timedelta(microseconds=1), "play"), ("c", NOW - DAY, "thumbs_up"))
    assert popular(plays, requested()).tolist() == [0, 1, 0]
    assert popular(plays, requested(NOW + timedelta(microseconds=1))).tolist() == [1, 1, 0]


def test_the_week_decides_and_all_time_breaks_ties() -> None:
    old = NOW - 30 * DAY
    plays = log(("a", NOW - DAY, "play"), ("b", old, "play"), ("b", old, "play"), ("c", old, "play"))
    scores = popular_7d(plays, requested())
    assert np.argsort(-scores).tolist() == [0, 1, 2]
    assert 1 <= scores[0] < 2
    assert scores[1] < 1


def test_the_week_includes_its_first_moment() -> None:
    plays = log(("a", NOW - 7 * DAY, "play"), ("b", NOW - 7 * DAY - timedelta(microseconds=1), "play"))
    assert plays.between(NOW - 7 * DAY, NOW).tolist() == [1, 0, 0]


def test_counts_equal_a_plain_count_at_any_moment() -> None:
    random = np.random.default_rng(5)
    moments = [NOW + timedelta(seconds=int(second)) for second in random.integers(-400_000, 400_000, 300)]
    names = random.choice(IDS, 300).tolist()
    plays = log(*zip(names, moments, ["play"] * 300, strict=True))
    for requested in [NOW, NOW - 2 * DAY, NOW - 30 * DAY, NOW + 30 * DAY, *moments[:20]]:
        plain = [sum(n == name and m < requested for n, m in zip(names, moments, strict=True)) for name in IDS]
        assert plays.before(requested).tolist() == plain


def test_plays_of_titles_outside_the_catalogue_are_left_out() -> None:
    assert len(log(("stranger", NOW, "play"), ("a", NOW, "play"))) == 1


def test_no_plays_at_all_ties_every_title() -> None:
    assert set(popular_7d(log(), requested()).tolist()) == {0.0}


@pytest.mark.parametrize("name", FALLBACKS.names())
def test_every_registered_policy_prefers_what_was_played_launched_and_listed(name: str) -> None:
    spans = [("b", "DE", NOW - 9 * DAY, NOW - 9 * DAY), ("a", "DE", NOW - DAY, NOW - 9 * DAY)]
    titles = catalogue(*([("a", "DE", NOW + DAY, NOW - DAY)] if name == "next_launch" else spans))
    past = MemberHistory(played=np.array([0]), my_list=np.array([0]))
    scores = fallback_scores(name, log(("a", NOW - DAY, "play"), titles=titles), requested(past=past))
    assert scores.shape == (3,)
    assert scores.argmax() == 0
    assert np.isfinite(scores).all()


def test_the_top_of_a_country_is_what_is_played_there() -> None:
    here, there = ("a", NOW - DAY, "play", "DE"), ("b", NOW - DAY, "play", "FR")
    plays = log(here, here, here, there, there, ("c", NOW - DAY, "play", "FR"))
    assert order(fallback_scores("top_10", plays, requested(country="DE"))) == "abc"
    assert order(fallback_scores("top_10", plays, requested(country="FR"))) == "bca"
    assert order(fallback_scores("top_10", plays, requested(country="ZZ"))) == "abc"


def test_what_grows_trends_before_what_is_large() -> None:
    week = [("a", NOW - day * DAY, "play") for day in (1, 2, 3, 4, 5, 6) for _ in range(10)]
    plays = log(*week, *[("b", NOW - DAY, "play")] * 12, ("c", NOW - 5 * DAY, "play"))
    assert order(fallback_scores("trending", plays, requested())) == "bac"
    assert fallback_scores("popular_7d", plays, requested()).argmax() == 0


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 10)), max_size=30), times=st.integers(2, 5))
def test_what_trends_does_not_depend_on_how_large_a_country_is(counts: list[tuple[str, int]], times: int) -> None:
    rows = [(name, NOW - timedelta(hours=18 * age + 1), "play") for name, age in counts]
    once, often = (fallback_scores("trending", log(*rows * count), requested()) for count in (1, times))
    np.testing.assert_allclose(once, often, atol=2e-6)


def test_a_launch_that_is_announced_later_is_not_known_yet() -> None:
    titles = catalogue(("a", "DE", NOW + 2 * DAY, NOW + DAY), ("b", "DE", NOW + 5 * DAY, NOW - DAY))
    plays = log(titles=titles)
    assert fallback_scores("next_launch", plays, requested()).argmax() == 1
    assert fallback_scores("next_launch", plays, requested(NOW + DAY)).argmax() == 0


def test_few_thumbs_acclaim_nothing() -> None:
    day = NOW - DAY
    plays = log(
        ("a", day, "thumbs_up"),
        *[("b", day, "thumbs_up")] * 30,
        *[("c", day, "thumbs_up")] * 30,
        *[("c", day, "thumbs_down")] * 15,
    )
    assert plays.acclaimed(NOW).tolist() == [False, True, False]
    assert not plays.acclaimed(day).any()


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(UnknownNameError, match="popular"):
        fallback_scores("populer", log(), requested())


def test_plays_are_read_once_and_only_when_they_are_asked_for() -> None:
    row = {"title_id": "a", "event_at": NOW - DAY, "action": "play"}
    kinds = {name: polars_schema("interactions")[name] for name in row}
    read: list[int] = []
    plays = PlayLog(catalogue(), lambda: read.append(1) or pl.DataFrame([row], schema=kinds))
    assert not read
    assert plays.before(NOW).sum() == plays.of_week(NOW).sum() == len(plays) == 1
    assert len(read) == 1
