"""Which events an update takes: each once, whenever it arrives, and never the newest ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.continual.incremental.window import (
    STRETCH,
    UpdateWindow,
    draw_replay,
    find_window,
    same_window,
    stretches,
)
from playbill.datasets import Split, make_split
from playbill.definitions.specs import UpdateSpec

START = datetime(2024, 1, 1, tzinfo=UTC)
SPEC = UpdateSpec(holdout=0.2)


class Log:
    """What is read of `Tables`."""

    def __init__(self) -> None:
        self.frame = pl.DataFrame(
            schema={
                "event_id": pl.String,
                "member_id": pl.String,
                "event_at": pl.Datetime("us", "UTC"),
                "action": pl.String,
            }
        )

    def add(self, *hours: int, action: str = "play") -> None:
        first = self.frame.height
        rows = [
            {"event_id": f"e{first + place}", "member_id": f"m{hour % 3}", "action": action}
            | {"event_at": START + timedelta(hours=hour)}
            for place, hour in enumerate(hours)
        ]
        self.frame = pl.concat([self.frame, pl.DataFrame(rows, schema=self.frame.schema)])

    def interactions(self, columns: Any = None, **_: Any) -> pl.DataFrame:
        return self.frame.sort("member_id", "event_at").select(columns or pl.all())

    def split(self) -> Split:
        events = self.frame.with_row_index("seq")
        return make_split("global_time", events)


def learnt(split: Split) -> set[str]:
    return set(split.frame.filter(pl.col("fold").cast(pl.String) == "train")["event_id"])


def found(log: Log, split: Split, watermark: datetime = START) -> UpdateWindow:
    window = find_window(log, split, watermark, SPEC)
    assert isinstance(window, UpdateWindow), window
    return window


def test_an_update_takes_what_arrived_and_what_was_held_out_but_for_the_newest() -> None:
    log = Log()
    log.add(*range(100))
    first = log.split()
    log.add(*range(100, 110), 3, 4)
    window = found(log, first, START + timedelta(hours=80))
    taken, held = set(window.taken["event_id"]), set(log.frame["event_id"]) - learnt(window.split)
    assert taken == learnt(window.split) - learnt(first)
    assert not taken & learnt(first)
    moments = dict(log.frame.select("event_id", "event_at").iter_rows())
    assert min(moments[event] for event in held) == window.cutoff > max(moments[event] for event in taken)
    assert len(held) == 6  # a fifth of the plays that are later than what was learnt
    assert window.arrived == 12
    assert window.late == 2
    assert {"e110", "e111"} <= taken
    assert window.learnt_after == window.learnt_before + len(taken) == len(learnt(window.split))


def test_nothing_has_arrived() -> None:
    log = Log()
    log.add(*range(100))
    assert find_window(log, log.split(), START, SPEC) == "no event has arrived since the champion was trained"


def test_events_wait_until_an_update_can_be_measured() -> None:
    log = Log()
    log.add(*range(100))
    everything = Split.at(
        log.frame.select("event_id", fold=pl.lit("train", pl.Enum(["train", "validation", "test"]))), START
    )
    log.add(5, 6, 7)
    waits = find_window(log, everything, START, SPEC)
    assert isinstance(waits, str)
    assert "none is a play after 2024-01-05 03:00 UTC" in waits
    log.add(200, action="thumbs_up")
    assert isinstance(find_window(log, everything, START, SPEC), str)
    log.add(201)
    window = found(log, everything)
    assert set(window.taken["event_id"]) == {"e100", "e101", "e102", "e103"}


def test_a_window_that_was_kept_is_found_again_whatever_arrives_meanwhile() -> None:
    log = Log()
    log.add(*range(100))
    first = log.split()
    log.add(*range(100, 110), 2)
    window = found(log, first, START + timedelta(hours=50))
    log.add(*range(110, 130), 1)
    again = same_window(log, first, window.split, window.late)
    assert again.digest == window.digest
    assert again.taken.sort("event_id").equals(window.taken.sort("event_id"))
    assert again.known.equals(window.known)
    assert set(again.known["event_id"]) == learnt(first)
    assert (again.arrived, again.late, again.learnt_before) == (window.arrived, window.late, window.learnt_before)


def test_what_is_learnt_again_is_old_and_of_the_share_that_was_asked_for() -> None:
    log = Log()
    log.add(*range(600))
    first = log.split()
    log.add(*range(600, 640))
    window = found(log, first)
    drawn = draw_replay(window, 0.2, seed=1)
    assert set(drawn["event_id"]) <= learnt(first)
    assert drawn["event_id"].is_unique().all()
    assert abs(drawn.height - window.taken.height / 4) <= 1
    assert drawn.equals(draw_replay(window, 0.2, seed=1))
    assert draw_replay(window, 0.0, seed=1).is_empty()


def test_events_that_were_taken_and_are_gone_from_the_log_stay_learnt() -> None:
    log = Log()
    log.add(*range(100))
    first = log.split()
    gone = sorted(learnt(first))[0]
    log.add(*range(100, 110))
    log.frame = log.frame.filter(pl.col("event_id") != gone)
    window = found(log, first)
    assert gone in learnt(window.split)
    assert window.learnt_before == len(learnt(first))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(min_value=0, max_value=400), min_size=1, max_size=12), min_size=1, max_size=8))
def test_every_event_is_learnt_once_in_whatever_order_events_arrive(arrivals: list[list[int]]) -> None:
    log = Log()
    log.add(*range(60))
    split = log.split()
    times: dict[str, int] = dict.fromkeys(learnt(split), 1)
    for hours in arrivals:
        log.add(*hours)
        window = find_window(log, split, START, SPEC)
        if isinstance(window, str):
            continue
        for event in window.taken["event_id"]:
            times[event] = times.get(event, 0) + 1
        split = window.split
    assert set(times.values()) == {1}
    assert times.keys() == learnt(split)
    assert learnt(split) | set(split.frame["event_id"]) <= set(log.frame["event_id"])


@pytest.mark.parametrize(("events", "wanted"), [(1, 1), (400, 7), (400, 33), (2000, 400), (2000, 1999), (300, 500)])
def test_stretches_are_those_of_one_end_after_the_other(events: int, wanted: int) -> None:
    generator = np.random.default_rng(events + wanted)
    member = np.sort(generator.integers(0, 1 + events // 40, events))
    ends = generator.permutation(events)
    chosen = np.zeros(events, np.bool_)
    for end in ends.tolist():
        first = max(0, end + 1 - min(STRETCH, wanted - int(chosen.sum())))
        chosen[first : end + 1] |= member[first : end + 1] == member[end]
        if chosen.sum() >= wanted:
            break
    assert np.array_equal(stretches(pl.Series(member), ends, wanted), chosen)
