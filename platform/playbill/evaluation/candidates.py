"""A canvas's candidates for many requests, by the same rules as serving: `playbill.ranking.candidates`.

Axis letters: N requests, T titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.evaluation.data import EvaluationTables
from playbill.evaluation.log import EventLog
from playbill.evaluation.order import UNKNOWN, TitleOrder, microseconds
from playbill.metrics.topk import Indices, Mask
from playbill.ranking.candidates import NEVER, Catalogue, Viewer, select, to_microseconds
from playbill.schema import UNKNOWN_COUNTRY
from playbill.specs import CandidatesSpec, CanvasSpec

__all__ = ["NEVER", "CandidateRule", "launches"]


@dataclass(frozen=True)
class Profiles:
    """Which members' profiles are for kids, as of each request. A member first described later is taken as described.

    Args:
        rows: member_id, kids_profile and `known_from`, the moment from which a row counts, sorted by it.
    """

    rows: pl.DataFrame

    @classmethod
    def of(cls, tables: EvaluationTables) -> Profiles:
        """Read every row of the members that the tables have."""
        versions = tables.members if tables.member_versions is None else tables.member_versions
        dated = {"valid_from", "recorded_at"} <= set(versions.columns)
        known = pl.max_horizontal("valid_from", "recorded_at") if dated else pl.lit(_ALWAYS)
        rows = versions.select("member_id", "kids_profile", known.cast(pl.Datetime("us", "UTC")).alias("known_from"))
        first = pl.col("known_from") == pl.col("known_from").min().over("member_id")
        counted = pl.when(first).then(pl.lit(_ALWAYS)).otherwise("known_from").cast(pl.Datetime("us", "UTC"))
        return cls(rows.with_columns(counted.alias("known_from")).sort("known_from", maintain_order=True))

    def kids(self, requests: pl.DataFrame) -> Mask:
        """Return [N] whether each request's profile was for kids at its moment."""
        found: Mask = self._used(requests)["kids_profile"].fill_null(False).to_numpy()
        return found

    def known_from(self, requests: pl.DataFrame) -> npt.NDArray[np.int64]:
        """Return [N] since when the row that each request reads has been known, microseconds."""
        return self._used(requests)["known_from"].dt.epoch("us").fill_null(0).to_numpy().astype(np.int64)

    def _used(self, requests: pl.DataFrame) -> pl.DataFrame:
        asked = requests.select("member_id", "at").with_row_index("row").sort("at", maintain_order=True)
        rows = self.rows.with_columns(pl.col("known_from").alias("at"))
        found = asked.join_asof(rows, on="at", by="member_id", strategy="backward", check_sortedness=False)
        return found.sort("row")


_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


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
        return cls(canvas.candidates, catalogue, order, log, Profiles.of(tables))

    def mask(self, requests: pl.DataFrame, positions: Indices) -> Mask:
        """Mark the candidates of each request.

        Args:
            requests: [N] rows with member_id, at, country and source_title_id.
            positions: [N] position in the log before which each request's history ends.

        Returns:
            [N, T].
        """
        mask = np.empty((requests.height, len(self.order)), dtype=np.bool_)
        rows, watched = self.log.watched(positions)
        ends = np.searchsorted(rows, np.arange(requests.height + 1))
        sources = self.order.codes(requests["source_title_id"]).tolist()
        kids = self.profiles.kids(requests).tolist()
        columns = requests.select("at", "country")
        for row, (at, country) in enumerate(columns.iter_rows()):
            viewer = Viewer(
                at=at,
                country=country or UNKNOWN_COUNTRY,
                watched=watched[ends[row] : ends[row + 1]],
                source=sources[row],
                kids_profile=kids[row],
                plays=partial(self._plays_before, at),
            )
            mask[row] = select(self.catalogue, self.spec, viewer)
        return mask

    @cached_property
    def _known_plays(self) -> tuple[npt.NDArray[np.int64], Indices]:
        plays = self.log.known_plays().sort("event_at")
        columns = self.order.codes(plays["title_id"])
        return microseconds(plays["event_at"])[columns != UNKNOWN], columns[columns != UNKNOWN]

    def _plays_before(self, at: datetime) -> npt.NDArray[np.int64]:
        moments, columns = self._known_plays
        before = columns[: np.searchsorted(moments, to_microseconds(at), side="left")]
        return np.bincount(before, minlength=len(self.order)).astype(np.int64)


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
