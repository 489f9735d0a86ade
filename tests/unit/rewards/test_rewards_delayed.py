"""Delayed feedback against a known law: near the truth, better with age, blind to the future, the same twice."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from fixtures import delayed_world as law
from playbill.errors import DataError, IntegrityError, StateError
from playbill.rewards import DelayedFeedback, DelayedReport, DelayedSettings, delayed_report, reward_values
from playbill.rewards.partial_observations import PartialObservations

SETTINGS = DelayedSettings(trees=60)
DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def world() -> Any:
    return law.DelayedWorld.make()


@pytest.fixture(scope="module")
def now() -> datetime:
    """A week after the last play but one third of them."""
    moment: datetime = law.START + timedelta(days=30)
    return moment


@pytest.fixture(scope="module")
def predictor(world: Any, now: datetime) -> DelayedFeedback:
    return DelayedFeedback.fit(law.REWARD, law.LABELS, world.outcomes, world.log, now, settings=SETTINGS)


@pytest.fixture(scope="module")
def report(world: Any) -> DelayedReport:
    end, split = law.START + timedelta(days=47), law.START + timedelta(days=27)
    return delayed_report(law.REWARD, law.LABELS, world.outcomes, world.log, end, split, settings=SETTINGS)


def plays(world: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the moment of every play, in the order of the law's arrays."""
    found = world.log.with_row_index().filter(pl.col("action") == "play")
    order = found.with_columns(number=pl.col("event_id").str.slice(5).cast(pl.Int64)).sort("number")
    return order["index"].to_numpy().astype(np.int64), order["event_at"].to_physical().to_numpy()


@pytest.mark.parametrize("age", [0.1, 1.0, 3.0, 6.5])
def test_predictions_are_near_the_true_expectations(world: Any, predictor: DelayedFeedback, age: float) -> None:
    rows, began = plays(world)
    late = began >= np.quantile(began, 0.75)
    progress = predictor.predict_at(
        "liked", PartialObservations(world.log), rows[late], began[late] + int(age * DAY_US)
    )
    truth = world.expected(age)[late]
    assert np.abs(progress - truth).mean() < 0.06
    assert np.abs(truth.mean() - truth).mean() > 0.15


def test_predictions_get_better_with_age(report: DelayedReport) -> None:
    auc = list(report.by_age("liked", "auc").values())
    losses = list(report.by_age("liked", "log_loss").values())
    assert report.improves("liked")
    assert auc == sorted(auc)
    assert auc[-1] > 0.95
    assert losses[-1] < 0.5 * losses[0]
    assert (report.rows["log_loss"] < report.rows["base_log_loss"]).all()
    assert (report.rows["ece"] < 0.07).all()
    assert report.rows["plays"].min() > 1_000


def test_a_report_that_gets_worse_says_so(report: DelayedReport) -> None:
    worse = report.rows.with_columns(log_loss=pl.col("log_loss").reverse())
    assert not DelayedReport(worse, report.split).improves("liked")


def test_a_report_that_does_not_get_better_says_so(report: DelayedReport) -> None:
    flat = report.rows.with_columns(log_loss=pl.lit(0.5))
    assert not DelayedReport(flat, report.split).improves("liked")


def test_a_report_learns_from_nothing_after_its_split(world: Any) -> None:
    """Nobody liked anything that was final at the split, so whoever knows no more tells everyone nothing."""
    end, split = law.START + timedelta(days=47), law.START + timedelta(days=27)
    log = world.log.filter((pl.col("action") == "play") | (pl.col("recorded_at") > split))
    texts = world.outcomes.join(log.select("event_id"), on="event_id", how="semi")
    found = delayed_report(law.REWARD, law.LABELS, texts, log, end, split, settings=SETTINGS).rows
    assert set(found["auc"]) == {0.5}
    assert found["log_loss"].to_list() == found["base_log_loss"].to_list()
    assert found["log_loss"].min() > 1


def test_no_more_is_learnt_from_than_was_asked(world: Any, now: datetime) -> None:
    def progress(most: int) -> pl.Series:
        settings = DelayedSettings(trees=5, most=most)
        fitted = DelayedFeedback.fit(law.REWARD, law.LABELS, world.outcomes, world.log, now, settings=settings)
        return reward_values(law.REWARD, law.LABELS, world.outcomes, world.log, now, fitted)["value"]

    assert progress(100_000).equals(progress(10_000_000))
    assert not progress(1_500).equals(progress(100_000))


def test_predicting_for_a_moment_before_the_fit_is_refused(
    world: Any, predictor: DelayedFeedback, now: datetime
) -> None:
    with pytest.raises(IntegrityError, match="are predicted from what was known"):
        predictor.predict({"liked": np.array([0])}, world.log, now - timedelta(seconds=1))


def test_nothing_recorded_later_changes_a_prediction(world: Any, now: datetime) -> None:
    """Fitted and asked on the log as it is, and on one in which everything from `now` on is something else."""
    later = pl.col("recorded_at") > now
    changed = world.log.with_columns(
        action=pl.when(later & (pl.col("action") == "thumbs_up")).then(pl.lit("thumbs_down")).otherwise("action"),
        title_id=pl.when(later).then(pl.lit("t0")).otherwise("title_id"),
        progress=pl.when(later).then(pl.lit(1.0, pl.Float32)).otherwise("progress"),
    )
    assert changed.filter(later).height > 1_000
    texts = world.outcomes.join(world.log.filter(~later).select("event_id"), on="event_id", how="semi")
    values = []
    for log, outcomes in ((world.log, world.outcomes), (changed, texts)):
        fitted = DelayedFeedback.fit(law.REWARD, law.LABELS, outcomes, log, now, settings=SETTINGS)
        values.append(reward_values(law.REWARD, law.LABELS, outcomes, log, now, fitted))
    assert not values[0]["matured"].all()
    assert values[0].equals(values[1])


def test_young_plays_get_their_expected_value(world: Any, now: datetime, predictor: DelayedFeedback) -> None:
    known = reward_values(law.REWARD, law.LABELS, world.outcomes, world.log, now)
    progress = reward_values(law.REWARD, law.LABELS, world.outcomes, world.log, now, predictor)
    mature, young = progress.filter("matured"), progress.filter(~pl.col("matured"))
    assert mature.equals(known.filter("matured"))
    final = reward_values(law.REWARD, law.LABELS, world.outcomes, world.log, now + timedelta(days=20))
    truth = young.select("event_id").join(final, on="event_id", how="left")["value"]
    so_far = young.select("event_id").join(known, on="event_id", how="left")["value"]
    assert abs(young["value"].mean() - truth.mean()) < 0.05
    assert abs(so_far.mean() - truth.mean()) > 0.15


def test_the_same_seed_gives_the_same_numbers(world: Any, now: datetime) -> None:
    def progress(seed: int) -> pl.Series:
        settings = DelayedSettings(trees=10, most=2_000, seed=seed)
        fitted = DelayedFeedback.fit(law.REWARD, law.LABELS, world.outcomes, world.log, now, settings=settings)
        return reward_values(law.REWARD, law.LABELS, world.outcomes, world.log, now, fitted)["value"]

    assert progress(1).equals(progress(1))
    assert not progress(1).equals(progress(2))


def test_a_log_that_is_too_short_is_told(world: Any) -> None:
    with pytest.raises(StateError, match="'liked': no play is 7d old"):
        DelayedFeedback.fit(law.REWARD, law.LABELS, world.outcomes, world.log, law.START + timedelta(days=6))
    early = law.START + timedelta(days=39)
    with pytest.raises(StateError, match="mature; split earlier"):
        delayed_report(
            law.REWARD, law.LABELS, world.outcomes, world.log, early, early - timedelta(days=1), settings=SETTINGS
        )


def test_only_zeros_and_ones_can_be_told(world: Any, now: datetime) -> None:
    half = world.outcomes.with_columns(liked=pl.lit(0.5, pl.Float32))
    with pytest.raises(DataError, match="are neither 0 nor 1"):
        DelayedFeedback.fit(law.REWARD, law.LABELS, half, world.log, now)


def test_a_term_with_a_single_outcome_is_predicted_as_that_outcome(world: Any, now: datetime) -> None:
    fitted = DelayedFeedback.fit(law.REWARD, law.LABELS, world.outcomes.clear(), world.log, now)
    values = reward_values(law.REWARD, law.LABELS, world.outcomes.clear(), world.log, now, fitted)
    assert set(values["value"]) == {0.0}
