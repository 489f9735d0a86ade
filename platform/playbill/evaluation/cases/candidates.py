"""A canvas's candidates for many requests, by the same rules as serving: `playbill.ranking.candidates`.

Axis letters: N requests, T titles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.datasets.audience import Profiles
from playbill.definitions.specs import CandidatesSpec, CanvasSpec, RowSpec
from playbill.evaluation.cases.data import EvaluationTables
from playbill.evaluation.cases.event_log import EventLog
from playbill.evaluation.cases.order import TitleOrder
from playbill.metrics.topk import Indices, Mask
from playbill.ranking.candidates import NEVER, Catalogue, Viewer, select
from playbill.ranking.past import Past, past_of
from playbill.ranking.popularity import PlayLog
from playbill.ranking.row_plans import RowPlan, plan_of
from playbill.schema import UNKNOWN_COUNTRY

__all__ = ["NEVER", "CandidateRule", "Profiles", "RowRule", "launches"]


@dataclass(frozen=True)
class CandidateRule:
    """A canvas's candidates. The whole catalogue is considered; nothing is sampled.

    Args:
        spec: What the canvas says.
        catalogue: Titles in tie order, with their availability.
        order: The same titles.
        log: The events; what was watched, and what a protocol lets popularity count.
        profiles: Members as they were at each moment.
    """

    spec: CandidatesSpec
    catalogue: Catalogue
    order: TitleOrder
    log: EventLog
    profiles: Profiles

    @classmethod
    def of(cls, canvas: CanvasSpec, tables: EvaluationTables, order: TitleOrder, log: EventLog) -> CandidateRule:
        """Read a canvas's rule and the tables it depends on."""
        catalogue = Catalogue(order.title_ids, tables.titles, tables.availability)
        members = tables.members if tables.member_versions is None else tables.member_versions
        return cls(canvas.candidates, catalogue, order, log, Profiles.of(members))

    def mask(self, requests: pl.DataFrame, positions: Indices) -> Mask:
        """Mark the candidates of each request.

        Args:
            requests: [N] rows with member_id, at, country and source_title_id.
            positions: [N] position in the log before which each request's history ends.

        Returns:
            [N, T].
        """
        mask = np.empty((requests.height, len(self.order)), dtype=np.bool_)
        for row, viewer in enumerate(self.viewers(requests, positions)):
            mask[row] = select(self.catalogue, self.spec, viewer)
        return mask

    def viewers(self, requests: pl.DataFrame, positions: Indices) -> Iterator[Viewer]:
        """Yield what candidate rules and policies read of each request; arguments are those of `mask`.

        On a canvas for kids every profile is taken for one, as in serving.
        """
        rows, watched = self.log.watched(positions)
        ends = np.searchsorted(rows, np.arange(requests.height + 1))
        sources = self.order.codes(requests["source_title_id"]).tolist()
        kids = (self.profiles.kids(requests) | (self.spec.kids is True)).tolist()
        for row, (at, country) in enumerate(requests.select("at", "country").iter_rows()):
            own = country or UNKNOWN_COUNTRY
            yield Viewer(
                at=at,
                country=own,
                watched=watched[ends[row] : ends[row + 1]],
                source=sources[row],
                kids_profile=kids[row],
                plays=partial(self._plays, at),
                country_plays=partial(self._week, at, own),
                past=partial(self._past, int(positions[row])),
            )

    @cached_property
    def plays(self) -> PlayLog:
        """The events that may be counted up to a request's moment."""
        return PlayLog(self.catalogue, self.log.known_events())

    def _plays(self, at: datetime) -> npt.NDArray[np.int64]:
        return self.plays.before(at)

    def _week(self, at: datetime, country: str) -> npt.NDArray[np.int64]:
        return self.plays.of_week(at, country)

    def _past(self, position: int) -> Past:
        return past_of(self.log.past(position), self.catalogue)


@dataclass(frozen=True)
class RowRule(CandidateRule):
    """One row's candidates: those of its rules that what a generated row is about has.

    Args:
        row: The row.
        genre_consistency: Whether every title of a genre row must have the genre.
    """

    row: RowSpec
    genre_consistency: bool = True

    def mask(self, requests: pl.DataFrame, positions: Indices) -> Mask:
        """Mark the candidates of each request, [N, T]; `requests` has `row_id` too. An unknown row has none."""
        mask = super().mask(requests, positions)
        # What is acclaimed changes with the day alone, and so does what a row is about.
        days = requests["at"].dt.truncate("1d").to_list()
        plans: dict[tuple[str, datetime], RowPlan | None] = {}
        for place, key in enumerate(zip(requests["row_id"].to_list(), days, strict=True)):
            if key not in plans:
                row_id, day = key
                plans[key] = plan_of(self.row, row_id, self.catalogue, partial(self.plays.acclaimed, day))
            plan = plans[key]
            if plan is None:
                mask[place] = False
            else:
                mask[place] = plan.about(mask[place], self.catalogue, genre_consistency=self.genre_consistency)
        return mask


def launches(catalogue: Catalogue, countries: Sequence[str | None], columns: Indices) -> npt.NDArray[np.int64]:
    """Return the launch of one title per request in its country, microseconds, `NEVER` where there is none.

    Args:
        catalogue: The titles.
        countries: [N] request countries.
        columns: [N] title column of each request.
    """
    known = np.array([country or UNKNOWN_COUNTRY for country in countries], dtype=object)
    found = np.full(known.size, NEVER, dtype=np.int64)
    for country in set(known.tolist()):
        rows = np.nonzero(known == country)[0]
        found[rows] = catalogue.launches(country)[columns[rows]]
    return found
