"""What examples teach, end to end: rewards, drawn negatives, shown ones and strata on a tiny service."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from fixtures import shown_service as service
from playbill.datasets import TrainingSet, build_training_set, make_split
from playbill.datasets.examples.sampling import ExampleWeights
from playbill.errors import ConfigError, StateError
from playbill.models import HistoryBatch, TargetBatch, TitleInputs
from playbill.models.batch import ContextBatch
from playbill.training import LoopSettings, fit
from playbill.training.build import build_network
from playbill.training.example_weights import example_weights
from playbill.training.recording import examples_summary

CLICKED, LOVED = "t01", "t02"
SETTINGS = LoopSettings(epochs=12, learning_rate=0.03, ema=0.9, low_precision=False, seed=7)
REWARD = {"rewards": {"joy": {"terms": {"thumbs_up": 1.0}}}}
SMALL = {
    "trunk": {"dim": 16, "layers": 1, "heads": 2, "dropout": 0.0},
    "titles": {"metadata": ["kind"], "svd_start": False, "id_mask": 0.0},
    "training": {"stride": 8, "batch_slots": 240, "seed": 3},
}


def clicks_and_joy(members: int = 40) -> pl.DataFrame:
    """Members who play the clicked title three times as often, and like the other one."""
    draw, rows = np.random.default_rng(5), []
    for member in range(members):
        for request in range(6):
            at = service.START + timedelta(hours=30 * request + int(draw.integers(0, 9)))
            own = {"member_id": f"m{member:02d}", "request_id": f"r{member}-{request}", "event_at": at}
            title = CLICKED if draw.random() < 0.75 else LOVED
            other = service.TITLES[2 + int(draw.integers(0, 4))]
            for place, name in enumerate((CLICKED, LOVED, other)):
                rows.append({**own, "seq": 10 * request + place, "action": "impression", "title_id": name})
            own["event_at"] = at + timedelta(minutes=1)
            rows.append({**own, "seq": 10 * request + 5, "action": "play", "title_id": title})
            thumb = "thumbs_up" if title == LOVED else "thumbs_down"
            rows.append({**own, "seq": 10 * request + 6, "action": thumb, "title_id": title})
            # Something else in between, so that plays of one title are not one token.
            rows.append({**own, "seq": 10 * request + 7, "action": "play", "title_id": f"t{10 + request:02d}"})
    return service.frame(rows)


def scores(training_set: TrainingSet, resolved: Any, head: str) -> dict[str, float]:
    """Train, and score titles for the requests of a batch."""
    result = fit(build_network(resolved, training_set), training_set, SETTINGS)
    history, context, _ = next(training_set.epoch(0))
    titles = TitleInputs.from_arrays(training_set.titles)
    found = result.network.scores(HistoryBatch.from_arrays(history), ContextBatch.from_arrays(context), titles)[head]
    means = found.mean(dim=0).tolist()
    return dict(zip(training_set.encoder.title_rows.entries, means[1:], strict=True))


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return clicks_and_joy()


def head(**changes: Any) -> dict[str, Any]:
    return {"play": {"label": "play", "loss": "softmax", **changes}}


EVERYWHERE = pl.DataFrame(
    {"title_id": service.TITLES, "country": "*", "available_from": service.START - timedelta(days=9)}
).cast({"available_from": pl.Datetime("us", "UTC")})


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_a_reward_ranks_what_is_loved_above_what_is_clicked(log, loss: str) -> None:
    drawn = {"negatives": {"policy": "uniform", "count": 64}} if loss == "sampled_softmax" else {}
    plain = service.model(head(loss=loss, **drawn), **SMALL)
    without = scores(service.training_set(plain, log, spans=EVERYWHERE), plain, "play")
    assert without[CLICKED] > without[LOVED]
    rewarded = service.model(head(loss=loss, reward="joy", **drawn), **SMALL, **REWARD)
    data = service.training_set(rewarded, log, spans=EVERYWHERE, weights=example_weights(rewarded))
    with_reward = scores(data, rewarded, "play")
    assert with_reward[LOVED] > with_reward[CLICKED]


def test_a_negative_reward_turns_a_play_into_what_is_not_wanted(log) -> None:
    reward = {"rewards": {"joy": {"terms": {"thumbs_up": 1.0, "thumbs_down": -1.0}}}}
    down = {"thumbs_down": {"from": {"action": "thumbs_down"}}}
    bce = {"play": {"label": "play", "loss": "bce"}}
    plain = service.model(bce, **SMALL)
    without = scores(service.training_set(plain, log, spans=EVERYWHERE), plain, "play")
    assert without[CLICKED] > without[LOVED]
    bce["play"]["reward"] = "joy"
    rewarded = service.model(bce, **SMALL, **reward, labels=down)
    data = service.training_set(rewarded, log, spans=EVERYWHERE, weights=example_weights(rewarded))
    clicked = data.rows.title == data.encoder.title_rows.encode([CLICKED])[0]
    assert (data.rows.labels["play"][clicked & data.rows.next] == 0).all()
    with_reward = scores(data, rewarded, "play")
    assert with_reward[LOVED] > with_reward[CLICKED]


def test_weights_of_a_reward_have_mean_one_and_its_version_is_kept(log, tmp_path) -> None:
    rewarded = service.model(head(reward="joy"), **REWARD)
    data = service.training_set(rewarded, log, spans=EVERYWHERE, weights=example_weights(rewarded))
    weights = data.rows.weights["play"]
    assert weights[weights > 0].mean() == pytest.approx(1, rel=1e-5)
    loved = data.encoder.title_rows.encode([LOVED])[0]
    assert set(data.rows.title[weights > 0].tolist()) == {loved}
    assert data.rewards["play"].startswith("joy:1:")
    data.save(tmp_path)
    loaded = TrainingSet.load(tmp_path)
    assert loaded.rewards == data.rewards
    np.testing.assert_array_equal(loaded.rows.weights["play"], weights)
    assert examples_summary(data)["rewards"] == data.rewards


def test_a_rewards_label_is_not_counted_twice(log) -> None:
    """A ranking label of a half is in the reward's weight already."""

    class Twice:
        def rewards(self, resolved, events, availability, titles, as_of):
            return {"play": np.full(events.height, 2, np.float32)}

        def weigh(self, values, labels, loss):
            assert loss == "softmax"
            return labels, np.where(np.nan_to_num(labels) > 0, labels * values, 0).astype(np.float32)

    rewarded = service.model(head(reward="joy"), **REWARD)
    data = service.training_set(rewarded, log, spans=EVERYWHERE, weights=Twice())
    assert set(data.rows.labels["play"].tolist()) == {1.0}
    assert set(data.rows.weights["play"].tolist()) == {2.0}


def test_a_reward_without_its_values_is_refused(log) -> None:
    with pytest.raises(StateError, match="head 'play' is weighed by reward 'joy:1:"):
        service.training_set(service.model(head(reward="joy"), **REWARD), log)


def test_models_without_rewards_need_none() -> None:
    assert example_weights(service.model(head())) is None
    weigher: ExampleWeights | None = example_weights(service.model(head(reward="joy"), **REWARD))
    assert weigher is not None


@pytest.mark.parametrize("policy", ["uniform", "popularity", "in_batch", "mixed", "shown_not_played"])
@pytest.mark.parametrize("loss", ["sampled_softmax", "bce"])
def test_every_policy_learns_what_is_played(log, policy: str, loss: str) -> None:
    options = {} if policy == "shown_not_played" else {"count": 64}
    resolved = service.model(head(loss=loss, negatives={"policy": policy, **options}), **SMALL)
    found = scores(service.training_set(resolved, log, spans=EVERYWHERE), resolved, "play")
    assert found[CLICKED] > max(found[title] for title in service.TITLES[2:6])


def test_too_many_strata_are_refused_before_anything_is_trained(log) -> None:
    resolved = service.model(head(), sampling={"strata": ["country", "tenure"], "floor": 0.6})
    with pytest.raises(ConfigError, match=r"strata cannot each have 0\.6"):
        service.training_set(resolved, log, spans=EVERYWHERE)


def test_strata_leave_the_loss_where_it_was(log) -> None:
    """The same weights over the same rows: a network's first loss, averaged over an epoch, does not move."""
    plain, drawn = (
        service.model(head(), **SMALL),
        service.model(head(), **SMALL, sampling={"strata": ["tenure"], "floor": 0.2}),
    )
    sets = [service.training_set(resolved, log, spans=EVERYWHERE) for resolved in (plain, drawn)]
    assert sets[1].rows.copies.max() > 1
    losses = []
    for data in sets:
        network = build_network(plain, sets[0]).eval()
        titles = TitleInputs.from_arrays(data.titles)
        total = weight = 0.0
        for history, context, targets in data.epoch(0):
            own = TargetBatch.from_arrays(targets)
            # Hidden fields are drawn by place in the batch, which strata change.
            shown = ContextBatch.from_arrays(context)
            _, sums = network(HistoryBatch.from_arrays(history), shown, own, titles)
            total, weight = total + float(sums[0, 0]), weight + float(sums[0, 1])
        losses.append(total / weight)
        assert weight == pytest.approx(len(data.rows), rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
@pytest.mark.parametrize("weighed", ["reward", "strata", "both"])
def test_the_steps_of_an_epoch_add_up_to_the_weighted_log(log, loss: str, weighed: str) -> None:
    """Each row counts in the steps by its weight alone, and not by what else is in its batch."""
    changes: dict[str, Any] = {**SMALL, "training": {**SMALL["training"], "batch_slots": 60}}
    if weighed != "reward":
        changes["sampling"] = {"strata": ["tenure"], "floor": 0.2}
    if weighed != "strata":
        changes |= REWARD
    resolved = service.model(head(loss=loss, **({"reward": "joy"} if weighed != "strata" else {})), **changes)
    data = service.training_set(resolved, log, spans=EVERYWHERE, weights=example_weights(resolved))
    steps: list[float] = []
    settings = SETTINGS.model_copy(update={"epochs": 1})
    result = fit(build_network(resolved, data), data, settings, progress=lambda progress: steps.append(progress.loss))
    assert len(steps) == data.steps() > 5
    assert np.mean(steps) == pytest.approx(result.reports[0]["loss"], rel=1e-5)


def test_batches_of_rows_that_weigh_alike_are_divided_by_their_own_weight(log) -> None:
    resolved = service.model(head(), **SMALL)
    assert service.training_set(resolved, log, spans=EVERYWHERE).batch_weights == {}


def test_rows_of_a_split_by_time_carry_rewards_known_then(log) -> None:
    rewarded = service.model(head(reward="joy"), **REWARD)
    split = make_split("global_time", log)
    data = build_training_set(
        service.Tables(log, EVERYWHERE),
        rewarded,
        split,
        service.NoFeatures(),
        service.CLOCK,
        weights=example_weights(rewarded),
    )
    assert data.watermark == split.validation_cutoff
    assert (data.rows.weights["play"] > 0).any()
