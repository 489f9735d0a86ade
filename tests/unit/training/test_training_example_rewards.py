"""What examples are worth to each head: the rewards of its events as known at a moment, young ones predicted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from fixtures import delayed_world as law
from fixtures import shown_service as service
from playbill.definitions.specs import RewardSpec
from playbill.errors import StateError
from playbill.labels import label_events
from playbill.rewards import DelayedFeedback, DelayedSettings, reward_values
from playbill.training.example_weights import example_rewards, example_weights

NOW = law.START + timedelta(days=30)
SETTINGS = DelayedSettings(trees=20, most=6_000, seed=5)
LIKED = {"liked": {"from": {"action": "thumbs_up"}}, "begun": {"from": {"action": "play"}}}
WITHIN = {"liked": {"weight": 1.0, "within": "7d"}}
REWARDS = {
    "later": {"terms": WITHIN, "delayed": ["liked"]},
    "at_once": {"terms": WITHIN},
    "begun": {"terms": {"begun": 2.0}},
}
NONE = pl.DataFrame()


def resolved(**heads: str) -> Any:
    """Return a model whose heads learn plays, each weighed by a reward."""
    made = {name: {"label": "play", "loss": "softmax", "reward": reward} for name, reward in heads.items()}
    return service.model(made | {"plain": {"label": "play", "loss": "softmax"}}, labels=LIKED, rewards=REWARDS)


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return law.DelayedWorld.make(plays=1_500).log


@pytest.fixture(scope="module")
def progress(log: pl.DataFrame) -> dict[str, np.ndarray]:
    model = resolved(one="later", other="at_once", third="begun", fourth="later")
    return example_rewards(model, log, NONE, NONE, NOW, SETTINGS)


def test_each_head_has_the_values_of_its_own_reward(log: pl.DataFrame, progress: dict[str, np.ndarray]) -> None:
    assert list(progress) == ["one", "other", "third", "fourth"]
    labels = {"liked": resolved().labels["liked"]}
    outcomes = label_events(list(labels.values()), log, NOW)
    for head, name in (("one", "later"), ("other", "at_once")):
        reward = RewardSpec.model_validate({"name": name, "version": 1} | REWARDS[name])
        predictor = None
        if reward.delayed:
            predictor = DelayedFeedback.fit(reward, labels, outcomes, log, NOW, settings=SETTINGS)
        values = reward_values(reward, labels, outcomes, log, NOW, predictor)
        expected = log.select("event_id").join(values, on="event_id", how="left", maintain_order="left")["value"]
        np.testing.assert_array_equal(progress[head], expected.fill_null(float("nan")).to_numpy())
    np.testing.assert_array_equal(progress["one"], progress["fourth"])
    assert set(progress["third"][np.isfinite(progress["third"])]) == {2.0}


def test_only_what_has_a_reward_has_a_value(log: pl.DataFrame, progress: dict[str, np.ndarray]) -> None:
    """A thumb counts for its play and has no value of its own, nor has what came later."""
    known = ((log["action"] == "play") & (log["event_at"] < NOW)).to_numpy()
    for values in progress.values():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(np.isfinite(values), known)
    young = known & (log["event_at"] > NOW - timedelta(days=7)).to_numpy()
    assert young.sum() > 100
    assert progress["one"][young].mean() > progress["other"][young].mean() + 0.1
    np.testing.assert_array_equal(progress["one"][known & ~young], progress["other"][known & ~young])


def test_nothing_later_is_looked_at(log: pl.DataFrame, progress: dict[str, np.ndarray]) -> None:
    later = pl.col("event_at") >= NOW
    changed = log.with_columns(
        action=pl.when(later & (pl.col("action") == "thumbs_up")).then(pl.lit("thumbs_down")).otherwise("action"),
        title_id=pl.when(later).then(pl.lit("t0")).otherwise("title_id"),
    )
    assert not changed.equals(log)
    again = example_rewards(resolved(one="later"), changed, NONE, NONE, NOW, SETTINGS)["one"]
    np.testing.assert_array_equal(again, progress["one"])


def test_a_log_without_mature_plays_says_so(log: pl.DataFrame) -> None:
    with pytest.raises(StateError, match="'liked': no play is 7d old"):
        example_rewards(resolved(one="later"), log, NONE, NONE, law.START + timedelta(days=6))
    early = example_rewards(resolved(one="at_once"), log, NONE, NONE, law.START + timedelta(days=6))["one"]
    assert np.isfinite(early).any()


def test_the_models_seed_is_that_of_its_predictions() -> None:
    weigher = example_weights(resolved(one="later"))
    assert weigher is not None
    assert weigher.settings.seed == resolved().model.training.seed != DelayedSettings().seed
