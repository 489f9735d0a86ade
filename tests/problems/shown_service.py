"""A small service that logs what it shows: slates of titles that launch country by country, and plays from them."""

from __future__ import annotations

import types
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from playbill.clock import FixedClock
from playbill.datasets import TrainingSet, build_training_set, make_split
from playbill.definitions.specs import CanvasSpec, LabelSpec, ModelSpec, ResolvedModel, RewardSpec
from playbill.tables import Vocabulary, polars_schema

START = datetime(2024, 1, 1, tzinfo=UTC)
TITLES = [f"t{number:02d}" for number in range(1, 31)]
COUNTRIES = ("US", "FR", "BR")
CLOCK = FixedClock(START + timedelta(days=400))
LABELS = {
    "play": {"from": {"action": "play"}, "negatives": {"shown_not_played": True}},
    "thumbs_up": {"from": {"action": "thumbs_up"}, "negatives": {"actions": ["thumbs_down"]}},
}


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return rows of `interactions`; a row says what differs from the defaults."""
    filled = [
        {"event_id": f"e{i:05d}", "canvas": "home", "country": "US", "recorded_at": row["event_at"], **row}
        for i, row in enumerate(rows)
    ]
    columns = polars_schema("interactions").items()
    made = {name: pl.Series(name, [row.get(name) for row in filled], dtype=dtype) for name, dtype in columns}
    return pl.DataFrame(made).sort("member_id", "seq")


def availability() -> pl.DataFrame:
    """Return spans: a third of the titles everywhere from the start, the others by country, some for a while only."""
    rows = []
    for place, title in enumerate(TITLES):
        if place % 3 == 0:
            rows.append((title, "*", START - timedelta(days=30), None))
            continue
        for number, country in enumerate(COUNTRIES):
            if (place + number) % 4 == 0:
                continue
            start = START + timedelta(days=(place * 7 + number * 11) % 60 - 10)
            rows.append((title, country, start, start + timedelta(days=20) if place % 5 == 0 else None))
    when = pl.Datetime("us", "UTC")
    names = {"title_id": pl.String, "country": pl.String, "available_from": when, "available_until": when}
    return pl.DataFrame(rows, schema=names, orient="row")


def can_see(spans: pl.DataFrame, title: str, country: str, at: datetime) -> bool:
    """Say in plain words whether a title could be seen."""
    for row in spans.iter_rows(named=True):
        here = row["title_id"] == title and row["country"] in ("*", country)
        if here and row["available_from"] <= at and (row["available_until"] is None or at < row["available_until"]):
            return True
    return False


KIDS_TITLES = tuple(TITLES[::2])


def log(members: int = 20, requests: int = 12, seed: int = 3, kids: tuple[str, ...] = ()) -> pl.DataFrame:
    """Return a log: requests that show five titles, of which often one is played, sometimes rated.

    Members named in `kids` are shown titles for kids alone.
    """
    draw = np.random.default_rng(seed)
    spans, rows = availability(), []
    for member in range(members):
        country = COUNTRIES[member % 3]
        seq = 0
        for request in range(requests if member else 1):
            at = START + timedelta(hours=float(1 + 90 * request + draw.integers(0, 60)))
            fit = KIDS_TITLES if f"m{member:02d}" in kids else TITLES
            there = [title for title in fit if can_see(spans, title, country, at)]
            shown = draw.permutation(there)[:5]
            own = {"member_id": f"m{member:02d}", "country": country, "request_id": f"r{member}-{request}"}
            for position, title in enumerate(shown):
                rows.append({**own, "event_at": at, "seq": seq, "action": "impression", "title_id": str(title)})
                rows[-1]["position"] = position
                seq += 1
            if member and draw.random() < 0.8:
                after = at + timedelta(minutes=5)
                title = str(shown[int(draw.integers(0, 5))])
                for action in ("play", *(["thumbs_up"] if draw.random() < 0.5 else ["thumbs_down"])):
                    rows.append({**own, "event_at": after, "seq": seq, "action": action, "title_id": title})
                    seq += 1
    return frame(rows)


def model(heads: dict[str, Any], **changes: Any) -> ResolvedModel:
    """Return a model with these heads; `labels` and `rewards` among the changes are definitions by name."""
    labels = {**LABELS, **changes.pop("labels", {})}
    rewards = changes.pop("rewards", {})
    canvas = {"name": "home", "version": 1, "blend": {"play": 1.0}, "metric": "play"}
    return ResolvedModel(
        model=ModelSpec.model_validate(
            {
                "name": "shown",
                "version": 1,
                "features": "none_v1",
                "canvases": ["home"],
                "history": {"length": 8},
                "heads": heads,
                "training": {"stride": 8, "batch_slots": 60, "seed": 3},
                **changes,
            }
        ),
        labels={name: LabelSpec.model_validate({"name": name, "version": 1, **own}) for name, own in labels.items()},
        rewards={name: RewardSpec.model_validate({"name": name, "version": 1, **own}) for name, own in rewards.items()},
        canvases={"home": CanvasSpec.model_validate(canvas)},
        rows={},
    )


class Tables:
    """The canonical tables in memory."""

    def __init__(
        self,
        interactions: pl.DataFrame,
        spans: pl.DataFrame | None = None,
        *,
        kids_titles: tuple[str, ...] = (),
        kids_members: tuple[str, ...] = (),
    ) -> None:
        self._interactions = interactions
        self._spans = availability() if spans is None else spans
        self._kids_titles, self._kids_members = kids_titles, kids_members

    def interactions(self) -> pl.DataFrame:
        return self._interactions

    def titles(self, as_of: datetime | None = None) -> pl.DataFrame:
        columns = {"title_id": TITLES, "name": [f"Name {title}" for title in TITLES], "kind": ["film"] * len(TITLES)}
        return pl.DataFrame(columns).with_columns(kids=pl.col("title_id").is_in(self._kids_titles))

    def availability(self) -> pl.DataFrame:
        return self._spans

    def members(self) -> pl.DataFrame:
        names = self._interactions["member_id"].unique().sort().to_list()
        joined = [START - timedelta(days=40) if place % 5 == 0 else None for place in range(len(names))]
        kinds = {"member_id": pl.String, "joined_at": pl.Datetime("us", "UTC")}
        frame = pl.DataFrame({"member_id": names, "joined_at": joined}, schema=kinds)
        return frame.with_columns(kids_profile=pl.col("member_id").is_in(self._kids_members))

    def member_versions(self) -> pl.DataFrame:
        return self.members()

    def vocabulary(self, kind: str) -> Vocabulary:
        return Vocabulary(kind, TITLES)


class NoFeatures:
    """A feature service with the number of a member's earlier requests, and nothing about titles."""

    def __init__(self) -> None:
        self.requested: list[pl.DataFrame] = []

    def schema(self, service: str) -> types.SimpleNamespace:
        column = types.SimpleNamespace(name="activity__requests", entity="member", kind="numeric")
        return types.SimpleNamespace(service=service, version="v1", columns=(column,))

    def member_features(self, service: str, requested: pl.DataFrame) -> pl.DataFrame:
        self.requested.append(requested)
        hours = (pl.col("event_at") - START).dt.total_hours().cast(pl.Float32)
        return requested.with_columns(hours.alias("activity__requests"))

    def title_snapshots(self, service: str, moments: list[datetime], title_ids: tuple[str, ...]) -> Any:
        values = np.zeros((len(moments), len(title_ids), 0), np.float32)
        return types.SimpleNamespace(columns=(), values=values, categorical=pl.DataFrame({"title_id": title_ids}))


def training_set(resolved: ResolvedModel, interactions: pl.DataFrame, **options: Any) -> TrainingSet:
    """Build what the model learns from, everything but each member's last two plays."""
    kids = {name: options.pop(name) for name in ("kids_titles", "kids_members") if name in options}
    tables = Tables(interactions, options.pop("spans", None), **kids)
    split = make_split(options.pop("protocol", "leave_one_out"), interactions)
    return build_training_set(tables, resolved, split, NoFeatures(), CLOCK, **options)
