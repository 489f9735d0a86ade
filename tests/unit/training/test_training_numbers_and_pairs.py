"""Numbers and pairs, from a log to scores: what is watched to the end, and what is chosen over what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from fixtures import shown_service as service
from playbill.datasets import TrainingSet
from playbill.models import HistoryBatch, TitleInputs
from playbill.models.batch import ContextBatch
from playbill.ranking.blend import blend, head_losses
from playbill.training import LoopSettings, fit
from playbill.training.build import build_network, initial_biases

SETTINGS = LoopSettings(epochs=12, learning_rate=0.03, ema=0.9, low_precision=False, seed=7)
SMALL = {
    "trunk": {"dim": 16, "layers": 1, "heads": 2, "dropout": 0.0},
    "titles": {"metadata": ["kind"], "svd_start": False},
    "training": {"stride": 8, "batch_slots": 240, "seed": 3},
}
LABELS = {"minutes": {"extractor": "measured", "options": {"column": "duration_s"}}}
EVERYWHERE = pl.DataFrame(
    {"title_id": service.TITLES, "country": "*", "available_from": service.START - timedelta(days=9)}
).cast({"available_from": pl.Datetime("us", "UTC")})


def log(members: int = 40) -> pl.DataFrame:
    """Members who play the first title three times in four, for ten minutes, and the second one for an hour."""
    draw, rows = np.random.default_rng(5), []
    for member in range(members):
        for request in range(6):
            at = service.START + timedelta(hours=30 * request + int(draw.integers(0, 9)))
            own = {"member_id": f"m{member:02d}", "request_id": f"r{member}-{request}", "event_at": at}
            title = "t01" if draw.random() < 0.75 else "t02"
            watched = 600.0 if title == "t01" else 3600.0
            rows.append({**own, "seq": 10 * request, "action": "play", "title_id": title, "duration_s": watched})
            between = {**own, "event_at": at + timedelta(hours=3), "request_id": None}
            rows.append({**between, "seq": 10 * request + 5, "action": "play", "title_id": f"t{10 + request:02d}"})
    return service.frame(rows)


def learnt(heads: dict[str, Any]) -> tuple[TrainingSet, Any, dict[str, np.ndarray]]:
    resolved = service.model(heads, labels=LABELS, **SMALL)
    data = service.training_set(resolved, log(), spans=EVERYWHERE)
    network = fit(build_network(resolved, data), data, SETTINGS).network
    history, context, _ = next(data.epoch(0))
    titles = TitleInputs.from_arrays(data.titles)
    found = network.scores(HistoryBatch.from_arrays(history), ContextBatch.from_arrays(context), titles)
    return data, resolved, {head: scores.mean(dim=0).numpy()[1:] for head, scores in found.items()}


@pytest.fixture(scope="module")
def both() -> tuple[TrainingSet, Any, dict[str, np.ndarray]]:
    return learnt(
        {
            "play": {"label": "play", "loss": "pairwise", "negatives": {"policy": "uniform", "count": 64}},
            "minutes": {"label": "minutes", "loss": "huber", "options": {"scale": 3600, "cap": 2700, "delta": 0.2}},
        }
    )


def test_a_number_is_learnt_in_its_unit_and_never_above_the_cap(both) -> None:
    _, _, scores = both
    short, long = (float(scores["minutes"][place]) for place in (0, 1))
    assert short == pytest.approx(600 / 3600, abs=0.08)
    assert long == pytest.approx(2700 / 3600, abs=0.12)


def test_a_number_starts_from_its_mean_in_that_unit(both) -> None:
    data, resolved, _ = both
    labels = data.labels["minutes"]
    known = np.minimum(labels[~np.isnan(labels)], 2700)
    assert initial_biases(resolved, data)["minutes"] == pytest.approx(float(known.mean()) / 3600, rel=1e-5)
    assert "play" not in initial_biases(resolved, data)


def test_pairs_put_what_is_played_more_above(both) -> None:
    _, _, scores = both
    assert scores["play"].argmax() == 0
    assert scores["play"][0] > scores["play"][1] > scores["play"][20]


def test_a_blend_takes_the_number_as_it_is_and_pairs_as_competing(both) -> None:
    _, resolved, scores = both
    candidates = np.zeros(len(service.TITLES), np.bool_)
    candidates[:3] = True
    losses = head_losses(resolved)
    alone = blend(scores, losses, {"minutes": 2.0}, candidates)
    assert alone[:3] == pytest.approx(2 * scores["minutes"][:3])
    chances = np.exp(blend(scores, losses, {"play": 1.0}, candidates)[:3])
    assert chances.sum() == pytest.approx(1.0)


def test_a_rare_label_starts_at_its_log_odds() -> None:
    resolved = service.model({"play": {"label": "play", "loss": "bce"}}, **SMALL)
    data = service.training_set(resolved, service.log(), spans=EVERYWHERE)
    labels = data.labels["play"]
    share = float((labels[~np.isnan(labels)] > 0).mean())
    assert initial_biases(resolved, data)["play"] == pytest.approx(np.log(share / (1 - share)), rel=1e-5)
    drawn = service.model(
        {"play": {"label": "play", "loss": "bce", "negatives": {"policy": "uniform", "count": 8, "weight": 3.0}}},
        **SMALL,
    )
    rarer = share / (1 + 3 * share)
    assert initial_biases(drawn, data)["play"] == pytest.approx(np.log(rarer / (1 - rarer)), rel=1e-5)
    without = service.model({"play": {"label": "play", "loss": "bce", "level": False}}, **SMALL)
    assert initial_biases(without, data) == {}
