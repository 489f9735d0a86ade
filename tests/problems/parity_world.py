"""A small service that lives: its log grows, it builds, loads and answers, and what it answered is in the request log.

Titles, members and the model are those of `serving_world`; the events are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from serving_world import TITLES, FakeScorer, make_workspace, serve_with

from playbill.clock import FixedClock
from playbill.config import Project, ProjectSettings, ServicesSettings, Workspace, WorkspaceSettings
from playbill.features import FeatureDoor, build_features
from playbill.serving import FactReader, ModelHandle, Recommender
from playbill.serving.messages import RecommendRequest
from playbill.tables import RequestLog, Tables, canonical_frame

START = datetime(2024, 1, 1, tzinfo=UTC)
LIVE = {"live": WorkspaceSettings(clock="wall")}
MEMBERS = ("42", "7", "kid")
_MOMENT = pl.Datetime("us", "UTC")
_ACTIONS = (
    *("play", "play", "play", "thumbs_up", "thumbs_down", "abandon", "impression"),
    *("remind_me", "trailer_view", "details_view", "my_list_add"),
)


def random_events(seed: int, count: int = 60, days: int = 45, recorded_late: float = 0.0) -> pl.DataFrame:
    """Return events on a coarse grid of times, so that ties, sessions and the edges of windows are common."""
    rng = np.random.default_rng(seed)
    steps = np.sort(rng.integers(0, days * 24 * 4, count)) * 15
    late = np.where(rng.random(count) < recorded_late, rng.integers(1, 72, count), 0)
    frame = pl.DataFrame(
        {
            "event_id": [f"e-{seed}-{number}" for number in range(count)],
            "member_id": rng.choice(MEMBERS, count),
            "action": rng.choice(_ACTIONS, count),
            "title_id": rng.choice(TITLES, count),
            "progress": rng.random(count).astype(np.float32),
            "minute": steps,
            "late_h": late,
        }
    )
    at = pl.lit(START, dtype=_MOMENT) + pl.duration(minutes="minute")
    return frame.select(
        "event_id",
        "member_id",
        at.alias("event_at"),
        (at + pl.duration(hours="late_h")).alias("recorded_at"),
        "action",
        "title_id",
        pl.when(pl.col("action") == "play").then("progress").alias("progress"),
        pl.int_range(pl.len(), dtype=pl.Int64).over("member_id").alias("seq"),
        canvas=pl.lit("home"),
        country=pl.lit("DE"),
    )


def new_workspace(root: Path, online_store: str | None = None) -> Workspace:
    """Return an empty workspace of a live service, served from a file of its own or from a Redis URL."""
    services = ServicesSettings(online_store=online_store) if online_store else ServicesSettings()
    return Project(root, ProjectSettings(services=services, workspaces=LIVE)).workspace("live")


def record(workspace: Workspace, events: pl.DataFrame, at: datetime) -> None:
    """Make the tables hold what had been recorded by a moment."""
    if not Tables(workspace).exists():
        source = Tables(make_workspace(workspace.project.root, name="source"))
        titles, spans, members = source.titles(), source.availability(), source.members()
        with Tables(workspace).replace() as writer:
            writer.write("titles", titles)
            writer.write("availability", spans)
            writer.write("members", members)
            writer.write("interactions", events.filter(pl.col("recorded_at") <= at))
        return
    held = Tables(workspace)
    known = held.interactions().get_column("event_id").implode()
    new = events.filter((pl.col("recorded_at") <= at) & ~pl.col("event_id").is_in(known))
    frame, mistakes = canonical_frame("interactions", new)
    assert not mistakes
    held.append_events(frame)


def live(workspace: Workspace, events: pl.DataFrame, at: datetime) -> FeatureDoor:
    """Record, build and load everything up to a moment, as a service does that never sleeps."""
    record(workspace, events, at)
    build_features(workspace, until=at)
    door = FeatureDoor(workspace)
    if not workspace.feature_store_yaml.is_file():
        door.apply()
    door.materialize(at)
    return door


def answer(workspace: Workspace, door: FeatureDoor, service: str, members: Sequence[str | None], at: datetime) -> None:
    """Answer a request of every member at a moment; they are logged as any server does."""
    served = serve_with(workspace, FakeScorer(sorted(TITLES)))
    model = served.resolved.model.model_copy(update={"features": service})
    served = replace(served, resolved=served.resolved.model_copy(update={"model": model}))
    facts = FactReader(Tables(workspace), door)
    log = RequestLog(workspace.database_url)
    # A request comes one microsecond after its clock.
    recommender = Recommender(ModelHandle(served), facts, FixedClock(at - timedelta(microseconds=1)), log.write)
    for member in members:
        recommender.recommend(RecommendRequest(canvas="home", member_id=member, k=1))


def services_of(door: FeatureDoor) -> list[str]:
    """Return every registered feature service."""
    return list(door.apply().services)


HOUR, DAY = timedelta(hours=1), timedelta(days=1)
