"""What is true in a world and no policy knows: tastes, vectors, appeal, quality, launches.

Axis letters: M members, T titles, F factors, G genres, C countries, L languages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from playbill_lab.simulator.world.catalogue import Catalogue

Floats = NDArray[np.float32]

BAIT_SHARE = 0.09
_BAIT_APPEAL, _BAIT_QUALITY = 1.8, -1.7
_GENRE_PART, _LANGUAGE_PART, _OWN_PART = 0.5, 0.12, 0.38
_HIT_SHARE = 0.02
_KIN_PART = 0.85
_HIT_PULL = 1.5


@dataclass(frozen=True, eq=False)
class Truth:
    """The hidden side of titles and members.

    Attributes:
        taste: [M, F] of members; `taste @ vector.T` is their match with titles, of variance about 1.
        vector: [T, F] of titles.
        genre_vector: [G, F] around which tastes and intents lie.
        genre_weight: [M, G] how much of each genre is in a member's taste; sums to 1.
        appeal: [T] what makes members click.
        quality: [T] what makes members glad.
        bait: [T] titles of much appeal and little quality.
        pull: [T] popularity beyond taste, heavy-tailed in e^pull.
        buzz: [T] log odds added on the day of launch.
        half_life_days: [T] of the buzz.
        activity: [M] mean sessions a day.
        taste_alone: [M, F] of who sits at the member's other devices than a TV; None where that is nobody else.
    """

    taste: Floats
    vector: Floats
    genre_vector: Floats
    genre_weight: Floats
    appeal: Floats
    quality: Floats
    bait: NDArray[np.bool_]
    pull: Floats
    buzz: Floats
    half_life_days: Floats
    activity: Floats
    taste_alone: Floats | None = None


@dataclass(frozen=True, eq=False)
class TitleTruth:
    """The hidden side of titles; see `Truth`."""

    vector: Floats
    genre_vector: Floats
    appeal: Floats
    quality: Floats
    bait: NDArray[np.bool_]
    pull: Floats
    buzz: Floats
    half_life_days: Floats


def draw_titles(catalogue: Catalogue, factors: int, rng: np.random.Generator) -> TitleTruth:
    """Draw the hidden side of titles.

    A vector is the mean of its genres' vectors, its language's, and a part of its own: metadata tells a part of
    what members will like. Quality hardly follows appeal (correlation 0.25), and pull follows appeal more than
    quality.
    """
    count = len(catalogue)
    genre_vector = _unit(rng.normal(size=(len(catalogue.genres), factors)))
    language_vector = _unit(rng.normal(size=(len(catalogue.languages), factors)))
    own = _kin(_unit(rng.normal(size=(count, factors))), catalogue)
    genres = _unit(catalogue.genre @ genre_vector)
    parts = (_GENRE_PART, genres), (_LANGUAGE_PART, language_vector[catalogue.language]), (_OWN_PART, own)
    vector = sum(np.sqrt(share) * part for share, part in parts)
    appeal, quality, pull = (rng.normal(size=count) for _ in range(3))
    quality = 0.25 * appeal + np.sqrt(1 - 0.25**2) * quality
    pull = 0.35 * appeal + 0.1 * quality + 0.9 * pull
    pull += _HIT_PULL * (rng.random(count) < _HIT_SHARE)
    pull = _kin(pull, catalogue)
    bait = rng.random(count) < BAIT_SHARE
    return TitleTruth(
        vector=vector.astype(np.float32),
        genre_vector=genre_vector.astype(np.float32),
        appeal=np.where(bait, _BAIT_APPEAL + 0.3 * appeal, appeal).astype(np.float32),
        quality=np.where(bait, _BAIT_QUALITY + 0.3 * quality, quality).astype(np.float32),
        bait=bait,
        pull=pull.astype(np.float32),
        buzz=rng.gamma(2.0, 0.6, count).astype(np.float32),
        half_life_days=rng.uniform(3.0, 12.0, count).astype(np.float32),
    )


def draw_tastes(
    titles: TitleTruth, country: NDArray[np.int16], countries: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Draw tastes [M, F] and the genres in them [M, G]: a few genres, the country's own leaning, and a rest."""
    genres, factors = titles.genre_vector.shape
    leaning = rng.dirichlet(np.full(genres, 0.8), size=countries)
    weight = rng.gamma(0.18 * (0.3 + 1.4 * genres * leaning[country]) / 2.0) + 1e-9
    weight /= weight.sum(axis=1, keepdims=True)
    taste = _unit(weight @ titles.genre_vector) + 0.6 * _unit(rng.normal(size=(len(country), factors)))
    taste = _unit(taste)
    sample = taste[:: max(1, len(taste) // 2000)] @ titles.vector.T
    return (taste / max(1e-6, float(sample.std()))).astype(np.float32), weight.astype(np.float32)


def beside(taste: Floats, other: Floats, share: float) -> Floats:
    """Return tastes [M, F] of which a share of the variance is another's."""
    return np.asarray(np.sqrt(1 - share) * taste + np.sqrt(share) * other, np.float32)


def _kin(values: NDArray[np.float64], catalogue: Catalogue) -> NDArray[np.float64]:
    """Return values of titles [T, ...] of which later parts of a franchise have most from the first part."""
    if not catalogue.franchises.any:
        return values
    later = (catalogue.franchises.part > 1).reshape(-1, *(1,) * (values.ndim - 1))
    return np.where(later, _KIN_PART * values[catalogue.franchises.head] + np.sqrt(1 - _KIN_PART**2) * values, values)


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-9), np.float64)
