"""Plays whose outcome follows a law that can be written down: what is right to expect of each at any age."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.definitions.specs import LabelSpec, RewardSpec

START = datetime(2024, 1, 1, tzinfo=UTC)
WINDOW = timedelta(days=7)
MOMENT = pl.Datetime("us", "UTC")

LIKED = LabelSpec.model_validate({"name": "liked", "version": 1, "from": {"action": "thumbs_up"}})
REWARD = RewardSpec.model_validate(
    {"name": "worth", "version": 1, "terms": {"liked": {"weight": 1.0, "within": "7d"}}, "delayed": ["liked"]}
)
LABELS = {"liked": LIKED}


@dataclass(frozen=True)
class DelayedWorld:
    """A log in which a play of title t gets a thumb with chance `chance[t]`, at an age that is even over the window.

    Every play stands alone: its member plays once.
    """

    log: pl.DataFrame
    outcomes: pl.DataFrame
    chance: NDArray[np.float64]
    """[T]"""
    title: NDArray[np.int64]
    """[n] title of play n, whose event is `play-n`."""
    liked_after: NDArray[np.float64]
    """[n] days, inf where it never was."""

    @classmethod
    def make(cls, plays: int = 6_000, days: float = 40.0, seed: int = 1) -> DelayedWorld:
        rng = np.random.default_rng(seed)
        chance = np.array([0.1, 0.3, 0.6, 0.9])
        title = rng.integers(0, len(chance), plays)
        began = np.sort(rng.uniform(0, days, plays))
        after = np.where(rng.random(plays) < chance[title], rng.uniform(0, 7, plays), np.inf)
        names = pl.DataFrame({"play": np.arange(plays), "title": title, "began": began, "after": after})
        first = names.select(_event("play", 0, pl.col("began")))
        second = names.filter(pl.col("after").is_finite()).select(
            _event("thumbs_up", 1, pl.col("began") + pl.col("after"))
        )
        log = pl.concat([first, second]).sort("member_id", "seq")
        thumbs = log.filter(pl.col("action") == "thumbs_up")
        outcomes = thumbs.select("event_id", liked=pl.lit(1.0, pl.Float32))
        return cls(log, outcomes, chance, title, after)

    def expected(self, age_days: float) -> NDArray[np.float64]:
        """Return [n] the exact chance that each play is liked in the window, given what was seen by an age."""
        chance = self.chance[self.title]
        share = age_days / 7
        return np.where(self.liked_after < age_days, 1.0, chance * (1 - share) / (1 - chance * share))


def _event(action: str, seq: int, days: pl.Expr) -> list[pl.Expr]:
    moment = (pl.lit(START).cast(MOMENT) + (days * 86_400_000_000).cast(pl.Int64).cast(pl.Duration("us"))).cast(MOMENT)
    return [
        pl.format(f"{action}-{{}}", "play").alias("event_id"),
        pl.format("m{}", "play").alias("member_id"),
        pl.lit(seq, pl.Int64).alias("seq"),
        moment.alias("event_at"),
        moment.alias("recorded_at"),
        pl.lit(action).alias("action"),
        pl.format("t{}", "title").alias("title_id"),
        pl.lit("home").alias("canvas"),
        pl.lit(0.5, pl.Float32).alias("progress"),
    ]
