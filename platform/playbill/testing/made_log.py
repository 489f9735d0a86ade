"""A small seeded log with every kind of event, for trying what reads the canonical tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from playbill.schema import ACTIONS
from playbill.tables import polars_schema

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 40


def made_log(members: int = 6, events: int = 60, seed: int = 0) -> pl.DataFrame:
    """Return canonical interactions of every action: pages of impressions in rows, and what came of them."""
    rng = np.random.default_rng(seed)
    count = members * events
    seq = np.tile(np.arange(events), members)
    page = seq // 6
    pause = np.where(seq % 6 == 0, rng.exponential(DAYS * 24 * 6 / events, count), rng.exponential(0.2, count))
    hours = pause.reshape(members, events).cumsum(axis=1).ravel()
    shown = (seq % 6 < 3) | (rng.random(count) < 0.1)
    other = rng.choice([action for action in ACTIONS if action != "impression"], count)
    action = np.where(shown, "impression", np.where(rng.random(count) < 0.5, "play", other))
    own = np.repeat(np.arange(members), events)
    title = rng.integers(0, 8, count)
    of_page = ~shown & (rng.random(count) < 0.6)
    title[of_page] = title[np.flatnonzero(of_page) - seq[of_page] % 6 + rng.integers(0, 3, of_page.sum())]
    row = np.where(of_page & (rng.random(count) < 0.5), -1, rng.integers(0, 2, count))
    frame = pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(count)],
            "member_id": [f"m{n}" for n in own],
            "seq": seq,
            "action": action,
            "title_id": [f"t{n}" for n in title],
            "request_id": [
                f"r{member}-{n}" for member, n in zip(np.repeat(np.arange(members), events), page, strict=True)
            ],
            "row_id": [f"row{n}" if n >= 0 else None for n in row],
            "canvas": rng.choice(["home", "search", "coming_soon"], count),
            "progress": rng.choice([0.03, 0.3, 0.95, np.nan], count),
            "duration_s": rng.exponential(600.0, count),
            "position": rng.integers(0, 20, count),
            "session_id": [f"s{n}" for n in page],
            "after_us": (hours * 3.6e9).astype(np.int64),
        }
    ).with_columns(
        event_at=pl.lit(START).dt.cast_time_unit("us") + pl.duration(microseconds="after_us"),
        country=pl.lit("ZZ"),
    )
    full = frame.with_columns(recorded_at=pl.col("event_at"), progress=pl.col("progress").fill_nan(None))
    schema = polars_schema("interactions")
    lacking = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in full.columns]
    return full.with_columns(lacking).select(schema.names()).cast(dict(schema))  # type: ignore[arg-type]


def made_tables() -> dict[str, pl.DataFrame]:
    """Return titles and availability of `made_log`'s titles."""
    names = [f"t{n}" for n in range(8)]
    genres = [["Drama"], ["Comedy", "Drama"], ["Crime"], None] * 2
    launched = pl.lit(START - timedelta(days=5)).dt.cast_time_unit("us")
    return {
        "titles": pl.DataFrame({"title_id": names, "genres": genres}),
        "availability": pl.DataFrame({"title_id": names}).with_columns(
            country=pl.lit("*"), available_from=launched, available_until=pl.lit(None), recorded_at=launched
        ),
    }
