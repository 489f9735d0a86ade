"""Which titles a request may be answered with: availability by country and moment, as masks.

Axis letters: N requests, T titles, A availability rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.errors import ComparisonError
from playbill.evaluation.catalogue import UNKNOWN, Catalogue, microseconds
from playbill.evaluation.data import EvaluationTables
from playbill.metrics.topk import Indices, Mask
from playbill.specs import CandidatesSpec, CanvasSpec

EVERYWHERE = "*"
NEVER = np.iinfo(np.int64).max
"""Stands for an open end, and for the launch of a title that has none."""

Moments = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AvailabilityArrays:
    """The availability table over a catalogue's columns, sorted by title.

    Args:
        titles: T, number of columns.
        country: [A] country of each row, `*` = everywhere.
        column: [A] title column, ascending.
        start: [A] first available moment, microseconds.
        end: [A] first moment no longer available, `NEVER` when open.
    """

    titles: int
    country: npt.NDArray[np.object_]
    column: Indices
    start: Moments
    end: Moments

    @classmethod
    def of(cls, availability: pl.DataFrame, catalogue: Catalogue) -> AvailabilityArrays:
        """Read the canonical table; rows of titles outside the catalogue are left out."""
        column = catalogue.codes(availability["title_id"])
        order = np.argsort(column, kind="stable")
        order = order[column[order] != UNKNOWN]
        end = availability["available_until"].dt.epoch("us").fill_null(NEVER).to_numpy()
        return cls(
            titles=len(catalogue),
            country=availability["country"].to_numpy().astype(object)[order],
            column=column[order],
            start=microseconds(availability["available_from"])[order],
            end=end.astype(np.int64)[order],
        )

    def available(self, at: Moments, countries: Sequence[str]) -> Mask:
        """Mark titles that can be played: from <= at < until, in the request's country or everywhere.

        Args:
            at: [N] request moments, microseconds.
            countries: [N] request countries.

        Returns:
            [N, T].
        """
        return self._any_row(at, countries, lambda start, end, now: (start <= now) & (now < end))

    def upcoming(self, at: Moments, countries: Sequence[str]) -> Mask:
        """Mark titles that cannot be played yet but launch later in the request's country, [N, T]."""
        later = self._any_row(at, countries, lambda start, _end, now: start > now)
        return later & ~self.available(at, countries)

    def launches(self, countries: Sequence[str], columns: Indices) -> Moments:
        """Return the launch of one title per request in its country, `NEVER` where there is none.

        Args:
            countries: [N] request countries.
            columns: [N] title column of each request.
        """
        launches = np.full(len(countries), NEVER, dtype=np.int64)
        for country, rows in _groups(countries):
            launches[rows] = self._launches_in(country)[columns[rows]]
        return launches

    def launched_since(self, oldest: Moments, countries: Sequence[str]) -> Mask:
        """Mark titles whose launch in the request's country is not before a moment, [N, T]."""
        mask = np.zeros((len(countries), self.titles), dtype=np.bool_)
        for country, rows in _groups(countries):
            mask[rows] = self._launches_in(country) >= oldest[rows, None]
        return mask

    def _launches_in(self, country: str) -> Moments:
        first = np.full(self.titles, NEVER, dtype=np.int64)
        own = self._rows_of(country)
        np.minimum.at(first, self.column[own], self.start[own])
        return first

    def _rows_of(self, country: str) -> Indices:
        return np.nonzero((self.country == EVERYWHERE) | (self.country == country))[0]

    def _any_row(
        self, at: Moments, countries: Sequence[str], holds: Callable[[Moments, Moments, Moments], Mask]
    ) -> Mask:
        """Mark titles of which at least one availability row of the country holds at the moment."""
        mask = np.zeros((len(countries), self.titles), dtype=np.bool_)
        for country, rows in _groups(countries):
            own = self._rows_of(country)
            if own.size == 0:
                continue
            column = self.column[own]
            firsts = np.nonzero(np.diff(column, prepend=-1))[0]
            held = holds(self.start[own], self.end[own], at[rows, None])
            mask[np.ix_(rows, column[firsts])] = np.logical_or.reduceat(held, firsts, axis=1)
        return mask


def _groups(countries: Sequence[str]) -> list[tuple[str, Indices]]:
    """Return each distinct country with the rows that have it."""
    names, codes = np.unique(np.asarray(countries, dtype=str), return_inverse=True)
    return [(str(name), np.nonzero(codes == code)[0]) for code, name in enumerate(names)]


@dataclass(frozen=True)
class RequestArrays:
    """What candidates depend on, for N requests.

    Args:
        at: [N] request moments, microseconds.
        countries: [N] request countries.
        watched: Pairs (request, title column) of what each member had played before its request.
        source: [N] column of the source title, `UNKNOWN` where there is none.
    """

    at: Moments
    countries: Sequence[str]
    watched: tuple[Indices, Indices]
    source: Indices


@dataclass(frozen=True)
class CandidateRule:
    """A canvas's candidates over a catalogue. The whole catalogue is considered; nothing is sampled.

    Args:
        spec: What the canvas says.
        availability: The availability table.
        kids: [T] whether a title is marked for kids.
    """

    spec: CandidatesSpec
    availability: AvailabilityArrays
    kids: Mask

    @classmethod
    def of(cls, canvas: CanvasSpec, tables: EvaluationTables, catalogue: Catalogue) -> CandidateRule:
        """Read a canvas's rule.

        Raises:
            ComparisonError: It limits candidates by popularity, which depends on rows a protocol hides.
        """
        if canvas.candidates.popularity_percentile is not None:
            raise ComparisonError(
                f"canvas '{canvas.name}' limits candidates by 'popularity_percentile', which depends on rows that "
                "a protocol holds back, so it has no fixed candidate set to measure on; measure it without"
            )
        marked = tables.titles.filter(pl.col("kids").fill_null(False))
        kids = np.zeros(len(catalogue), dtype=np.bool_)
        kids[catalogue.codes(marked["title_id"])] = True
        return cls(canvas.candidates, AvailabilityArrays.of(tables.availability, catalogue), kids)

    def mask(self, requests: RequestArrays) -> Mask:
        """Mark the candidates of each request, [N, T]."""
        at, countries, spec = requests.at, requests.countries, self.spec
        upcoming = spec.available == "upcoming"
        lookup = self.availability.upcoming if upcoming else self.availability.available
        mask = lookup(at, countries)
        if spec.kids is not None:
            mask &= self.kids == spec.kids
        if spec.launched_within is not None:
            oldest = at - int(spec.launched_within.total_seconds() * 1e6)
            mask &= self.availability.launched_since(oldest, countries)
        if spec.watched is not None:
            watched = np.zeros_like(mask)
            watched[requests.watched] = True
            mask &= watched == spec.watched
        if spec.exclude_source:
            known = np.nonzero(requests.source != UNKNOWN)[0]
            mask[known, requests.source[known]] = False
        return mask
