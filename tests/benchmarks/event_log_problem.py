"""A seeded event log of any size: bursty sessions over a year, power-law titles and countries, every action.

It has no taste planted: it is for measuring how long things take and for checking counts, not for learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from playbill.config import Workspace
from playbill.tables import Tables

START = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 365
GENRES = tuple(f"Genre {letter}" for letter in "ABCDEFGHIJKLMNOPQRST")
SINGLE = {
    "play": 0.50,
    "details_view": 0.14,
    "abandon": 0.10,
    "my_list_add": 0.06,
    "search": 0.05,
    "thumbs_up": 0.05,
    "trailer_view": 0.05,
    "thumbs_down": 0.02,
    "remind_me": 0.02,
    "my_list_remove": 0.01,
}
SLATE, SLATE_SHARE = 4, 0.15
STEPS_PER_SESSION = 8
EVENTS_PER_STEP = 1 - SLATE_SHARE + SLATE_SHARE * SLATE
BATCH = 1_000_000


@dataclass(frozen=True)
class EventLog:
    """The four canonical tables."""

    titles: pl.DataFrame
    availability: pl.DataFrame
    members: pl.DataFrame
    interactions: pl.DataFrame

    def write(self, workspace: Workspace) -> None:
        """Publish the tables as a workspace's own."""
        with Tables(workspace).replace() as writer:
            writer.write("titles", self.titles)
            writer.write("availability", self.availability)
            writer.write("members", self.members)
            for start in range(0, self.interactions.height, BATCH):
                writer.write("interactions", self.interactions.slice(start, BATCH))


def event_log(
    events: int, members: int = 100_000, titles: int = 20_000, countries: int = 200, seed: int = 0, days: int = DAYS
) -> EventLog:
    """Make a log of about `events` events; the same arguments give the same log."""
    rng = np.random.default_rng(seed)
    catalogue = _titles(rng, titles)
    spans = catalogue.select(
        "title_id", pl.lit("*").alias("country"), pl.col("valid_from").alias("available_from"), "recorded_at"
    )
    home = _power_law(rng, countries, 1.1, members)
    people = pl.DataFrame({"member_id": _named("m", np.arange(members)), "country": _named("C", home)}).with_columns(
        pl.lit(START).dt.cast_time_unit("us").alias(name) for name in ("valid_from", "recorded_at", "joined_at")
    )
    return EventLog(catalogue, spans, people, _interactions(rng, events, members, titles, home, days))


def _titles(rng: np.random.Generator, titles: int) -> pl.DataFrame:
    first = rng.integers(len(GENRES), size=titles)
    second = rng.integers(len(GENRES), size=titles)
    released = START - timedelta(days=400)
    return pl.DataFrame(
        {
            "title_id": _named("t", np.arange(titles)),
            "name": _named("Title ", np.arange(titles)),
            "genres": [[GENRES[a], GENRES[b]] if a != b else [GENRES[a]] for a, b in zip(first, second, strict=True)],
        }
    ).with_columns(
        pl.lit("film").alias("kind"),
        *(pl.lit(released).dt.cast_time_unit("us").alias(name) for name in ("release_date", "valid_from")),
        pl.lit(released).dt.cast_time_unit("us").alias("recorded_at"),
    )


def _interactions(
    rng: np.random.Generator, events: int, members: int, titles: int, home: np.ndarray, days: int
) -> pl.DataFrame:
    steps = max(1, int(events / EVENTS_PER_STEP))
    sessions = max(1, steps // STEPS_PER_SESSION)
    owner = _power_law(rng, members, 0.7, sessions)
    began = rng.integers(0, days * 86_400 - 7_200, sessions) * 1_000_000
    session = np.sort(rng.integers(0, sessions, steps))
    pause = (rng.exponential(150.0, steps) * 1_000_000).astype(np.int64)
    new = np.r_[True, session[1:] != session[:-1]]
    run = np.cumsum(pause)
    offset = run - run[np.flatnonzero(new)][np.cumsum(new) - 1]
    at = began[session] + offset
    slate = rng.random(steps) < SLATE_SHARE
    repeated = np.repeat(np.arange(steps), np.where(slate, SLATE, 1))
    at, member = np.minimum(at[repeated], days * 86_400 * 1_000_000 - 1), owner[session[repeated]]
    count = len(repeated)
    choice = rng.choice(len(SINGLE), steps, p=list(SINGLE.values()))
    action = np.where(slate, len(SINGLE), choice)[repeated]
    order = np.lexsort([at, member])
    member, at, action = member[order], at[order], action[order]
    names = pl.Series([*SINGLE, "impression"])
    frame = pl.DataFrame(
        {
            "event_id": _named("e", np.arange(count)),
            "member_id": _named("m", member),
            "seq": np.arange(count),
            "action": names.gather(action),
            "title_id": _named("t", _power_law(rng, titles, 0.9, count)),
            "country": _named("C", home[member]),
            "progress": rng.beta(2, 1, count).astype(np.float32),
            "event_at": at,
            "lag": (rng.exponential(5.0, count) * 1_000_000).astype(np.int64),
        }
    )
    moment = pl.lit(START).dt.cast_time_unit("us") + pl.duration(microseconds="event_at")
    return frame.select(
        "event_id",
        "member_id",
        "seq",
        moment.alias("event_at"),
        (moment + pl.duration(microseconds="lag")).alias("recorded_at"),
        "action",
        pl.when(pl.col("action") != "search").then("title_id").alias("title_id"),
        pl.when(pl.col("action") == "play").then("progress").alias("progress"),
        pl.lit("home").alias("canvas"),
        "country",
    )


def _power_law(rng: np.random.Generator, size: int, exponent: float, count: int) -> np.ndarray:
    """Return `count` numbers below `size`, the small ones most often."""
    weight = (np.arange(size) + 5.0) ** -exponent
    edges = np.cumsum(weight)
    return np.searchsorted(edges, rng.random(count) * edges[-1], side="right").clip(0, size - 1)


def _named(prefix: str, numbers: np.ndarray) -> pl.Series:
    return pl.select(pl.lit(prefix) + pl.Series(numbers).cast(pl.String)).to_series()
