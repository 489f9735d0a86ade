"""A title that nobody cared for is suddenly played a lot: how long until the model shows it, by how often it learns.

The plays are put into the log that is learnt from, and nowhere else: features, histories and candidates stay those of
the log, so what rises are the weights alone. A model whose features count recent plays rises sooner than this says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from playbill.arrays import Indices
from playbill.errors import StateError
from playbill.evaluation.cases.case import Chunk
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.cases.score_function import AlignedScorer
from playbill.evaluation.cases.slices import popularity_bands
from playbill.metrics import target_ranks
from playbill.tables import Tables
from playbill_lab.studies.cells import digest
from playbill_lab.studies.freshness.replay import K, ReplayedDays
from playbill_lab.studies.freshness.versions import TrainedVersion

PANEL = 200  # requests whose lists are looked at
TAKEN = 0.1  # of a day's plays
SHOWN = 0.5  # share of lists that have the title when it counts as shown


@dataclass(frozen=True)
class Surge:
    """One title's sudden plays."""

    title_id: str
    start: datetime
    plays_a_day: int
    days: int
    members: Sequence[str]  # who may play it
    country: str
    canvas: str
    seed: int

    def events(self, like: pl.DataFrame) -> pl.DataFrame:
        """Return its plays as events of the log `like`, every one of another member and moment of its day."""
        generator, rows = np.random.default_rng(self.seed), []
        for day in range(self.days):
            members = generator.choice(self.members, min(self.plays_a_day, len(self.members)), replace=False)
            for number, member in enumerate(members.tolist()):
                at = self.start + timedelta(days=day, seconds=int(generator.integers(86_400)))
                rows.append((f"surge-{day}-{number}", member, at))
        frame = pl.DataFrame(rows, schema=["event_id", "member_id", "event_at"], orient="row").with_columns(
            recorded_at=pl.col("event_at"),
            action=pl.lit("play"),
            title_id=pl.lit(self.title_id),
            canvas=pl.lit(self.canvas),
            country=pl.lit(self.country),
            session_id=pl.col("event_id"),
            progress=pl.lit(1.0),
            seq=pl.lit(2**40) + pl.int_range(pl.len()),
        )
        known = [pl.col(name).cast(kind) for name, kind in like.schema.items() if name in frame.columns]
        missing = {name: pl.lit(None, dtype=kind) for name, kind in like.schema.items() if name not in frame.columns}
        return frame.with_columns(*known, **missing).select(like.columns)


class SurgingTables:
    """The tables of a workspace with the plays of a surge in the log; everything else is as it is."""

    def __init__(self, tables: Tables, surge: Surge) -> None:
        self._tables, self._surge = tables, surge
        log = tables.interactions()
        both = pl.concat([log, surge.events(log)])
        # Within a member events stand in time order, and are numbered by it.
        ordered = both.sort("member_id", "event_at", "seq", maintain_order=True)
        self._log = ordered.with_columns(seq=pl.int_range(pl.len()).over("member_id").cast(both.schema["seq"]))

    def interactions(
        self,
        *,
        members: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """Return the log, or a part of it, as `Tables` does."""
        found = self._log
        if members is not None:
            found = found.filter(pl.col("member_id").is_in(list(members)))
        if since is not None:
            found = found.filter(pl.col("event_at") >= since)
        if until is not None:
            found = found.filter(pl.col("event_at") < until)
        return found if columns is None else found.select(columns)

    def snapshot_id(self) -> str:
        """Return the content hash of tables and surge."""
        return digest(tables=self._tables.snapshot_id(), surge=str(self._surge))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tables, name)


@dataclass(frozen=True)
class SurgeCourse:
    """How a surging title rises under one cadence."""

    cadence: str
    hours: tuple[float, ...]  # Since the surge began, of each version
    shares: tuple[float, ...]  # Of the panel's lists that the version puts the title into
    places: tuple[float, ...]  # The title's among all candidates, from 1, in the median over the panel

    @property
    def shown_after(self) -> float | None:
        """Hours until half of the lists have the title; None where that does not happen."""
        reached = (hour for hour, share in zip(self.hours, self.shares, strict=True) if share >= SHOWN)
        return next(reached, None)


@dataclass(frozen=True)
class Panel:
    """Requests whose lists are looked at, and a title of the long tail that may be in nearly all of them."""

    days: ReplayedDays
    chunk: Chunk
    column: int

    @classmethod
    def of(cls, days: ReplayedDays, seed: int) -> Panel:
        """Draw requests, and among titles of the tail that most of them may show, one at random.

        Raises:
            StateError: No title of the tail was played before and is a candidate of most requests.
        """
        generator = np.random.default_rng(seed)
        chosen = np.sort(generator.choice(len(days.case), min(PANEL, len(days.case)), replace=False))
        case = days.case.keep(np.isin(days.case.rows, chosen))
        chunk = next(case.chunks())
        played = days.played_before(days.start)
        fit = (popularity_bands(played) == "tail") & (chunk.candidates.mean(axis=0) > 0.8)
        if not fit.any():
            raise StateError("no title of the long tail is a candidate of most requests, so none can surge")
        return cls(days, chunk, int(generator.choice(np.nonzero(fit)[0])))

    def places(self, version: TrainedVersion) -> Indices:
        """Return [n] the title's place among the candidates of each request it is one of, by a version."""
        scorer = self.days.scorer(version, self.days.start)
        size = len(self.chunk.requests)
        ranked = AlignedScorer(version.name, scorer, self.days.case.catalogue)
        scores, mask = ranked.score(self.chunk.requests, self.chunk.candidates)
        ranks = target_ranks(scores, np.arange(size), np.full(size, self.column), mask)
        return ranks[ranks > 0]


def surge_of(panel: Panel, frames: EvaluationTables, days: int, seed: int) -> Surge:
    """Return a surge of the panel's title: it takes `TAKEN` of the plays of a mean day, beside all others."""
    own = panel.days
    before = frames.interactions.filter(pl.col("event_at") < own.start)
    first = before["event_at"].min()
    assert isinstance(first, datetime)
    length = max(1.0, (own.start - first) / timedelta(days=1))
    each = own.played_before(own.start).sum() / length
    country = before["country"].drop_nulls().mode().sort()
    return Surge(
        title_id=own.case.catalogue.title_ids[panel.column],
        start=own.start,
        plays_a_day=max(1, round(TAKEN * float(each))),
        days=days,
        members=before["member_id"].unique().sort().to_list(),
        country=str(country[0]) if len(country) else "ZZ",
        canvas=own.case.canvas,
        seed=seed,
    )


def course(panel: Panel, cadence: str, chain: Sequence[TrainedVersion]) -> SurgeCourse:
    """Return how the title rises from version to version."""
    hours = tuple((one.cutoff - panel.days.start) / timedelta(hours=1) for one in chain)
    places = [panel.places(one) for one in chain]
    shares, medians = (tuple(float(of(one)) for one in places) for of in (lambda one: (one <= K).mean(), np.median))
    return SurgeCourse(cadence, hours, shares, medians)
