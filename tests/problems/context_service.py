"""A small service whose canvases carry different fields: home has rows, search queries, similar a source title."""

from __future__ import annotations

import types
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import shown_service as service

from playbill.datasets import TrainingSet, build_training_set, make_split
from playbill.definitions.specs import CanvasSpec, ContextColumn, LabelSpec, ModelSpec, ResolvedModel

WEATHER = ContextColumn("outside.weather")
CELSIUS = ContextColumn("outside.celsius", "numeric")

EVERYWHERE = ("member", "country", "device", "language", "hour_of_week")
CANVASES: dict[str, dict[str, Any]] = {
    "home": {"context": [*EVERYWHERE, "row", "row_position"]},
    "search": {"context": ["member", "query", "country"]},
    "similar": {"context": ["member", "source_title"], "impute": {"query": "source_title_name"}},
    "lobby": {"context": ["country"]},
}
ROWS = ("popular", "genre_rows:drama", "genre_rows:horror")


def model(canvases: dict[str, dict[str, Any]] | None = None, **changes: Any) -> ResolvedModel:
    """Return a model of the service's canvases, or of others."""
    known = CANVASES if canvases is None else canvases
    label = {"name": "play", "version": 1, "from": {"action": "play"}, "negatives": {"shown_not_played": True}}
    blend = {"version": 1, "blend": {"play": 1.0}, "metric": "play"}
    spec = {
        "name": "asked",
        "version": 1,
        "features": "none_v1",
        "canvases": list(known),
        "history": {"length": 8},
        "heads": {"play": {"label": "play", "loss": "softmax"}},
        "training": {"stride": 8, "batch_slots": 90, "seed": 3},
        **changes,
    }
    return ResolvedModel(
        model=ModelSpec.model_validate(spec),
        labels={"play": LabelSpec.model_validate(label)},
        rewards={},
        canvases={name: CanvasSpec.model_validate({"name": name, **blend, **own}) for name, own in known.items()},
        rows={},
    )


def log(members: int = 12, visits: int = 12, seed: int = 5) -> pl.DataFrame:
    """Return a log in which everyone visits every canvas, and plays the same few titles over and over."""
    draw = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for member in range(members):
        for visit in range(visits):
            canvas = ("home", "search", "similar", "lobby")[(visit + member) % 4]
            own = {
                "member_id": f"m{member:02d}",
                "request_id": f"r{member}-{visit}",
                "country": ("US", "FR")[member % 2],
                "device": "tv",
                "language": "en",
                "event_at": service.START + timedelta(hours=9 * visit + member),
            }
            events = _visit(canvas, draw)
            start = len(rows)
            rows += [{"seq": start + place, **own, **event} for place, event in enumerate(events)]
    weather = pl.Series("outside.weather", ["sun", "rain", None], dtype=pl.String)
    places = np.arange(len(rows))
    return service.frame(rows).with_columns(
        weather[(places % 3).tolist()], pl.Series("outside.celsius", places % 40, dtype=pl.Float32)
    )


def _visit(canvas: str, draw: np.random.Generator) -> list[dict[str, Any]]:
    title = service.TITLES[int(draw.integers(0, 4))]
    play: dict[str, Any] = {"action": "play", "canvas": canvas, "title_id": title}
    if canvas == "home":
        row = ROWS[int(draw.integers(0, len(ROWS)))]
        place = int(draw.integers(0, 20))
        return [
            {"action": "impression", "canvas": "row_ranking", "row_id": row, "position": place},
            {"action": "impression", "canvas": canvas, "row_id": row, "position": 0, "title_id": title},
            {"action": "impression", "canvas": "row_ranking", "row_id": "below", "position": 21},
            {"action": "impression", "canvas": canvas, "row_id": "below", "position": 0, "title_id": "t20"},
            {**play, "row_id": row, "position": 0},
        ]
    if canvas == "search":
        unplayed = {"action": "impression", "canvas": canvas, "title_id": "t20", "position": 1}
        return [{"action": "search", "canvas": canvas, "query": f"name {title[:2]}"}, unplayed, play]
    if canvas == "similar":
        return [{**play, "source_title_id": service.TITLES[int(draw.integers(0, 4))]}]
    return [play]


class Features(service.NoFeatures):
    """A numeric feature of the member and one of the request."""

    def schema(self, service: str) -> types.SimpleNamespace:
        names = {"activity__requests": "member", "place__size": "request"}
        columns = [types.SimpleNamespace(name=name, entity=entity, kind="numeric") for name, entity in names.items()]
        return types.SimpleNamespace(service=service, version="v1", columns=tuple(columns))

    def member_features(self, service: str, requested: pl.DataFrame) -> pl.DataFrame:
        return super().member_features(service, requested).with_columns(place__size=pl.lit(2.0, pl.Float32))


def training_set(resolved: ResolvedModel, interactions: pl.DataFrame) -> TrainingSet:
    """Build what a model learns from."""
    tables, split = service.Tables(interactions), make_split("leave_one_out", interactions)
    return build_training_set(tables, resolved, split, Features(), service.CLOCK)
