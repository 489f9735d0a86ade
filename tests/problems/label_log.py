"""A seeded log of visits for labels: pages with rows of impressions, and what members did on them.

A visit asks one page: a home page, a list of coming titles, or the results of a search. Plays come from what is shown,
or go on with a title of the member's own few. It has no taste planted: it is for speed and for checking values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from playbill.config import Workspace
from playbill.tables import Tables

START = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 90
GENRES = tuple(f"Genre {letter}" for letter in "ABCDEFGHIJKLMNOPQRST")
SHOWN = 8
PER_ROW = 4
OTHERS = 2.21
"""Events of a visit beside its impressions, on average."""

CANVASES = ("home", "coming_soon", "search")
HEADING = {
    "visit": pl.Int64,
    "offset_us": pl.Int64,
    "action": pl.String,
    "title": pl.Int64,
    "row": pl.Int64,
    "from_page": pl.Boolean,
    "progress": pl.Float32,
}


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
            for name in ("titles", "availability", "members", "interactions"):
                writer.write(name, getattr(self, name))


def label_log(events: int, members: int = 50_000, titles: int = 10_000, seed: int = 0, days: int = DAYS) -> EventLog:
    """Make a log of about `events` events; the same arguments give the same log."""
    rng = np.random.default_rng(seed)
    catalogue = _titles(rng, titles)
    visits = max(1, int(events / (SHOWN + OTHERS)))
    who = _power_law(rng, members, 0.7, visits)
    begin = rng.integers(0, days * 86_400 - 10_000, visits) * 1_000_000
    canvas = rng.choice(len(CANVASES), visits, p=[0.75, 0.1, 0.15])
    happened = pl.concat(_happened(rng, visits, who, canvas, titles))
    frame = _canonical(happened, who, begin, canvas)
    spans = catalogue.select(
        "title_id", pl.lit("*").alias("country"), pl.col("valid_from").alias("available_from"), "recorded_at"
    )
    people = pl.DataFrame({"member_id": _named("m", np.arange(members))}).with_columns(
        pl.lit("ZZ").alias("country"),
        *(pl.lit(START).dt.cast_time_unit("us").alias(name) for name in ("valid_from", "recorded_at", "joined_at")),
    )
    return EventLog(catalogue, spans, people, frame)


def _titles(rng: np.random.Generator, titles: int) -> pl.DataFrame:
    pairs = rng.integers(len(GENRES), size=(titles, 2))
    released = pl.lit(START - timedelta(days=400)).dt.cast_time_unit("us")
    return pl.DataFrame(
        {
            "title_id": _named("t", np.arange(titles)),
            "name": _named("Title ", np.arange(titles)),
            "genres": [sorted({GENRES[first], GENRES[second]}) for first, second in pairs],
        }
    ).with_columns(
        pl.lit("film").alias("kind"),
        *(released.alias(name) for name in ("release_date", "valid_from", "recorded_at")),
    )


def _power_law(rng: np.random.Generator, size: int, exponent: float, count: int) -> np.ndarray:
    """Return `count` numbers below `size`, the small ones most often."""
    edges = np.cumsum((np.arange(size) + 5.0) ** -exponent)
    return np.searchsorted(edges, rng.random(count) * edges[-1], side="right").clip(0, size - 1)


def _named(prefix: str, numbers: np.ndarray) -> pl.Series:
    return pl.select(pl.lit(prefix) + pl.Series(numbers).cast(pl.String)).to_series()


def _happened(
    rng: np.random.Generator, visits: int, who: np.ndarray, canvas: np.ndarray, titles: int
) -> Iterator[pl.DataFrame]:
    shown = _power_law(rng, titles, 0.9, visits * SHOWN).reshape(visits, SHOWN)
    every, place = np.repeat(np.arange(visits), SHOWN), np.tile(np.arange(SHOWN), visits)
    yield _events(every, place * 2_000_000, "impression", shown.ravel(), place // PER_ROW, True)
    searched = np.nonzero(canvas == 2)[0]
    yield _events(searched, np.full(len(searched), -1_000_000), "search", -1, -1, True)
    plays = np.repeat(np.arange(visits), rng.poisson(1.2, visits))
    place = rng.integers(0, SHOWN, len(plays))
    fresh = rng.random(len(plays)) < 0.6
    own = (who[plays] * 7 + rng.integers(0, 4, len(plays)) * 131) % titles
    title = np.where(fresh, shown[plays, place], own)
    row = np.where(fresh & (rng.random(len(plays)) < 0.7), place // PER_ROW, -1)
    progress = rng.beta(0.8, 0.6, len(plays)).astype(np.float32)
    at = (rng.exponential(1_500, len(plays)) * 1_000_000).astype(np.int64)
    unknown = rng.random(len(plays)) < 0.03
    played = _events(plays, at, "play", title, row, fresh, np.where(unknown, np.nan, progress))
    yield played
    for action, share, after in (("thumbs_up", 0.12, 5_400), ("thumbs_down", 0.04, 3_600), ("abandon", 0.1, 900)):
        mine = np.nonzero(rng.random(len(plays)) < share)[0]
        yield _events(plays[mine], at[mine] + after * 1_000_000, action, title[mine], -1, False)
    for action, share in (("my_list_add", 0.02), ("remind_me", 0.01), ("details_view", 0.05)):
        cells = np.nonzero(rng.random(visits * SHOWN) < share)[0]
        cells = cells[canvas[cells // SHOWN] == 1] if action == "remind_me" else cells
        yield _events(cells // SHOWN, 20_000_000, action, shown.ravel()[cells], -1, True)


def _events(
    visit: np.ndarray,
    offset: np.ndarray | int,
    action: str,
    title: np.ndarray | int,
    row: np.ndarray | int,
    from_page: np.ndarray | bool,
    progress: np.ndarray | float = np.nan,
) -> pl.DataFrame:
    count = len(visit)
    columns = (visit, offset, [action] * count, title, row, from_page, progress)
    filled = [column if isinstance(column, list) else np.broadcast_to(column, count) for column in columns]
    return pl.DataFrame(dict(zip(HEADING, filled, strict=True)), schema=HEADING)


def _canonical(happened: pl.DataFrame, who: np.ndarray, begin: np.ndarray, canvas: np.ndarray) -> pl.DataFrame:
    visit = happened["visit"].to_numpy()
    start = pl.lit(START).dt.cast_time_unit("us")
    numbered = happened.with_columns(
        member=pl.Series(who[visit], dtype=pl.Int64),
        at_us=pl.Series(begin[visit]) + pl.col("offset_us"),
        canvas=pl.Series(CANVASES).gather(canvas[visit]),
    ).sort("member", "at_us", maintain_order=True)
    # Members sort by name in the log: m10 before m2.
    frame = numbered.select(
        pl.format("e{}", pl.int_range(pl.len())).alias("event_id"),
        pl.format("m{}", "member").alias("member_id"),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("seq"),
        (start + pl.duration(microseconds="at_us")).alias("event_at"),
        (start + pl.duration(microseconds="at_us") + _lag()).alias("recorded_at"),
        "action",
        pl.when(pl.col("title") >= 0).then(pl.format("t{}", "title")).alias("title_id"),
        "canvas",
        pl.when("from_page").then(pl.format("r{}", "visit")).alias("request_id"),
        pl.when(pl.col("row") >= 0).then(pl.format("row_{}", "row")).alias("row_id"),
        pl.lit("ZZ").alias("country"),
        pl.col("progress").fill_nan(None),
    )
    return frame.sort("member_id", "seq")


def _lag() -> pl.Expr:
    watched = pl.col("progress").fill_nan(0.0) * timedelta(hours=2) / timedelta(microseconds=1)
    return pl.duration(
        microseconds=pl.when(pl.col("action") == "play").then(watched).otherwise(1_000_000).cast(pl.Int64)
    )
