"""A small streaming service, written by hand, and a model definition over it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from playbill.definitions.specs import CanvasSpec, HeadSpec, LabelSpec, ModelSpec, ResolvedModel
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.tables import polars_schema

T0 = datetime(1998, 1, 1, tzinfo=UTC)
TIMESTAMP = pl.Datetime("us", "UTC")


def day(number: float) -> datetime:
    return T0 + timedelta(days=number)


def events_of(rows: list[tuple[str, str, float]], countries: dict[str, str]) -> pl.DataFrame:
    """Plays as (member, title, day) with every canonical column; the order of rows is each member's seq order."""
    columns = {"member_id": pl.String, "title_id": pl.String, "day": pl.Float64}
    after_start = pl.duration(microseconds=(pl.col("day") * 86_400_000_000).cast(pl.Int64))
    frame = pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        event_id=pl.format("p-{}-{}-{}", "member_id", "title_id", pl.int_range(pl.len())),
        seq=2 * pl.int_range(pl.len(), dtype=pl.Int64).over("member_id"),
        event_at=(pl.lit(T0) + after_start).cast(TIMESTAMP),
        recorded_at=(pl.lit(T0) + after_start).cast(TIMESTAMP),
        action=pl.lit("play"),
        canvas=pl.lit("home"),
        country=pl.col("member_id").replace_strict(countries, default="ZZ"),
        progress=pl.lit(1.0, dtype=pl.Float32),
    )
    schema = polars_schema("interactions")
    absent = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns]
    return frame.with_columns(absent).select(list(schema)).sort("member_id", "seq")


def tables_of(
    rows: list[tuple[str, str, float]],
    *,
    titles: list[str],
    names: dict[str, str] | None = None,
    countries: dict[str, str] | None = None,
    launches: list[tuple[str, str, float, float | None]] | None = None,
    kids: tuple[str, ...] = (),
    kids_profiles: tuple[str, ...] = (),
) -> EvaluationTables:
    """Tables over `rows`; every title is available everywhere from day -1000 unless `launches` says more."""
    countries = countries or {}
    interactions = events_of(rows, countries)
    launched = launches if launches is not None else [(title, "*", -1000.0, None) for title in titles]
    availability = pl.DataFrame(
        {
            "title_id": [row[0] for row in launched],
            "country": [row[1] for row in launched],
            "available_from": [day(row[2]) for row in launched],
            "available_until": [None if row[3] is None else day(row[3]) for row in launched],
        },
        schema_overrides={"available_from": TIMESTAMP, "available_until": TIMESTAMP},
    )
    first = interactions.group_by("member_id").agg(pl.col("event_at").min().alias("joined_at"))
    return EvaluationTables(
        titles=pl.DataFrame(
            {
                "title_id": titles,
                "name": [(names or {}).get(title, f"Title {title}") for title in titles],
                "names": [None for _ in titles],
                "genres": [[] for _ in titles],
                "kids": [title in kids for title in titles],
            },
            schema_overrides={
                "names": pl.List(pl.Struct({"language": pl.String, "name": pl.String})),
                "genres": pl.List(pl.String),
            },
        ),
        members=first.sort("member_id").with_columns(kids_profile=pl.col("member_id").is_in(kids_profiles)),
        availability=availability,
        interactions=interactions,
        end=day(10_000),
    )


LABEL = LabelSpec.model_validate(
    {
        "kind": "Label",
        "name": "discovery_play",
        "version": 1,
        "from": {"action": "play", "where": "progress >= 0.1"},
    }
)


def resolved_of(**canvases: dict) -> ResolvedModel:
    """A model with canvas `home` (watched titles removed) and any others given as candidates and context."""
    wanted = {"home": {"candidates": {"available": "now", "watched": False}}} | canvases
    specs = {
        name: CanvasSpec.model_validate(
            {"name": name, "version": 1, "blend": {"play": 1.0}, "metric": "discovery_play"} | fields
        )
        for name, fields in wanted.items()
    }
    model = ModelSpec(
        name="tiny",
        version=1,
        features="tiny_v1",
        canvases=tuple(specs),
        heads={"play": HeadSpec(label="discovery_play", loss="softmax")},
    )
    return ResolvedModel(model=model, labels={"discovery_play": LABEL}, rewards={}, canvases=specs, rows={})


def random_rows(members: int = 60, titles: int = 12, plays: int = 6, seed: int = 0) -> list[tuple[str, str, float]]:
    generator = np.random.default_rng(seed)
    rows = []
    for member in range(members):
        weights = 1.0 / np.arange(1, titles + 1)
        chosen = generator.choice(titles, size=plays, replace=False, p=weights / weights.sum())
        start = generator.random() * 40
        rows += [(f"m{member}", str(title + 1), start + step) for step, title in enumerate(chosen)]
    return rows


class ByTable:
    """A score function that gives every request the same scores."""

    def __init__(self, title_ids: list[str], scores: list[float]) -> None:
        self.title_ids, self.scores = title_ids, np.array(scores, dtype=np.float32)

    def score(self, requests):
        return np.tile(self.scores, (len(requests), 1))


class Oracle:
    """Knows each request's held-out title by (member, moment); used as a perfect model."""

    def __init__(self, case) -> None:
        self.title_ids = case.catalogue.title_ids
        self.answers = {
            (row["member_id"], row["at"], row["query"]): column
            for row, column in zip(case.frame.iter_rows(named=True), case.columns, strict=True)
        }

    def score(self, requests):
        scores = np.zeros((len(requests), len(self.title_ids)), dtype=np.float32)
        for row, request in enumerate(requests):
            scores[row, self.answers[request.member_id, request.at, request.query]] = 1.0
        return scores


@pytest.fixture
def world():
    """The helpers above, as one namespace."""
    from types import SimpleNamespace

    return SimpleNamespace(
        day=day,
        tables=tables_of,
        resolved=resolved_of,
        random_rows=random_rows,
        ByTable=ByTable,
        Oracle=Oracle,
    )
