"""Policies that answer when the model cannot: by plays, from the tables, strictly before the request.

A policy is a function `policy(plays, at) -> scores`, registered in `playbill.specs.FALLBACKS` by its name.
Axis letters: T titles, P plays.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
import polars as pl

from playbill.ranking.blend import Scores
from playbill.ranking.candidates import Catalogue, Columns, Counts, Moments, to_microseconds
from playbill.specs import FALLBACKS

WEEK = timedelta(days=7)
_DAY_US = 86_400_000_000
_DAYS_KEPT = 64


class PlayLog:
    """Every play of the tables in order of time: 16 bytes each. Safe to share between threads.

    Counts up to a day's start are kept, so a later request counts only what came after it: time O(T + plays of a
    day), whatever the length of the log.

    Args:
        catalogue: Whose columns count; plays of other titles are left out.
        interactions: Rows with `event_at`, `action` and `title_id`.
    """

    def __init__(self, catalogue: Catalogue, interactions: pl.DataFrame) -> None:
        self.titles = len(catalogue)
        order = pl.DataFrame({"title_id": pl.Series(catalogue.title_ids, dtype=pl.String)}).with_row_index("column")
        plays = interactions.lazy().filter(pl.col("action") == "play").select("event_at", "title_id")
        rows = plays.join(order.lazy(), on="title_id", how="inner").sort("event_at").collect()
        self._moments: Moments = rows["event_at"].dt.epoch("us").to_numpy().astype(np.int64)
        self._columns: Columns = rows["column"].to_numpy().astype(np.int64)
        self._before_day = lru_cache(maxsize=_DAYS_KEPT)(self._count_before_day)

    def __len__(self) -> int:
        return len(self._moments)

    def before(self, at: datetime) -> Counts:
        """Return plays of each title strictly before a moment, [T]."""
        now = to_microseconds(at)
        day = now // _DAY_US
        return self._before_day(day) + self._count(day * _DAY_US, now)

    def between(self, since: datetime, until: datetime) -> Counts:
        """Return plays of each title with since <= event_at < until, [T]."""
        return self.before(until) - self.before(since)

    def _count_before_day(self, day: int) -> Counts:
        counts = self._count(np.iinfo(np.int64).min, day * _DAY_US)
        counts.flags.writeable = False
        return counts

    def _count(self, since_us: int, until_us: int) -> Counts:
        first = np.searchsorted(self._moments, since_us, side="left")
        last = np.searchsorted(self._moments, until_us, side="left")
        return np.bincount(self._columns[first:last], minlength=self.titles).astype(np.int64)


def popular(plays: PlayLog, at: datetime) -> Scores:
    """Score by plays strictly before `at`, [T]."""
    return plays.before(at).astype(np.float64)


def popular_7d(plays: PlayLog, at: datetime) -> Scores:
    """Score by plays in [at - 7 days, at); ties, and weeks without a play, by all plays before `at`.

    Returns:
        [T] plays of the week plus the all-time share in [0, 1), which only breaks ties.
    """
    total = plays.before(at).astype(np.float64)
    scores: Scores = plays.between(at - WEEK, at) + total / (total.max(initial=0.0) + 1.0)
    return scores


def fallback_scores(policy: str, plays: PlayLog, at: datetime) -> Scores:
    """Score every title by the policy registered under a name, [T].

    Raises:
        UnknownNameError: No policy has the name.
    """
    scores: Scores = FALLBACKS[policy].load()(plays, at)
    return scores
