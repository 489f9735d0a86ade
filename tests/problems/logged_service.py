"""A small service whose slates were drawn with known propensities, in canonical tables, with known chances of plays.

Axis letters: M members, T titles, S slates, K places.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from playbill.datasets.splits import Split
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.tables import polars_schema

T0 = datetime(2024, 1, 1, tzinfo=UTC)
TIMESTAMP = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class LoggedService:
    """Members ask once each; what they see is drawn by Plackett-Luce over `logging`, all K places independent."""

    chance: np.ndarray  # [M, T]
    logging: np.ndarray  # [M, T] scores
    tables: EvaluationTables
    shown: np.ndarray  # [M, K]

    @classmethod
    def make(
        cls, members: int = 400, titles: int = 8, places: int = 3, seed: int = 0, canvas: str = "home"
    ) -> LoggedService:
        generator = np.random.default_rng(seed)
        taste = generator.standard_normal((members, titles))
        chance = 1 / (1 + np.exp(0.5 - taste))
        logging = 0.3 * generator.standard_normal((members, titles))
        noise = generator.gumbel(size=logging.shape)
        shown = np.argsort(-(logging + noise), axis=1)[:, :places]
        propensity = plackett_luce(logging, shown)
        played = generator.random(shown.shape) < np.take_along_axis(chance, shown, axis=1)
        interactions = _events(shown, propensity, played, canvas)
        return cls(chance, logging, _tables(interactions, members, titles), shown)

    @property
    def title_ids(self) -> list[str]:
        return [f"t{number}" for number in range(self.chance.shape[1])]

    def scorer(self, scores: np.ndarray) -> ByMember:
        return ByMember(self.title_ids, scores)

    @property
    def split(self) -> Split:
        """Everything is held out from one moment on."""
        frame = self.tables.interactions.select("event_id", fold=pl.lit("test"))
        return Split(frame, "global_time", T0, T0, "digest")


class ByMember:
    """Scores that depend on the member alone."""

    def __init__(self, title_ids: list[str], scores: np.ndarray) -> None:
        self.title_ids, self.scores = title_ids, scores.astype(np.float32)
        self.histories: list[int] = []

    def score(self, requests):
        self.histories += [request.history.height for request in requests]
        return self.scores[[int(request.member_id[1:]) for request in requests]]


def plackett_luce(scores: np.ndarray, slates: np.ndarray) -> np.ndarray:
    """[S, K] chance of each place's title given the ones above."""
    left = np.ones(scores.shape, bool)
    rows, out = np.arange(len(slates)), np.empty(slates.shape)
    for place in range(slates.shape[1]):
        weight = np.exp(scores) * left
        out[:, place] = (weight / weight.sum(axis=1, keepdims=True))[rows, slates[:, place]]
        left[rows, slates[:, place]] = False
    return out


def _events(shown: np.ndarray, propensity: np.ndarray, played: np.ndarray, canvas: str) -> pl.DataFrame:
    rows = []
    for member in range(shown.shape[0]):
        at = T0 + timedelta(minutes=member)
        before = {"member_id": f"m{member}", "country": ("DE", "JP")[member % 2], "canvas": canvas}
        requested = {**before, "request_id": f"r{member}", "row_id": "top_picks"}
        first = {**before, "action": "play", "title_id": "t0", "event_at": at - timedelta(days=1), "seq": 0}
        rows.append({**first, "event_id": f"old{member}"})
        for place, title in enumerate(shown[member]):
            rows.append(
                {
                    **requested,
                    "event_id": f"i{member}-{place}",
                    "action": "impression",
                    "title_id": f"t{title}",
                    "event_at": at,
                    "seq": 1 + place,
                    "position": 1 + place,  # services count from 1; so do the tables
                    "propensity": float(propensity[member, place]),
                }
            )
        for place in np.flatnonzero(played[member]):
            play = {"action": "play", "title_id": f"t{shown[member, place]}", "progress": 1.0, "duration_s": 60.0}
            when = {"event_at": at + timedelta(minutes=1 + int(place)), "seq": 10 + int(place)}
            rows.append({**requested, **play, **when, "event_id": f"p{member}-{place}"})
    schema = {**polars_schema("interactions"), "propensity": pl.Float64}
    frame = pl.DataFrame(rows, schema_overrides={"event_at": TIMESTAMP}, infer_schema_length=None)
    absent = [pl.lit(None, dtype=kind).alias(name) for name, kind in schema.items() if name not in frame.columns]
    frame = frame.with_columns(absent).with_columns(recorded_at=pl.col("event_at"))
    return frame.select(pl.col(name).cast(kind) for name, kind in schema.items()).sort("member_id", "seq")


def _tables(interactions: pl.DataFrame, members: int, titles: int) -> EvaluationTables:
    ids = [f"t{number}" for number in range(titles)]
    early = T0 - timedelta(days=1000)
    return EvaluationTables(
        titles=pl.DataFrame(
            {"title_id": ids, "name": ids, "names": None, "genres": [["drama"]] * titles, "kids": [False] * titles},
            schema_overrides={"names": polars_schema("titles")["names"]},
        ),
        members=pl.DataFrame(
            {
                "member_id": [f"m{number}" for number in range(members)],
                "joined_at": [early] * members,
                "kids_profile": [False] * members,
            },
            schema_overrides={"joined_at": TIMESTAMP},
        ),
        availability=pl.DataFrame(
            {"title_id": ids, "country": ["*"] * titles, "available_from": [early] * titles, "available_until": None},
            schema_overrides={"available_from": TIMESTAMP, "available_until": TIMESTAMP},
        ),
        interactions=interactions,
        end=T0 + timedelta(days=30),
    )
