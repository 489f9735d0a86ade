"""The members of a simulated service (where they live, when they joined, how active they are), and what to fit them to.

That is popularity and activity of MovieLens-1M. Source: F. Maxwell Harper and Joseph A. Konstan (2015), "The MovieLens
Datasets: History and Context", ACM TiiS 5(4), https://doi.org/10.1145/2827872; 1,000,209 ratings of 3,706 titles by
6,040 members with 20 ratings or more each. The constants are computed by `tests/benchmarks/movielens_reference.py FILE`
from its log. Axis letters: M members, C countries, L languages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from numpy.typing import NDArray

from playbill.arrays import AnyFloats, AnyInts, Bools, Floats64, Ints64
from playbill.clock import to_microseconds
from playbill_lab.simulator.world.canvases import DEVICES
from playbill_lab.simulator.world.catalogue import WorldCatalogue
from playbill_lab.simulator.world.launches import DAY_US, moments
from playbill_lab.simulator.world.spec import WorldSpec

_TENURE_DAYS = 400.0
_LONGEST_TENURE_DAYS = 1500.0
_WAITING_DAYS = 12.0
_DEVICE_SHARES = (6.0, 3.0, 2.0, 1.0)
_OTHER_LANGUAGE = 0.2


@dataclass(frozen=True, eq=False)
class MemberArrays:
    """Members as arrays; row m of each is the same one."""

    country: NDArray[np.int16]  # [M] int16, place in the spec's countries
    language: NDArray[np.int16]  # [M] int16, place in the world's languages
    kids: Bools  # [M] bool, a kids' profile
    joined: Ints64  # [M] int64, microseconds since 1970
    activity: Floats64  # [M] mean sessions a day, mean `sessions_per_day`, spread as in MovieLens-1M
    device: Floats64  # [M, devices] share of each device in the member's sessions
    speaks: Bools  # [M, L] bool, the catalogue languages that need no subtitles

    def __len__(self) -> int:
        return len(self.country)


def world_languages(spec: WorldSpec, catalogue: WorldCatalogue) -> tuple[str, ...]:
    """Return the catalogue's languages, then those that only members speak."""
    spoken = (code for country in spec.countries for code in country.languages)
    return tuple(dict.fromkeys([*catalogue.languages, *spoken]))


def draw_members(spec: WorldSpec, catalogue: WorldCatalogue, rng: np.random.Generator) -> MemberArrays:
    """Draw members. Who joins during the run is spread over it, or follows the opening of the country."""
    count, languages = spec.members, world_languages(spec, catalogue)
    shares = np.array([country.members_share for country in spec.countries])
    country = rng.choice(len(spec.countries), size=count, p=shares / shares.sum()).astype(np.int16)
    main = np.array([languages.index(row.languages[0]) for row in spec.countries])
    other = np.array([languages.index(row.languages[-1]) for row in spec.countries])
    language = np.where(rng.random(count) < _OTHER_LANGUAGE, other[country], main[country]).astype(np.int16)
    spoken = np.array([[code in row.languages for code in catalogue.languages] for row in spec.countries])
    relative = activity_at(rng.random(count))
    # A mean over the whole distribution, not over the members drawn, so that one very active member moves nobody else.
    mean = activity_at((np.arange(10_000) + 0.5) / 10_000).mean()
    return MemberArrays(
        country=country,
        language=language,
        kids=rng.random(count) < spec.kids_share,
        joined=_joined(spec, country, rng),
        activity=spec.sessions_per_day * relative / mean,
        device=rng.dirichlet(_DEVICE_SHARES, size=count),
        speaks=spoken[country] | (np.array(catalogue.languages)[None, :] == np.array(languages)[language][:, None]),
    )


def members_frame(spec: WorldSpec, catalogue: WorldCatalogue, members: MemberArrays, ids: pl.Series) -> pl.DataFrame:
    """Return the canonical members."""
    joined = moments(members.joined)
    return pl.DataFrame(
        {
            "member_id": ids,
            "valid_from": joined,
            "recorded_at": joined,
            "country": pl.Series([row.code for row in spec.countries]).gather(members.country),
            "joined_at": joined,
            "language": pl.Series(world_languages(spec, catalogue)).gather(members.language),
            "kids_profile": members.kids,
        }
    )


def _joined(spec: WorldSpec, country: NDArray[np.int16], rng: np.random.Generator) -> Ints64:
    count, start, length = len(country), to_microseconds(spec.start), spec.days * DAY_US
    opening = np.array([max(0, row.launch_day) for row in spec.countries])[country]
    before = np.minimum(rng.exponential(_TENURE_DAYS, count), _LONGEST_TENURE_DAYS)
    during = rng.uniform(0, spec.days, count)
    after_opening = opening + np.minimum(
        rng.exponential(_WAITING_DAYS, count), (spec.days - opening) * rng.random(count)
    )
    day = np.where(opening > 0, after_opening, np.where(rng.random(count) < spec.joining_share, during, -before))
    return start + np.minimum((day * DAY_US).astype(np.int64), length - 1)


def device_of(members: MemberArrays, member: AnyInts, luck: Floats64) -> NDArray[np.int8]:
    """Return the device [N] of a session of each member, chosen by a number in [0, 1)."""
    edges = np.cumsum(members.device[member], axis=1)
    device: NDArray[np.int8] = np.minimum((luck[:, None] >= edges).sum(axis=1), len(DEVICES) - 1).astype(np.int8)
    return device


ACTIVITY_PROBABILITIES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Where the distribution of activity is known."""
POPULARITY_GINI = 0.6336  # Gini coefficient of ratings per title, over titles with one at least
ACTIVITY_MEAN = 165.5975  # Ratings per member
ACTIVITY_MEDIAN = 96.0
ACTIVITY_RELATIVE = (
    *(0.2083, 0.2083, 0.2396, 0.2812, 0.3958, 0.5312, 0.7292, 1.0),
    *(1.3125, 1.8021, 2.6354, 4.1667, 5.7917, 9.4444, 24.1042),
)
"""Ratings of a member at each of `ACTIVITY_PROBABILITIES`, as a multiple of the median."""
POPULARITY_SHARES = (0.4442, 0.2075, 0.1294, 0.0854, 0.0572, 0.0362, 0.0215, 0.0123, 0.0053, 0.0011)
"""Share of all ratings that go to each tenth of the titles, the most popular tenth first."""

Counts = npt.NDArray[Any]


def popularity_gini(counts: Counts) -> float:
    """Return the Gini coefficient of counts above 0: 0 when all are alike, towards 1 when one has everything.

    `sum((2 i - n - 1) x_i) / (n sum(x))` over counts in ascending order, i from 1 to n. Zeros are left out: a log does
    not know titles without a row.

    Raises:
        ValueError: No count is above 0.
    """
    ordered = np.sort(np.asarray(counts, np.float64))
    ordered = ordered[ordered > 0]
    if not ordered.size:
        raise ValueError("no title has a play, so there is no popularity to measure.")
    size = ordered.size
    weights = 2 * np.arange(1, size + 1) - size - 1
    return float(weights @ ordered / (size * ordered.sum()))


def activity_relative(counts: Counts, probabilities: tuple[float, ...] = ACTIVITY_PROBABILITIES) -> Floats64:
    """Return quantiles of counts above 0, as multiples of their median.

    Raises:
        ValueError: No count is above 0.
    """
    kept = np.asarray(counts, np.float64)
    kept = kept[kept > 0]
    if not kept.size:
        raise ValueError("no member has a play, so there is no activity to measure.")
    return np.quantile(kept, probabilities) / np.median(kept)


def activity_at(probabilities: AnyFloats) -> Floats64:
    """Return MovieLens-1M's activity at these probabilities, as multiples of the median: its inverse distribution.

    Between the known quantiles the logarithm is straight, so uniform draws give members like MovieLens' own.
    """
    logs = np.interp(probabilities, ACTIVITY_PROBABILITIES, np.log(ACTIVITY_RELATIVE))
    relative: Floats64 = np.exp(logs)
    return relative


def popularity_shares(counts: Counts, parts: int = 10) -> Floats64:
    """Return the share of all plays that goes to each part of the titles, the most popular part first."""
    ordered = np.sort(np.asarray(counts, np.float64))[::-1]
    ordered = ordered[ordered > 0]
    cumulative = np.concatenate([[0.0], np.cumsum(ordered)])
    edges = np.interp(np.linspace(0, ordered.size, parts + 1), np.arange(ordered.size + 1), cumulative)
    shares: Floats64 = np.diff(edges) / ordered.sum()
    return shares
