from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from playbill.errors import UnknownNameError
from playbill.ranking.candidates import Catalogue
from playbill.ranking.fallback import PlayLog, fallback_scores, popular, popular_7d
from playbill.specs import FALLBACKS
from playbill.tables import empty_frame, polars_schema

NOW = datetime(2024, 5, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
IDS = ("a", "b", "c")


def shelf() -> Catalogue:
    return Catalogue(IDS, empty_frame("titles"), empty_frame("availability"))


def log(*rows: tuple[str, datetime, str]) -> PlayLog:
    frame = pl.DataFrame(
        [{"title_id": title, "event_at": at, "action": action} for title, at, action in rows],
        schema={name: polars_schema("interactions")[name] for name in ("title_id", "event_at", "action")},
    )
    return PlayLog(shelf(), frame)


def test_only_plays_strictly_before_the_moment_count() -> None:
    plays = log(("a", NOW, "play"), ("b", NOW - timedelta(microseconds=1), "play"), ("c", NOW - DAY, "thumbs_up"))
    assert popular(plays, NOW).tolist() == [0, 1, 0]
    assert popular(plays, NOW + timedelta(microseconds=1)).tolist() == [1, 1, 0]


def test_the_week_decides_and_all_time_breaks_ties() -> None:
    old = NOW - 30 * DAY
    plays = log(("a", NOW - DAY, "play"), ("b", old, "play"), ("b", old, "play"), ("c", old, "play"))
    scores = popular_7d(plays, NOW)
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
    for asked in [NOW, NOW - 2 * DAY, NOW - 30 * DAY, NOW + 30 * DAY, *moments[:20]]:
        plain = [sum(n == name and m < asked for n, m in zip(names, moments, strict=True)) for name in IDS]
        assert plays.before(asked).tolist() == plain


def test_plays_of_titles_outside_the_catalogue_are_left_out() -> None:
    assert len(log(("stranger", NOW, "play"), ("a", NOW, "play"))) == 1


def test_no_plays_at_all_ties_every_title() -> None:
    assert set(popular_7d(log(), NOW).tolist()) == {0.0}


@pytest.mark.parametrize("name", FALLBACKS.names())
def test_every_registered_policy_scores_every_title(name: str) -> None:
    scores = fallback_scores(name, log(("a", NOW - DAY, "play")), NOW)
    assert scores.shape == (3,)
    assert scores.argmax() == 0


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(UnknownNameError, match="popular"):
        fallback_scores("populer", log(), NOW)
