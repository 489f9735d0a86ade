"""When and where titles can be watched: the back catalogue, weekly launches with their delays, windows that close.

Axis letters: T titles, C countries. Moments are microseconds since 1970, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from playbill.arrays import Ints64
from playbill.clock import to_microseconds
from playbill.errors import DefinitionError, Problem
from playbill.tables import TIMESTAMP
from playbill_lab.simulator.world.catalogue import WorldCatalogue
from playbill_lab.simulator.world.spec import WorldSpec

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
NEVER = np.int64(2**62)
ANNOUNCED_DAYS = 28  # Metadata of a title is known this long before its first launch
LAUNCH_HOUR = 8
_MOST_LAUNCHES = 0.4
_UPCOMING_WEEKS = 4
_UPCOMING_SHARE = 0.08
_DELAYED, _CLOSING = 0.25, 0.06


@dataclass(frozen=True, eq=False)
class AvailabilityWindows:
    """Where and when each title can be watched."""

    opens: Ints64  # [T, C] first moment; NEVER where it is not licensed
    closes: Ints64  # [T, C] first moment after the window; NEVER = open-ended
    announced: Ints64  # [T] moment from which the title is known at all


def draw_windows(spec: WorldSpec, catalogue: WorldCatalogue, rng: np.random.Generator) -> AvailabilityWindows:
    """Draw launches: most titles long before the run, `launches_per_week` on its Thursdays, some after its end."""
    count, start = len(catalogue), to_microseconds(spec.start)
    first = start - (rng.uniform(30, 1500, count) * DAY_US).astype(np.int64)
    during, upcoming = _launch_counts(spec, count)
    chosen = rng.permutation(count)
    first[chosen[:during]] = start + _thursdays(spec, during, rng)
    after = rng.integers(0, _UPCOMING_WEEKS * 7, upcoming) * DAY_US + LAUNCH_HOUR * HOUR_US
    first[chosen[during : during + upcoming]] = to_microseconds(spec.end) + after
    opens = _by_country(spec, catalogue, catalogue.franchises.in_order(first), rng)
    closing = rng.random(opens.shape) < _CLOSING
    until = start + (rng.uniform(0.3, 1.5, opens.shape) * spec.days * DAY_US).astype(np.int64)
    closes = np.where(closing & (opens < start) & (opens != NEVER), until, NEVER)
    return _announced(spec, opens, closes)


def read_windows(spec: WorldSpec, catalogue: WorldCatalogue) -> AvailabilityWindows:
    """Read the first window of every title and country from a real catalogue's own availability.

    Raises:
        DefinitionError: No title can be watched in some country during the run, so its members would see nothing.
    """
    if catalogue.availability is None:
        raise ValueError("the catalogue brings no availability")
    codes = [country.code for country in spec.countries]
    opens = np.full((len(catalogue), len(codes)), NEVER, np.int64)
    closes = opens.copy()
    spans = catalogue.availability.sort("available_from").unique(["title_id", "country"], keep="first")
    number = pl.DataFrame({"title_id": catalogue.titles["title_id"]}).with_row_index("title")
    spans = spans.join(number, on="title_id", how="inner").sort("title")
    for place, code in enumerate(codes):
        for wanted in ("*", code):  # a country's own span is more exact than one for every country
            rows = spans.filter(pl.col("country") == wanted)
            titles = rows["title"].to_numpy()
            opens[titles, place] = rows["available_from"].dt.epoch("us").to_numpy()
            closes[titles, place] = rows["available_until"].dt.epoch("us").fill_null(int(NEVER)).to_numpy()
    windows = _announced(spec, opens, closes)
    problems = [
        Problem(f"countries.{place}.code", f"no title of the catalogue can be watched in '{codes[place]}'.")
        for place in np.flatnonzero(~(windows.opens < to_microseconds(spec.end)).any(axis=0))
    ]
    if problems:
        raise DefinitionError("the simulated world", problems)
    return windows


def availability_frame(windows: AvailabilityWindows, title_ids: pl.Series, countries: list[str]) -> pl.DataFrame:
    """Return the canonical availability of every licensed title and country."""
    title, country = np.nonzero(windows.opens != NEVER)
    closes = windows.closes[title, country]
    return pl.DataFrame(
        {
            "title_id": title_ids.gather(title),
            "country": pl.Series(countries, dtype=pl.String).gather(country),
            "available_from": moments(windows.opens[title, country]),
            "available_until": moments(np.where(closes == NEVER, 0, closes)),
            "recorded_at": moments(windows.announced[title]),
        }
    ).with_columns(
        available_until=pl.when(pl.col("available_until").dt.epoch("us") == 0).then(None).otherwise("available_until")
    )


def moments(values: Ints64) -> pl.Series:
    """Return microseconds as canonical timestamps."""
    return pl.Series(np.asarray(values, np.int64)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(TIMESTAMP)


def _launch_counts(spec: WorldSpec, count: int) -> tuple[int, int]:
    during = min(round(spec.launches_per_week * spec.days / 7), int(_MOST_LAUNCHES * count))
    upcoming = min(round(spec.launches_per_week * _UPCOMING_WEEKS), int(_UPCOMING_SHARE * count))
    return during, upcoming


def _thursdays(spec: WorldSpec, count: int, rng: np.random.Generator) -> Ints64:
    """Return launches after the start: on Thursdays at 08:00 UTC, or on any day of a run without one."""
    days = np.arange(spec.days)
    weekday = (spec.start.weekday() + days) % 7
    chosen = days[weekday == 3] if (weekday == 3).any() else days
    return rng.choice(chosen, count).astype(np.int64) * DAY_US + LAUNCH_HOUR * HOUR_US


def _by_country(spec: WorldSpec, catalogue: WorldCatalogue, first: Ints64, rng: np.random.Generator) -> Ints64:
    count = len(catalogue)
    opens = np.full((count, len(spec.countries)), NEVER, np.int64)
    home = rng.integers(len(spec.countries), size=count)
    delay = np.where(rng.random(opens.shape) < _DELAYED, rng.integers(7, 31, opens.shape), 0) * DAY_US
    chance = rng.random(opens.shape)
    for place, country in enumerate(spec.countries):
        own = np.isin(np.array(catalogue.languages)[catalogue.language], country.languages[:1])
        licensed = (chance[:, place] < country.catalogue_share) | own | (home == place)
        service = to_microseconds(spec.start) + max(0, country.launch_day) * DAY_US
        earliest = service if country.launch_day > 0 else -NEVER
        opens[licensed, place] = np.maximum(first + delay[:, place], earliest)[licensed]
    return opens


def _announced(spec: WorldSpec, opens: Ints64, closes: Ints64) -> AvailabilityWindows:
    known = opens.min(axis=1) - ANNOUNCED_DAYS * DAY_US
    return AvailabilityWindows(opens, closes, np.minimum(known, to_microseconds(spec.end) - DAY_US))
