"""A simulated world: canonical titles, availability and members, and the truth behind them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.errors import DefinitionError, Problem
from playbill_lab.simulator.engine.expected import Outcomes, expected
from playbill_lab.simulator.policies.policy_request import Asked, Slates
from playbill_lab.simulator.world.catalogue import Catalogue, make_catalogue
from playbill_lab.simulator.world.effects import Effects
from playbill_lab.simulator.world.launches import Windows, availability_frame, draw_windows, moments, read_windows
from playbill_lab.simulator.world.members import Members, draw_members, members_frame, world_languages
from playbill_lab.simulator.world.queries import QueryBook
from playbill_lab.simulator.world.random_streams import Streams
from playbill_lab.simulator.world.spec import EffectsSpec, WorldSpec, check_spec
from playbill_lab.simulator.world.threads import one_thread
from playbill_lab.simulator.world.title_words import TONGUES
from playbill_lab.simulator.world.truth import Truth, beside, draw_tastes, draw_titles


@dataclass(frozen=True, eq=False)
class World:
    """A service before its first day. Equal specs and catalogues make equal worlds, to the bit.

    Attributes:
        spec: What it was made from.
        catalogue: Its titles; what policies may know of them.
        windows: Where and when each title can be watched.
        people: Its members as arrays.
        truth: What no policy knows.
        queries: What members type, and what it matches.
    """

    spec: WorldSpec
    catalogue: Catalogue
    windows: Windows
    people: Members
    truth: Truth
    queries: QueryBook

    @classmethod
    def make(cls, spec: WorldSpec, catalogue: Catalogue | None = None) -> World:
        """Draw a world.

        Args:
            spec: Its sizes.
            catalogue: Real titles; None generates `spec.titles` of them.

        Raises:
            DefinitionError: The spec's countries contradict each other, or the catalogue has no titles.
        """
        check_spec(spec)
        with one_thread():
            return cls._drawn(spec, catalogue, Streams(spec.seed))

    @classmethod
    def _drawn(cls, spec: WorldSpec, catalogue: Catalogue | None, streams: Streams) -> World:
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
        alone = None
        if share := spec.effects.households:
            other, _ = draw_tastes(titles, people.country, len(spec.countries), streams.generator("households"))
            alone = beside(taste, other, share)
        activity = people.activity.astype(np.float32)
        truth = Truth(**vars(titles), taste=taste, genre_weight=weight, activity=activity, taste_alone=alone)
        return cls(spec, made, windows, people, truth, QueryBook.make(made, streams.generator("queries")))

    def expected(self, asked: Asked, slates: Slates, outcome: Outcomes) -> NDArray[np.float64]:
        """Return [N] the exact expectation of each slate's outcome; see `expected.expected`.

        Raises:
            UnknownNameError: There is no such outcome.
        """
        return expected(asked, slates, outcome)

    @cached_property
    def effects(self) -> Effects | None:
        """Its effects of device, hour, season and what was finished last; None where its spec has none."""
        if self.spec.effects == EffectsSpec():
            return None
        with one_thread():
            return Effects.make(self.spec, self.catalogue, self.truth)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Codes; their places are what `Asked.language` holds."""
        return world_languages(self.spec, self.catalogue)

    @cached_property
    def countries(self) -> tuple[str, ...]:
        """Codes; their places are what `Asked.country` holds."""
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
