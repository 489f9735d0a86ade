"""A small made service: enough of every kind of event to see what the encoder and the training set do with it."""

from __future__ import annotations

import types
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from playbill.clock import FixedClock
from playbill.datasets import build_training_set, make_split
from playbill.definitions.specs import CanvasSpec, LabelSpec, ModelSpec, ResolvedModel
from playbill.tables import Vocabulary, polars_schema

START = datetime(2024, 1, 1, tzinfo=UTC)
TITLES = [str(number) for number in range(1, 41)]


def interactions_frame(rows: list[dict]) -> pl.DataFrame:
    schema = polars_schema("interactions")
    filled = [
        {"event_id": f"e{i}", "canvas": "home", "country": "US-MN", "recorded_at": row["event_at"], **row}
        for i, row in enumerate(rows)
    ]
    frame = pl.DataFrame(
        {name: pl.Series(name, [row.get(name) for row in filled], dtype=dtype) for name, dtype in schema.items()}
    )
    return frame.sort("member_id", "seq")


def made_interactions(members: int = 30, seed: int = 5) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    rows = []
    for member in range(members):
        played = draw.permutation(len(TITLES))[: 4 + int(draw.integers(0, 30))]
        for place, title in enumerate(played):
            at = START + timedelta(hours=7 * place + member)
            own = {"member_id": f"m{member:02d}", "title_id": TITLES[title], "event_at": at}
            own["country"] = "US-MN" if member % 2 else "ZZ"
            rows.append({**own, "seq": 2 * place, "action": "play", "progress": 1.0, "duration_s": 600.0})
            if place % 3 != 2:
                thumb = "thumbs_up" if place % 3 else "thumbs_down"
                rows.append({**own, "seq": 2 * place + 1, "action": thumb})
    return interactions_frame(rows)


@pytest.fixture(scope="session")
def interactions() -> pl.DataFrame:
    return made_interactions()


@pytest.fixture(scope="session")
def titles() -> pl.DataFrame:
    count = len(TITLES)
    return pl.DataFrame(
        {
            "title_id": TITLES,
            "name": [f"Étoile number {title} (1999)" for title in TITLES],
            "names": [[{"language": "fr", "name": f"Numéro {title}"}] for title in TITLES],
            "kind": ["film"] * count,
            "genres": [["Drama"], ["Comedy", "Drama"], [], None] * (count // 4),
            "original_language": ["en", None] * (count // 2),
            "release_date": [datetime(1960 + number, 1, 1, tzinfo=UTC) for number in range(count)],
            "synopsis": ["A star is born " * 40, None] * (count // 2),
        },
        schema_overrides={"release_date": pl.Datetime("us", "UTC")},
    )


@pytest.fixture(scope="session")
def availability() -> pl.DataFrame:
    return pl.DataFrame(
        {"title_id": TITLES[:-1], "country": "*", "available_from": START - timedelta(days=10)},
        schema_overrides={"available_from": pl.Datetime("us", "UTC")},
    )


@pytest.fixture(scope="session")
def resolved() -> ResolvedModel:
    everywhere = ["member", "country", "device", "language", "hour_of_week"]
    blend = {"blend": {"discovery_play": 1.0}, "metric": "discovery_play", "version": 1}
    canvases = {
        "home": CanvasSpec.model_validate({"name": "home", "context": everywhere, **blend}),
        "search": CanvasSpec.model_validate({"name": "search", "context": ["member", "query", "country"], **blend}),
        "more_like_this": CanvasSpec.model_validate(
            {"name": "more_like_this", "context": ["source_title", *everywhere], **blend}
        ),
        "coming_soon": CanvasSpec.model_validate({"name": "coming_soon", "context": everywhere, **blend}),
    }
    labels = {
        "discovery_play": {
            "from": {"action": "play", "where": "prior_plays_of_title = 0 and progress >= 0.1"},
        },
        "thumbs_up": {"from": {"action": "thumbs_up"}, "negatives": {"actions": ["thumbs_down"]}},
    }
    model = ModelSpec.model_validate(
        {
            "name": "small",
            "version": 1,
            "features": "small_v1",
            "canvases": list(canvases),
            "history": {"length": 10},
            "heads": {
                "discovery_play": {"label": "discovery_play", "loss": "softmax"},
                "thumbs_up": {"label": "thumbs_up", "loss": "bce"},
            },
            "tasks": {
                "search": {"from": "title_names", "share": 0.3},
                "more_like_this": {"from": "co_play", "share": 0.3},
            },
            "training": {"stride": 10, "batch_slots": 60, "seed": 3},
        }
    )
    return ResolvedModel(
        model=model,
        labels={name: LabelSpec.model_validate({"name": name, "version": 1, **body}) for name, body in labels.items()},
        rewards={},
        canvases=canvases,
        rows={},
    )


class FakeTables:
    def __init__(self, interactions: pl.DataFrame, titles: pl.DataFrame, availability: pl.DataFrame) -> None:
        self.log, self._titles, self._availability = interactions, titles, availability

    def interactions(self) -> pl.DataFrame:
        return self.log

    def titles(self) -> pl.DataFrame:
        return self._titles

    def availability(self) -> pl.DataFrame:
        return self._availability

    def members(self) -> pl.DataFrame:
        return self.log.select("member_id").unique().sort("member_id")

    def member_versions(self) -> pl.DataFrame:
        return self.members()

    def vocabulary(self, kind: str) -> Vocabulary:
        assert kind == "title"
        return Vocabulary("title", TITLES)


class FakeFeatures:
    """Counts plays strictly before each moment; remembers what it was asked."""

    def __init__(self, interactions: pl.DataFrame) -> None:
        self._plays = interactions.filter(pl.col("action") == "play")
        self.requested: list[pl.DataFrame] = []

    def schema(self, service: str) -> types.SimpleNamespace:
        column = types.SimpleNamespace
        return column(
            service=service,
            version="v1",
            reads=(),
            columns=(
                column(name="activity__plays", entity="member", kind="numeric", item=None),
                column(name="profile__gender", entity="member", kind="categorical", item=None),
                column(name="popularity__plays", entity="title", kind="numeric", item=None),
                column(name="title__maturity", entity="title", kind="categorical", item=None),
            ),
        )

    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        self.requested.append(frame)
        even = pl.col("member_id").str.slice(1).cast(pl.Int64) % 2 == 0
        return frame.with_columns(
            activity__plays=pl.int_range(pl.len()).over("member_id").cast(pl.Float32),
            profile__gender=pl.when(even).then(pl.lit("F")).otherwise(pl.lit(None)),
        )

    def title_snapshots(self, service: str, moments: list, title_ids: tuple) -> types.SimpleNamespace:
        values = np.zeros((len(moments), len(title_ids), 1), np.float32)
        for place, moment in enumerate(moments):
            before = self._plays.filter(pl.col("event_at") < moment)["title_id"].value_counts()
            counts = dict(before.iter_rows())
            values[place, :, 0] = [counts.get(title, 0) for title in title_ids]
        categorical = pl.DataFrame({"title_id": title_ids, "title__maturity": ["PG", "R"] * (len(title_ids) // 2)})
        return types.SimpleNamespace(columns=("popularity__plays",), values=values, categorical=categorical)


@pytest.fixture
def features(interactions: pl.DataFrame) -> FakeFeatures:
    return FakeFeatures(interactions)


@pytest.fixture
def tables(interactions: pl.DataFrame, titles: pl.DataFrame, availability: pl.DataFrame) -> FakeTables:
    return FakeTables(interactions, titles, availability)


@pytest.fixture(scope="session")
def clock() -> FixedClock:
    return FixedClock(START + timedelta(days=365))


@pytest.fixture
def training_set(tables, resolved, features, clock):
    split = make_split("leave_one_out", tables.interactions())
    return build_training_set(tables, resolved, split, features, clock)


@pytest.fixture(scope="session")
def make_interactions():
    return interactions_frame
