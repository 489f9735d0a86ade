"""Logs of unusual shape are trained on, or refused in words: short histories, one long one, one member, one title."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from fixtures import shown_service as service
from playbill.errors import DataError
from playbill.models import HistoryBatch, TitleInputs
from playbill.models.batch import ContextBatch
from playbill.training import LoopSettings, fit
from playbill.training.build import build_network

SETTINGS = LoopSettings(epochs=1, learning_rate=0.01, ema=0.9, low_precision=False, seed=7)
SMALL = {
    "trunk": {"dim": 16, "layers": 1, "heads": 2, "dropout": 0.0},
    "titles": {"metadata": ["kind"], "svd_start": False},
    "training": {"stride": 200, "batch_slots": 3200, "seed": 3},
}
EVERYWHERE = pl.DataFrame(
    {"title_id": service.TITLES, "country": "*", "available_from": service.START - timedelta(days=9)}
).cast({"available_from": pl.Datetime("us", "UTC")})
MANY = 100_000

Rows = list[dict[str, Any]]


def plays(member: str, count: int, titles: int, first: int = 0) -> Rows:
    """Return a member's plays of some titles in turn, a minute after each other."""
    own = {"member_id": member, "action": "play"}
    return [
        {
            **own,
            "request_id": f"{member}-{place}",
            "event_at": service.START + timedelta(minutes=place),
            "seq": place,
            "title_id": service.TITLES[(first + 7 * place) % titles],
        }
        for place in range(count)
    ]


def crowd(count: int, titles: int = 9) -> Rows:
    """Return the plays of thirty members."""
    return [row for member in range(30) for row in plays(f"m{member:02d}", count, titles, member)]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(lambda: plays("m0", 60, 9), id="one member"),
        pytest.param(lambda: crowd(4, titles=1), id="one title"),
        pytest.param(lambda: crowd(3), id="histories of at most two plays"),
        pytest.param(lambda: [*plays("long", MANY, 29), *crowd(5)], id="a hundred thousand plays"),
    ],
)
def test_logs_of_unusual_shape_are_trained_on(rows: Callable[[], Rows]) -> None:
    resolved = service.model({"play": {"label": "play", "loss": "softmax"}}, **SMALL)
    data = service.training_set(resolved, service.frame(rows()), spans=EVERYWHERE)
    result = fit(build_network(resolved, data), data, SETTINGS)
    history, context, _ = next(data.epoch(0))
    titles = TitleInputs.from_arrays(data.titles)
    found = result.network.scores(HistoryBatch.from_arrays(history), ContextBatch.from_arrays(context), titles)["play"]
    assert found.isfinite().all()
    assert history.title.shape[1] <= resolved.model.history.length


@pytest.mark.parametrize("count", [1, 2])
def test_histories_without_anything_to_hold_out_are_refused(count: int) -> None:
    resolved = service.model({"play": {"label": "play", "loss": "softmax"}}, **SMALL)
    with pytest.raises(DataError, match="nothing to hold out; a member needs three plays"):
        service.training_set(resolved, service.frame(crowd(count)), spans=EVERYWHERE)
