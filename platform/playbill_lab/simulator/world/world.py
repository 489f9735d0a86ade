"""A simulated world: canonical titles, availability and members, and the truth behind them that no policy knows.

Axis letters: M members, T titles, F factors, G genres, C countries, L languages.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.arrays import AnyFloats, Bools, Floats32, Floats64
from playbill.errors import DefinitionError, Problem
from playbill_lab.simulator.engine.choices import Outcomes, expected
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates
from playbill_lab.simulator.world.catalogue import WorldCatalogue, make_catalogue
from playbill_lab.simulator.world.effects import WorldEffects
from playbill_lab.simulator.world.launches import (
    AvailabilityWindows,
    availability_frame,
    draw_windows,
    moments,
    read_windows,
)
from playbill_lab.simulator.world.members import MemberArrays, draw_members, members_frame, world_languages
from playbill_lab.simulator.world.queries import QueryBook
from playbill_lab.simulator.world.random_streams import Streams, one_thread
from playbill_lab.simulator.world.spec import EffectsSpec, WorldSpec, check_spec
from playbill_lab.simulator.world.title_words import TONGUES

BAIT_SHARE = 0.09
_BAIT_APPEAL, _BAIT_QUALITY = 1.8, -1.7
_GENRE_PART, _LANGUAGE_PART, _OWN_PART = 0.5, 0.12, 0.38
_HIT_SHARE = 0.02
_KIN_PART = 0.85
_HIT_PULL = 1.5


@dataclass(frozen=True, eq=False)
class TitleTruth:
    """The hidden side of titles."""

    vector: Floats32  # [T, F]
    genre_vector: Floats32  # [G, F] around which tastes and intents lie
    appeal: Floats32  # [T] what makes members click
    quality: Floats32  # [T] what makes members glad
    bait: Bools  # [T] titles of much appeal and little quality
    pull: Floats32  # [T] popularity beyond taste, heavy-tailed in e^pull
    buzz: Floats32  # [T] log odds added on the day of launch
    half_life_days: Floats32  # [T] of the buzz


@dataclass(frozen=True, eq=False)
class GroundTruth(TitleTruth):
    """The hidden side of titles and members."""

    taste: Floats32  # [M, F]; `taste @ vector.T` is the match with titles, of variance about 1
    genre_weight: Floats32  # [M, G] how much of each genre is in a member's taste; sums to 1
    activity: Floats32  # [M] mean sessions a day
    taste_alone: Floats32 | None = None
    """[M, F] of who sits at the member's other devices than a TV; None where that is nobody else."""


def draw_titles(catalogue: WorldCatalogue, factors: int, rng: np.random.Generator) -> TitleTruth:
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
) -> tuple[Floats32, Floats32]:
    """Draw tastes [M, F] and the genres in them [M, G]: a few genres, the country's own leaning, and a rest."""
    genres, factors = titles.genre_vector.shape
    leaning = rng.dirichlet(np.full(genres, 0.8), size=countries)
    weight = rng.gamma(0.18 * (0.3 + 1.4 * genres * leaning[country]) / 2.0) + 1e-9
    weight /= weight.sum(axis=1, keepdims=True)
    taste = _unit(weight @ titles.genre_vector) + 0.6 * _unit(rng.normal(size=(len(country), factors)))
    taste = _unit(taste)
    sample = taste[:: max(1, len(taste) // 2000)] @ titles.vector.T
    return (taste / max(1e-6, float(sample.std()))).astype(np.float32), weight.astype(np.float32)


def beside(taste: Floats32, other: Floats32, share: float) -> Floats32:
    """Return tastes [M, F] of which a share of the variance is another's."""
    return np.asarray(np.sqrt(1 - share) * taste + np.sqrt(share) * other, np.float32)


def _kin(values: Floats64, catalogue: WorldCatalogue) -> Floats64:
    """Return values of titles [T, ...] of which later parts of a franchise have most from the first part."""
    if not catalogue.franchises.any:
        return values
    later = (catalogue.franchises.part > 1).reshape(-1, *(1,) * (values.ndim - 1))
    return np.where(later, _KIN_PART * values[catalogue.franchises.head] + np.sqrt(1 - _KIN_PART**2) * values, values)


def _unit(rows: AnyFloats) -> Floats64:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-9), np.float64)


@dataclass(frozen=True, eq=False)
class World:
    """A service before its first day. Equal specs and catalogues make equal worlds, to the bit."""

    spec: WorldSpec
    catalogue: WorldCatalogue  # Its titles; what policies may know of them
    windows: AvailabilityWindows  # Where and when each title can be watched
    people: MemberArrays
    truth: GroundTruth
    queries: QueryBook

    @classmethod
    def make(cls, spec: WorldSpec, catalogue: WorldCatalogue | None = None) -> World:
        """Draw a world; without a real catalogue, `spec.titles` titles are generated.

        Raises:
            DefinitionError: The spec's countries contradict each other, or the catalogue has no titles.
        """
        check_spec(spec)
        with one_thread():
            return cls._drawn(spec, catalogue, Streams(spec.seed))

    @classmethod
    def _drawn(cls, spec: WorldSpec, catalogue: WorldCatalogue | None, streams: Streams) -> World:
        made = (
            make_catalogue(spec.titles, _languages(spec), streams.generator("catalogue"), spec.effects.franchise_share)
            if catalogue is None
            else catalogue
        )
        if not len(made):
            raise DefinitionError("the simulated world", [Problem("titles", "a service without titles shows nothing.")])
        own = made.availability is not None
        windows = read_windows(spec, made) if own else draw_windows(spec, made, streams.generator("windows"))
        people = draw_members(spec, made, streams.generator("members"))
        titles = draw_titles(made, spec.factors, streams.generator("titles"))
        taste, weight = draw_tastes(titles, people.country, len(spec.countries), streams.generator("tastes"))
        in_process = None
        if share := spec.effects.households:
            other, _ = draw_tastes(titles, people.country, len(spec.countries), streams.generator("households"))
            in_process = beside(taste, other, share)
        activity = people.activity.astype(np.float32)
        truth = GroundTruth(**vars(titles), taste=taste, genre_weight=weight, activity=activity, taste_alone=in_process)
        return cls(spec, made, windows, people, truth, QueryBook.make(made, streams.generator("queries")))

    def expected(self, request: PolicyRequest, slates: Slates, outcome: Outcomes) -> Floats64:
        """Return [N] the exact expectation of each slate's outcome; see `choices.expected`."""
        return expected(request, slates, outcome)

    @cached_property
    def effects(self) -> WorldEffects | None:
        """Its effects of device, hour, season and what was finished last; None where its spec has none."""
        if self.spec.effects == EffectsSpec():
            return None
        with one_thread():
            return WorldEffects.make(self.spec, self.catalogue, self.truth)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Codes; their places are what `PolicyRequest.language` holds."""
        return world_languages(self.spec, self.catalogue)

    @cached_property
    def countries(self) -> tuple[str, ...]:
        """Codes; their places are what `PolicyRequest.country` holds."""
        return tuple(country.code for country in self.spec.countries)

    @cached_property
    def title_ids(self) -> pl.Series:
        """[T] ids by number."""
        return self.catalogue.titles["title_id"]

    @cached_property
    def member_ids(self) -> pl.Series:
        """[M] ids by number."""
        width = max(6, len(str(self.spec.members)))
        numbers = pl.Series("member_id", np.arange(self.spec.members)).cast(pl.String)
        return "m" + numbers.str.zfill(width)

    @cached_property
    def titles(self) -> pl.DataFrame:
        """The canonical titles, each known from its announcement on."""
        known = moments(self.windows.announced)
        return self.catalogue.titles.with_columns(valid_from=known, recorded_at=known)

    @cached_property
    def availability(self) -> pl.DataFrame:
        """The canonical availability."""
        return availability_frame(self.windows, self.title_ids, list(self.countries))

    @cached_property
    def members(self) -> pl.DataFrame:
        """The canonical members."""
        return members_frame(self.spec, self.catalogue, self.people, self.member_ids)


def _languages(spec: WorldSpec) -> list[str]:
    spoken = dict.fromkeys(code for country in spec.countries for code in country.languages)
    problems = [
        Problem(
            f"countries.{number}.languages", f"titles cannot be named in '{code}'.", f"Known: {', '.join(TONGUES)}."
        )
        for number, country in enumerate(spec.countries)
        for code in country.languages
        if code not in TONGUES
    ]
    if problems:
        raise DefinitionError("the simulated world", problems)
    return list(dict.fromkeys([*spoken, "ko"]))
