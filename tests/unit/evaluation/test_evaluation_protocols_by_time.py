"""The protocols by time: which rows, what may be learnt, and windows of a replay."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.datasets import make_split
from playbill.datasets.candidate_masks import Profiles
from playbill.errors import ComparisonError, ConfigError, IntegrityError
from playbill.evaluation import EvaluationReport, Judging, Replay, compare, evaluate, plots
from playbill.evaluation.baselines.popularity import build_baseline
from playbill.evaluation.cases.boundaries import assert_before_requests
from playbill.evaluation.cases.build import build_case

TITLES = [str(i) for i in range(1, 13)]
QUICK = Judging(minimum_members=5, resamples=50)


@pytest.fixture
def data():
    found = world.tables_of(world.random_rows(members=80), titles=TITLES)
    return found, make_split("replay", found.interactions)


def measured(data, protocol="replay", **options):
    frames, split = data
    options = {"baselines": ("popular",), "judging": QUICK} | options
    return evaluate(
        world.ByTable(TITLES, [0.0] * 12), split.under(protocol), frames, world.resolved_of(), "home", **options
    )


def test_time_protocols_hold_out_the_same_rows_under_names_of_their_own(data):
    _, split = data
    other = split.under("global_time")
    assert other.frame.equals(split.frame)
    assert other.digest != split.digest
    assert other.under("replay").digest == split.digest


def test_a_replay_asks_what_successive_asks_in_time_order(data):
    successive = measured(data, "global_time_successive")
    replayed = measured(data)
    assert replayed.protocol == "replay/1d"
    assert set(replayed.requests["request_id"]) == set(successive.requests["request_id"])
    assert replayed.result.metrics["ndcg@10"] == pytest.approx(successive.result.metrics["ndcg@10"], abs=0.05)
    assert sum(window.requests for window in replayed.windows) == replayed.n == successive.n
    starts = [window.start for window in replayed.windows]
    assert starts == sorted(starts)
    total = sum(window.metrics["tiny"].value * window.requests for window in replayed.windows)
    assert total / replayed.n == pytest.approx(replayed.result.metrics["ndcg@10"].value)


def test_the_first_window_knows_what_a_frozen_baseline_knows_and_later_ones_learn():
    """Title 9 is played by nobody before the cut-off, and by everybody after it."""
    rows = [(f"m{m}", str(step + 1), 1.0 + step * 0.1 + m * 0.01) for m in range(40) for step in range(7)]
    rows += [(f"m{m}", "9", 30.0 + m * 0.5) for m in range(20)]
    frames = world.tables_of(rows, titles=TITLES)
    split = make_split("replay", frames.interactions, quantile=0.95)
    data = (frames, split)
    frozen = measured(data, "global_time_successive")
    learnt = measured(data, replay=Replay(timedelta(days=2)))
    assert learnt.protocol == "replay/2d"
    popular = {window.start: window.metrics["popular"].value for window in learnt.windows}
    first, *later = popular.values()
    assert first < 1.0
    assert later[-1] == 1.0
    assert learnt.baselines[0].metrics["ndcg@10"].value > frozen.baselines[0].metrics["ndcg@10"].value


def test_the_model_is_told_every_event_once_and_only_after_its_window(data):
    frames, split = data
    progress, requested = [], []

    class Watching(world.ByTable):
        def score(self, requests):
            requested.append((len(progress), min(request.at for request in requests)))
            return super().score(requests)

    model = Watching(TITLES, [0.0] * 12)
    report = evaluate(
        model,
        split,
        frames,
        world.resolved_of(),
        "home",
        baselines=(),
        judging=QUICK,
        replay=Replay(update=progress.append),
    )
    assert report.protocol == "replay/1d/updated"
    assert len(progress) == len(report.windows)
    events = pl.concat(progress)
    assert events["event_id"].is_unique().all()
    train = split.events(frames.interactions, "train")
    assert events.join(train, on="event_id", how="semi").is_empty()
    for calls, moment in requested:
        assert all(frame["event_at"].max() < moment for frame in progress[:calls])
    assert "fold" not in events.columns


def test_replays_of_other_windows_and_protocols_are_not_compared(data):
    day, week = measured(data), measured(data, replay=Replay(timedelta(days=7)))
    with pytest.raises(ComparisonError, match=r"protocols differ \(replay/1d and replay/7d\)"):
        compare(day, week)
    with pytest.raises(ComparisonError, match=r"protocols differ \(replay/1d and global_time_successive\)"):
        compare(day, measured(data, "global_time_successive"))


def test_windows_come_back_from_json_and_are_drawn(data, tmp_path):
    report = measured(data)
    assert EvaluationReport.from_json(report.to_json()).windows == report.windows
    assert "home_replay.png" in {file.name for file in plots(report, tmp_path)}


@pytest.mark.parametrize(
    ("window", "message"), [(timedelta(0), "longer than nothing"), (timedelta(microseconds=1), "choose longer ones")]
)
def test_windows_that_make_no_sense_are_refused(data, monkeypatch, window, message):
    monkeypatch.setattr(sys.modules["playbill.evaluation.evaluate"], "MOST_WINDOWS", 20)
    with pytest.raises(ConfigError, match=message):
        measured(data, replay=Replay(window))


@pytest.fixture
def case(data):
    frames, split = data
    return build_case(frames, split.under("global_time_successive"), world.resolved_of(), "home")


def test_an_honest_case_passes_its_boundaries(case):
    assert_before_requests(case)


def test_a_history_with_a_later_event_is_named(case):
    early = case.frame.with_columns(at=pl.col("at") - pl.duration(days=30))
    with pytest.raises(IntegrityError, match=r"(?s)measured with what came later.*history: \d+ of \d+ requests"):
        assert_before_requests(replace(case, frame=early))


def test_a_train_fold_that_reaches_into_the_requests_is_named(case):
    trained = case.log.frame.with_columns(fold=pl.lit("train"))
    log = replace(case.log, frame=trained)
    with pytest.raises(IntegrityError, match=r"(?s)train fold: its last event.*popularity: fitted on plays up to"):
        assert_before_requests(replace(case, log=log))


def test_a_replay_that_learnt_too_much_is_named(case):
    last = case.frame["at"].max() + timedelta(days=1)
    with pytest.raises(IntegrityError, match="popularity: fitted on plays up to"):
        assert_before_requests(replace(case, log=case.log.until(last)))


def test_a_target_before_its_launch_is_named(case):
    later = world.tables_of([("u", "1", 0.0)], titles=TITLES, launches=[(title, "*", 900.0, None) for title in TITLES])
    rule = replace(case.rule, catalogue=type(case.rule.catalogue)(TITLES, later.titles, later.availability))
    with pytest.raises(IntegrityError, match="a title that launches after the request"):
        assert_before_requests(replace(case, rule=rule))


def test_a_profile_is_read_as_it_was_and_one_from_later_is_named(case):
    member = case.frame["member_id"][0]
    at = case.frame["at"][0]
    rows = pl.DataFrame(
        {
            "member_id": [member, member],
            "kids_profile": [False, True],
            "known_from": [world.day(-10_000), at + timedelta(seconds=1)],
        },
        schema_overrides={"known_from": pl.Datetime("us", "UTC")},
    )
    profiles = Profiles(rows.sort("known_from"))
    assert not profiles.kids(case.frame[:1])[0]
    assert profiles.kids(case.frame[:1].with_columns(at=pl.col("at") + pl.duration(days=1)))[0]

    class Newest(Profiles):
        def _used(self, requests, moment):
            return requests.join(self.rows.group_by("member_id").last(), on="member_id", how="left")

    rule = replace(case.rule, profiles=Newest(rows))
    with pytest.raises(IntegrityError, match="profiles: "):
        assert_before_requests(replace(case, rule=rule))


def test_baselines_learn_up_to_a_moment(case):
    moment = case.frame["at"].max()
    newest = int(case.frame["at"].arg_max())
    last = case.part(newest, newest + 1)
    frozen, learnt = (build_baseline("popular", last, until) for until in (None, moment))
    assert not np.array_equal(frozen.shares, learnt.shares)
    with pytest.raises(IntegrityError, match="would be measured with later plays: popularity: fitted on plays up to"):
        build_baseline("popular", case, moment)
