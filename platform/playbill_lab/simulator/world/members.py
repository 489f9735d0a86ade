"""The members of a simulated service: where they live, when they joined, how active they are.

Axis letters: M members, C countries, L languages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill_lab.simulator.world.canvases import DEVICES
from playbill_lab.simulator.world.catalogue import Catalogue
from playbill_lab.simulator.world.launches import DAY_US, microseconds, moments
from playbill_lab.simulator.world.reference import activity_at
from playbill_lab.simulator.world.spec import WorldSpec

_TENURE_DAYS = 400.0
_LONGEST_TENURE_DAYS = 1500.0
_WAITING_DAYS = 12.0
_DEVICE_SHARES = (6.0, 3.0, 2.0, 1.0)
_OTHER_LANGUAGE = 0.2


@dataclass(frozen=True, eq=False)
class Members:
    """Members as arrays; row m of each is the same one.

    Attributes:
        country: [M] int16, place in the spec's countries.
        language: [M] int16, place in the world's languages.
        kids: [M] bool, a kids' profile.
        joined: [M] int64, microseconds since 1970.
        activity: [M] mean sessions a day, mean `sessions_per_day`, spread as in MovieLens-1M.
        device: [M, devices] share of each device in the member's sessions.
        speaks: [M, L] bool, the catalogue languages that need no subtitles.
    """

    country: NDArray[np.int16]
    language: NDArray[np.int16]
    kids: NDArray[np.bool_]
    joined: NDArray[np.int64]
    activity: NDArray[np.float64]
    device: NDArray[np.float64]
    speaks: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.country)


def world_languages(spec: WorldSpec, catalogue: Catalogue) -> tuple[str, ...]:
    """Return the catalogue's languages, then those that only members speak."""
    spoken = (code for country in spec.countries for code in country.languages)
    return tuple(dict.fromkeys([*catalogue.languages, *spoken]))


def draw_members(spec: WorldSpec, catalogue: Catalogue, rng: np.random.Generator) -> Members:
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
    return Members(
        country=country,
        language=language,
        kids=rng.random(count) < spec.kids_share,
        joined=_joined(spec, country, rng),
        activity=spec.sessions_per_day * relative / mean,
        device=rng.dirichlet(_DEVICE_SHARES, size=count),
        speaks=spoken[country] | (np.array(catalogue.languages)[None, :] == np.array(languages)[language][:, None]),
    )


def members_frame(spec: WorldSpec, catalogue: Catalogue, members: Members, ids: pl.Series) -> pl.DataFrame:
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


def _joined(spec: WorldSpec, country: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int64]:
    count, start, length = len(country), microseconds(spec.start), spec.days * DAY_US
    opening = np.array([max(0, row.launch_day) for row in spec.countries])[country]
    before = np.minimum(rng.exponential(_TENURE_DAYS, count), _LONGEST_TENURE_DAYS)
    during = rng.uniform(0, spec.days, count)
    after_opening = opening + np.minimum(
        rng.exponential(_WAITING_DAYS, count), (spec.days - opening) * rng.random(count)
    )
    day = np.where(opening > 0, after_opening, np.where(rng.random(count) < spec.joining_share, during, -before))
    return start + np.minimum((day * DAY_US).astype(np.int64), length - 1)


def device_of(members: Members, member: NDArray[np.integer], luck: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return the device [N] of a session of each member, chosen by a number in [0, 1)."""
    edges = np.cumsum(members.device[member], axis=1)
    device: NDArray[np.int8] = np.minimum((luck[:, None] >= edges).sum(axis=1), len(DEVICES) - 1).astype(np.int8)
    return device
