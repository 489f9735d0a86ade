"""What all members did, counted up to a moment: plays by title and country, and thumbs.

Axis letters: T titles, P events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache

import numpy as np
import polars as pl

from playbill.arrays import Floats64, Ints64, Mask
from playbill.clock import EPOCH, to_microseconds
from playbill.ranking.catalogue import Catalogue, Columns, Counts
from playbill.schema import UNKNOWN_COUNTRY

WEEK = timedelta(days=7)
LIKED_SHARE = 0.7
"""Thumbs that point up, of a title that is acclaimed: by the lower end of what its thumbs allow to be said."""
CONFIDENCE = 1.2816  # normal quantile of that lower end: it is too high for one title in ten

PLAY_COLUMNS = ("event_at", "title_id", "action", "country")
"""Columns of the log that plays and thumbs are counted from."""

_DAY_US = 86_400_000_000
_DAYS_KEPT = 64
_COUNTRIES_KEPT = 512


class TitleCounts:
    """Events of titles in order of time: 16 bytes each. Safe to share between threads.

    Counts up to a day's start are kept, so a later request counts only what came after it: time O(T + events of a
    day), whatever the length of the log. Moments [P] rise.
    """

    def __init__(self, titles: int, moments: Ints64, columns: Columns) -> None:
        self.titles, self._moments, self._columns = titles, moments, columns
        self._before_day = lru_cache(maxsize=_DAYS_KEPT)(self._count_before_day)

    def __len__(self) -> int:
        return len(self._moments)

    def before(self, at: datetime) -> Counts:
        """Return the events of each title strictly before a moment, [T]."""
        now = to_microseconds(at)
        day = now // _DAY_US
        return self._before_day(day) + self._count(day * _DAY_US, now)

    def between(self, since: datetime, until: datetime) -> Counts:
        """Return the events of each title with since <= event_at < until, [T]."""
        return self.before(until) - self.before(since)

    def _count_before_day(self, day: int) -> Counts:
        counts = self._count(np.iinfo(np.int64).min, day * _DAY_US)
        counts.flags.writeable = False
        return counts

    def _count(self, since_us: int, until_us: int) -> Counts:
        first = np.searchsorted(self._moments, since_us, side="left")
        last = np.searchsorted(self._moments, until_us, side="left")
        return np.bincount(self._columns[first:last], minlength=self.titles).astype(np.int64)


@dataclass(frozen=True)
class _Counted:
    plays: TitleCounts
    up: TitleCounts
    down: TitleCounts
    countries: Mapping[str, int]
    by_country: pl.DataFrame  # event_at, column and code of each play


class PlayLog:
    """Every play of the tables, and every thumb. Safe to share between threads.

    Args:
        catalogue: Whose columns count; events of other titles are left out.
        interactions: Rows with `event_at`, `action` and `title_id`, and for plays by country `country`; or what reads
            them, called once, when they are first asked for: many lists need none of them.
    """

    def __init__(self, catalogue: Catalogue, interactions: pl.DataFrame | Callable[[], pl.DataFrame]) -> None:
        self.catalogue, self.titles = catalogue, len(catalogue)
        self._interactions = interactions
        self._in_country = lru_cache(maxsize=_COUNTRIES_KEPT)(self._of_country)
        self._acclaimed = lru_cache(maxsize=_DAYS_KEPT)(self._find_acclaimed)
        if isinstance(interactions, pl.DataFrame):
            self.load()

    def load(self) -> None:
        """Read the events now, so that no request waits for them."""
        _ = self._events

    @cached_property
    def _events(self) -> _Counted:
        source = self._interactions
        interactions = source if isinstance(source, pl.DataFrame) else source()
        self._interactions = interactions.clear()
        order = pl.DataFrame({"title_id": pl.Series(self.catalogue.title_ids, dtype=pl.String)}).with_row_index(
            "column"
        )
        country = pl.col("country").cast(pl.String) if "country" in interactions.columns else pl.lit(None, pl.String)
        events = interactions.lazy().filter(pl.col("action").is_in(["play", "thumbs_up", "thumbs_down"]))
        events = events.select("event_at", "title_id", "action", country=country)
        rows = events.join(order.lazy(), on="title_id", how="inner").sort("event_at").collect()
        plays = rows.filter(pl.col("action") == "play")
        up, down = (self._counts(rows.filter(pl.col("action") == thumb)) for thumb in ("thumbs_up", "thumbs_down"))
        countries = {name: code for code, name in enumerate(plays["country"].unique()) if name}
        codes = plays["country"].replace_strict(countries, default=-1, return_dtype=pl.Int32)
        return _Counted(self._counts(plays), up, down, countries, plays.select("event_at", "column", code=codes))

    def __len__(self) -> int:
        return len(self._events.plays)

    def before(self, at: datetime, country: str | None = None) -> Counts:
        """Return plays of each title strictly before a moment, in a country or, for None and `ZZ`, everywhere, [T]."""
        return self._where(country).before(at)

    def between(self, since: datetime, until: datetime, country: str | None = None) -> Counts:
        """Return plays of each title with since <= event_at < until, in a country or everywhere, [T]."""
        return self._where(country).between(since, until)

    def of_week(self, at: datetime, country: str | None = None) -> Counts:
        """Return plays of each title in the seven days up to a moment, in a country or everywhere, [T]."""
        return self.between(at - WEEK, at, country)

    def acclaimed(self, at: datetime) -> Mask:
        """Mark titles that those who gave a thumb liked, as of the start of the moment's UTC day, [T].

        A title is acclaimed where the lower end of the Wilson score interval of its share of thumbs up (Wilson 1927)
        is at least `LIKED_SHARE`, so a few thumbs are never enough.
        """
        return self._acclaimed(to_microseconds(at) // _DAY_US)

    def _find_acclaimed(self, day: int) -> Mask:
        start = EPOCH + timedelta(days=day)
        up, down = self._events.up.before(start), self._events.down.before(start)
        mask: Mask = wilson_lower(up, up + down) >= LIKED_SHARE
        mask.flags.writeable = False
        return mask

    def _where(self, country: str | None) -> TitleCounts:
        return self._events.plays if country in (None, UNKNOWN_COUNTRY) else self._in_country(country)

    def _of_country(self, country: str) -> TitleCounts:
        return self._counts(self._events.by_country.filter(pl.col("code") == self._events.countries.get(country, -2)))

    def _counts(self, rows: pl.DataFrame) -> TitleCounts:
        moments = rows["event_at"].dt.epoch("us").to_numpy().astype(np.int64)
        return TitleCounts(self.titles, moments, rows["column"].to_numpy().astype(np.int64))


def wilson_lower(up: Counts, total: Counts) -> Floats64:
    """Return the lower end of the Wilson score interval of up / total, one-sided at `CONFIDENCE`; 0 without any."""
    n = np.maximum(total, 1).astype(np.float64)
    share, z2 = up / n, CONFIDENCE**2
    middle = share + z2 / (2 * n)
    spread = CONFIDENCE * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    lower: Floats64 = np.where(total > 0, (middle - spread) / (1 + z2 / n), 0.0)
    return lower
