"""What had been seen of a play at a moment: equal to the plain count, and blind to everything later."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.rewards.delayed import PAST, HistoricalRates
from playbill.rewards.partial_observations import FEATURES, CumulativeCounts, PartialObservations

START = datetime(2024, 3, 1, tzinfo=UTC)
MINUTE_US = 60_000_000
DAY_US = 1440 * MINUTE_US
MOMENT = pl.Datetime("us", "UTC")
ACTIONS = ["play", "play", "play", "thumbs_up", "thumbs_down", "my_list_add", "impression", "abandon", "search"]


def random_log(seed: int, rows: int = 250, members: int = 4, titles: int = 5) -> pl.DataFrame:
    """A log with ties, late records, missing titles, sessions and progress."""
    rng = np.random.default_rng(seed)
    action = rng.choice(ACTIONS, rows)
    minute = np.sort(rng.integers(0, 60 * 24 * 40, rows))
    late = np.where(rng.random(rows) < 0.3, rng.integers(0, 3000, rows), 0)
    title = [
        None if name == "search" else f"t{number}"
        for name, number in zip(action, rng.integers(0, titles, rows), strict=True)
    ]
    base = pl.lit(START).cast(MOMENT)
    frame = pl.DataFrame(
        {
            "event_id": [f"e{number}" for number in range(rows)],
            "member_id": [f"m{number}" for number in rng.integers(0, members, rows)],
            "seq": np.arange(rows),
            "minute": minute,
            "late": late,
            "action": action,
            "title_id": title,
            "session_id": [None if rng.random() < 0.2 else f"s{number // 6}" for number in range(rows)],
            "canvas": rng.choice(["home", "search"], rows),
            "country": rng.choice(["US", "BR"], rows),
            "duration_s": rng.integers(0, 7200, rows).astype(np.float32),
            "progress": np.where(rng.random(rows) < 0.2, np.nan, rng.random(rows)).astype(np.float32),
        }
    )
    moment = base + pl.duration(minutes="minute")
    return frame.with_columns(
        event_at=moment, recorded_at=moment + pl.duration(minutes="late"), progress=pl.col("progress").fill_nan(None)
    ).drop("minute", "late")


def plain(log: list[dict[str, Any]], row: dict[str, Any], at: int) -> dict[str, float]:
    """Count by looking at every row of the log."""
    known = [other for other in log if other["known"] <= at]
    before = [other for other in known if other["known"] <= row["at"]]
    since = [other for other in known if other["known"] > row["at"]]

    def of_title(rows: list[dict[str, Any]], action: str | None = None) -> list[dict[str, Any]]:
        own = [
            other for other in rows if (other["member_id"], other["title_id"]) == (row["member_id"], row["title_id"])
        ]
        counted = [
            other for other in own if other["action"] in ("play", "thumbs_up", "thumbs_down", "my_list_add", "abandon")
        ]
        return [other for other in counted if action in (None, other["action"])]

    def of_member(rows: list[dict[str, Any]], action: str) -> list[dict[str, Any]]:
        return [other for other in rows if other["member_id"] == row["member_id"] and other["action"] == action]

    def best(rows: list[dict[str, Any]]) -> float:
        found = of_title(rows)
        return max((other["progress"] or 0.0 for other in of_title(rows, "play")), default=0.0) if found else math.nan

    member = [other for other in known if other["member_id"] == row["member_id"] and other["active"]]
    member_before = [other for other in member if other["known"] <= row["at"]]
    member_since = [other for other in member if other["known"] > row["at"]]
    opened = [other for other in member_before if other["opens"] and other["known"] > row["at"] - 28 * DAY_US]
    own_progress = [o["progress"] for o in of_member(before, "play") if o["progress"] is not None]
    thumbs = [o["action"] for o in known if o["title_id"] == row["title_id"] and o["action"].startswith("thumbs")]
    title = [other for other in known if other["title_id"] == row["title_id"] and other["action"] == "play"]
    with_progress = [other["progress"] for other in title if other["progress"] is not None]
    return {
        "best_progress": best(known),
        "best_progress_before": best(before),
        "title_plays_before": len(of_title(before, "play")),
        "title_plays_since": len(of_title(since, "play")),
        "title_finished_since": sum((other["progress"] or 0.0) >= 0.9 for other in of_title(since, "play")),
        "title_hours_since": sum(other["duration_s"] / 3600 for other in of_title(since)),
        "thumbs_up_since": len(of_title(since, "thumbs_up")),
        "thumbs_down_since": len(of_title(since, "thumbs_down")),
        "list_adds_since": len(of_title(since, "my_list_add")),
        "abandons_since": len(of_title(since, "abandon")),
        "hour": row["at"] % DAY_US / (60 * MINUTE_US),
        "duration_h": row["duration_s"] / 3600 if row["known"] <= at else math.nan,
        "days_since_title": (at - max((o["known"] for o in of_title(known)), default=math.nan)) / DAY_US,
        "days_since_active": (at - max((o["known"] for o in member), default=math.nan)) / DAY_US,
        "sessions_since": sum(other["opens"] for other in member_since),
        "hours_since": sum(other["duration_s"] / 3600 for other in member_since),
        "sessions_28d_before": len(opened),
        "member_mean_progress": sum(own_progress) / len(own_progress) if own_progress else math.nan,
        "tenure_days": min((row["at"] - min(o["known"] for o in member_before)) / DAY_US, 28.0)
        if member_before
        else math.nan,
        "title_finished": sum(share >= 0.9 for share in with_progress) / len(with_progress)
        if with_progress
        else math.nan,
        "title_thumbs_up": thumbs.count("thumbs_up") / len(thumbs) if thumbs else math.nan,
        "plays_since": len(of_member(since, "play")),
        "plays_28d_before": len([o for o in of_member(before, "play") if o["known"] > row["at"] - 28 * DAY_US]),
        "title_plays": min(len(title), 30),
        "title_mean_progress": sum(with_progress) / len(with_progress) if with_progress else math.nan,
        "progress": row["progress"] if row["known"] <= at and row["progress"] is not None else math.nan,
        "age_h": math.log1p((at - row["at"]) / (60 * MINUTE_US)),
    }


def mark_openings(events: list[dict[str, Any]]) -> None:
    """Mark the row of each session that was known first, and the rows in which a member does something."""
    counted = ("play", "thumbs_up", "thumbs_down", "my_list_add", "abandon")
    seen = set()
    for event in sorted(events, key=lambda event: event["known"]):
        session = (event["member_id"], event["session_id"] or event["at"] // DAY_US)
        event["opens"] = session not in seen
        seen.add(session)
        event["active"] = event["opens"] or event["action"] in counted


def requested(log: pl.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose plays and moments, one of them the moment of another event, to the microsecond."""
    rng = np.random.default_rng(seed)
    plays = log.with_row_index().filter(pl.col("action") == "play")["index"].to_numpy().astype(np.int64)
    rows = rng.choice(plays, 60)
    began = log["event_at"].to_physical().to_numpy()
    at = began[rows] + rng.integers(1, 10 * 1440, 60) * MINUTE_US
    return rows, at


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_partial_observations_equal_the_plain_count(seed: int) -> None:
    log = random_log(seed).sample(fraction=1.0, shuffle=True, seed=seed)
    rows, at = requested(log, seed)
    found = PartialObservations(log).features(rows, at, ["home"])
    events = log.to_dicts()
    micros = log["event_at"].to_physical().to_list(), log["recorded_at"].to_physical().to_list()
    for event, happened, recorded in zip(events, *micros, strict=True):
        event |= {"at": happened, "known": max(happened + 1, recorded)}
    mark_openings(events)
    for number, (row, moment) in enumerate(zip(rows, at, strict=True)):
        expected = plain(events, events[row], int(moment))
        progress = dict(zip(FEATURES, found[number].tolist(), strict=True))
        assert {name: progress[name] for name in expected} == pytest.approx(expected, nan_ok=True, rel=1e-4, abs=1e-5)
        assert (progress["canvas"] == 0.0) == (events[row]["canvas"] == "home")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_later_changes_what_had_been_seen(seed: int) -> None:
    """Rows recorded after the moment are shuffled among each other, column by column; then they are dropped."""
    log = random_log(seed)
    at = log["event_at"].to_physical().to_numpy()[150] + 7
    rows = log.with_row_index().filter((pl.col("action") == "play") & (pl.col("event_at").to_physical() < at))
    numbers = rows["index"].to_numpy().astype(np.int64)
    moments = np.full(len(numbers), at)
    expected = PartialObservations(log).features(numbers, moments, ["home", "search"])
    late = (log["event_at"].to_physical() >= at) | (log["recorded_at"].to_physical() > at)
    requested_titles = pl.Series(np.isin(np.arange(log.height), numbers))
    free = late & ~requested_titles
    assert free.sum() > 60
    shuffled = log.with_columns(
        pl.when(free)
        .then(pl.col(name).filter(free).shuffle(seed).gather(free.cum_sum().cast(pl.Int64) - 1))
        .otherwise(name)
        .alias(name)
        for name in ("member_id", "action", "title_id", "session_id", "progress", "duration_s")
    )
    assert not shuffled.equals(log)
    np.testing.assert_array_equal(
        PartialObservations(shuffled).features(numbers, moments, ["home", "search"]), expected
    )
    kept = log.filter(~free)
    places = pl.Series(numbers.tolist()).replace_strict(
        log.with_row_index().filter(~free)["index"].to_list(), list(range(kept.height))
    )
    np.testing.assert_array_equal(
        PartialObservations(kept).features(places.to_numpy(), moments, ["home", "search"]), expected
    )


def test_titles_are_as_old_as_their_launch_where_the_play_was() -> None:
    log = random_log(1)
    launches = pl.DataFrame(
        {
            "title_id": ["t0", "t0", "t1"],
            "country": ["US", "*", "BR"],
            "available_from": [START - timedelta(days=9), START - timedelta(days=3), START - timedelta(days=1)],
        },
        schema_overrides={"available_from": MOMENT},
    )
    rows, at = requested(log, 1)
    age = PartialObservations(log, launches).features(rows, at, [])[:, FEATURES.index("title_age_days")]
    began = (log["event_at"] - START).dt.total_microseconds().to_numpy() / DAY_US
    title, country = log["title_id"].to_list(), log["country"].to_list()
    extra = {("t0", "US"): 9.0, ("t0", "BR"): 3.0, ("t1", "BR"): 1.0}
    expected = [began[row] + extra.get((title[row], country[row]), math.nan) for row in rows]
    np.testing.assert_allclose(age, expected, rtol=1e-4)
    assert len({(title[row], country[row]) for row in rows} & extra.keys()) == 3


def test_an_outcome_counts_once_it_is_final() -> None:
    past = HistoricalRates(
        pl.Series(["t", "t", "u"]), pl.Series(["m", "n", "m"]), np.array([10, 20, 30]), np.array([1, 0, 1], np.float32)
    )
    found = past.features(
        pl.Series(["t", "t", "t", "new"]), pl.Series(["m", "m", "n", "new"]), np.array([9, 10, 25, 99])
    )
    progress = {name: found[:, number].tolist() for number, name in enumerate(PAST)}
    assert progress["title_final_plays"] == [0, 1, 2, 0]
    assert progress["member_final_plays"] == [0, 1, 1, 0]
    assert math.isnan(progress["title_rate"][0])
    assert progress["title_rate"][1:] == pytest.approx([1.0, (1 + 5) / 12, 2 / 3])


def test_an_empty_ledger_answers() -> None:
    empty = np.zeros(0, np.int64)
    ledger = CumulativeCounts(empty, empty, {"plays": np.zeros(0)}, {"progress": np.zeros(0)})
    key = np.array([0, 5])
    start, now = ledger.start(key), ledger.position(key, np.array([1, 1]))
    assert ledger.total("plays", start, now).tolist() == [0, 0]
    assert np.isnan(ledger.best("progress", start, now)).all()
    assert np.isnan(ledger.last_known(start, now)).all()
    assert np.isnan(ledger.first_known(start, now)).all()
