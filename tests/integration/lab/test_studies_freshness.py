"""Coming titles on the eve of their launch, a title that surges, and arms on the same requests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.datasets import Split
from playbill.datasets.splits import FOLDS
from playbill.definitions.zoo import Zoo
from playbill.evaluation.cases.case import CandidateRule, launches
from playbill.evaluation.cases.event_log import microseconds
from playbill_lab.bridge.live_features import NoFeatures
from playbill_lab.studies.freshness.launches import CHANCE, GENRES, beside, eve_of_launches
from playbill_lab.studies.freshness.replay import GroupComparison, ReplayedDays, compared
from playbill_lab.studies.freshness.surge import Surge, SurgeCourse, SurgingTables


@pytest.fixture(scope="module")
def days(zoo: Zoo, small: Any) -> ReplayedDays:
    """The second half of the small service's log."""
    frames = small.log.evaluation()
    log = frames.interactions
    start = log["event_at"].min().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=4)
    fold = pl.when(pl.col("event_at") < start).then(pl.lit("train")).otherwise(pl.lit("test")).cast(pl.Enum(FOLDS))
    split = Split.at(log.select("event_id", fold=fold), start)
    return ReplayedDays.of(frames, NoFeatures(), zoo.model("everycanvas"), "home", split, days=10, most=200, seed=1)


def test_a_coming_title_is_ranked_before_its_launch_from_what_was_known_then(days: ReplayedDays, zoo: Zoo) -> None:
    canvas, case = zoo.model("everycanvas").canvas("coming_soon"), days.case
    rule = CandidateRule.of(canvas, days.frames, case.catalogue, case.log)
    eve = eve_of_launches(days, "coming_soon", rule, days.frames.end)
    at = microseconds(eve.case.frame["at"])
    launch = launches(rule.catalogue, eve.case.frame["country"].to_list(), eve.first_target)
    assert len(eve.case) > 0
    assert (launch - at == 1).all()
    assert eve.case.reachable().all()
    played = eve.case.log.frame[eve.case.targets_at]
    assert (played["title_id"] == [case.catalogue.title_ids[column] for column in eve.case.columns]).all()
    within = microseconds(played["event_at"]) - launch
    assert ((within >= 0) & (within < 7 * 86_400_000_000)).all()
    for chunk in eve.case.chunks():
        for request in chunk.requests:
            assert (request.history["event_at"] < request.at).all()
    found = beside(eve, days.start)
    assert found.select(pl.col(CHANCE, GENRES).is_between(0.0, 1.0).all()).row(0) == (True, True)


def test_arms_are_compared_on_the_same_requests_by_group(days: ReplayedDays) -> None:
    size = len(days.case)
    answers = pl.DataFrame({"place": np.arange(size), "slow": np.zeros(size), "fast": np.ones(size) * 0.25})
    every, none = np.ones(size, np.bool_), np.zeros(size, np.bool_)
    (only,) = compared(days, answers, ["slow", "fast"], {"all": every, "new": none}, 50)
    assert isinstance(only, GroupComparison)
    assert (only.group, only.requests) == ("all", size)
    assert only.difference["fast"] == (0.25, 0.25, 0.25)
    assert only.step["fast"] == (-0.25, -0.25, -0.25)  # the one before it minus this one


def test_a_surge_is_in_the_log_and_nowhere_else(small: Any, days: ReplayedDays) -> None:
    log = small.log.interactions()
    title, members = str(log["title_id"].drop_nulls()[0]), log["member_id"].unique().sort().to_list()
    surge = Surge(title, days.start, 7, 3, members, "US", "home", 5)

    class Tables:
        def interactions(self) -> pl.DataFrame:
            return log

        def snapshot_id(self) -> str:
            return "log"

        def titles(self) -> pl.DataFrame:
            return small.log.titles()

    tables = SurgingTables(Tables(), surge)
    more = tables.interactions()
    added = more.join(log, on="event_id", how="anti")
    assert added.height == 21
    assert added["title_id"].unique().to_list() == [title]
    assert (added["event_at"] >= days.start).all()
    assert more.height == log.height + 21
    assert more.equals(more.sort("member_id", "seq"))
    assert (more.group_by("member_id").agg(pl.col("event_at").is_sorted())["event_at"]).all()
    assert tables.interactions(until=days.start, columns=["event_id"]).height == (log["event_at"] < days.start).sum()
    assert tables.titles().equals(small.log.titles())
    assert tables.snapshot_id() != "log"


def test_a_title_is_shown_from_the_first_version_that_half_of_the_lists_have_it_in() -> None:
    course = SurgeCourse("1d", (0.0, 24.0, 48.0), (0.0, 0.5, 0.4), (90.0, 10.0, 11.0))
    assert course.shown_after == 24.0
    assert SurgeCourse("never", (0.0,), (0.0,), (90.0,)).shown_after is None
