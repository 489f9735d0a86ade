"""Evaluation cases: the held-out requests of a protocol on one canvas, their targets and candidates.

A request is asked at the moment of a held-out event. Its history is what the member did strictly before that
event, by `seq`; so the test request of `leave_one_out` sees the validation event. Candidates are everything
the canvas may show at that moment in that country.

Candidates follow the same rules as serving: `playbill.ranking.candidates`. Axis letters: N requests, T titles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cached_property, partial
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from playbill.arrays import Indices, Mask
from playbill.datasets import Request
from playbill.datasets.candidate_masks import Profiles
from playbill.datasets.splits import REQUESTS
from playbill.definitions.specs import CandidatesSpec, CanvasSpec, RowSpec
from playbill.evaluation.cases.event_log import EvaluationTables, EventLog, TitleOrder, microseconds
from playbill.ranking.candidates import NEVER, Catalogue, MemberHistory, Viewer, past_of, select
from playbill.ranking.popularity import PlayLog
from playbill.ranking.row_plans import RowPlan, plan_of
from playbill.schema import UNKNOWN_COUNTRY

Fold = Literal["validation", "test"]
CELLS_AT_ONCE = 8_000_000  # request x title cells that a chunk may hold; bounds memory at some 150 MB

REQUEST_COLUMNS = ("request_id", "event_id", "member_id", "at", "country", "device", "language", "canvas")
CARRIED_COLUMNS = {"query": pl.String, "source_title_id": pl.String, "row": pl.String, "row_position": pl.Int32}
"""What a request may carry beyond who asks, when and from where; null where it does not."""
CARRIED = {"query": "query", "source_title": "source_title_id"}
"""Context field of a canvas -> the column of a held-out event that is its request's own. Rows and places are not: on a
held-out event they are those of the answer."""
REQUEST_FIELDS = tuple(field.name for field in fields(Request) if field.name not in ("canvas", "history", "features"))
"""Fields of a request that are columns of a case's frame."""


@dataclass(frozen=True)
class Chunk:
    """A few requests of a case, ready to be scored. Axis n counts its requests."""

    start: int  # index of its first request in the case
    requests: list[Request]  # n requests
    candidates: Mask  # [n, T]
    rows: Indices  # [m] request, within the chunk, of each target
    columns: Indices  # [m] title column of each target


@dataclass(frozen=True)
class EvaluationCase:
    """Requests, targets and candidates of one canvas under one protocol."""

    protocol: str
    split_digest: str
    fold: Fold
    canvas: str
    catalogue: TitleOrder  # the titles, in tie order (axis T)
    tables: EvaluationTables
    log: EventLog
    # [N] one row per request: `REQUEST_COLUMNS`, `CARRIED_COLUMNS`, slice columns, and `row_id` where one row is asked
    frame: pl.DataFrame
    positions: Indices  # [N] position of the held-out event in the log; the history ends before it
    rows: Indices  # [M] request of each target, ascending
    columns: Indices  # [M] title column of each target
    targets_at: Indices  # [M] position of each target's event in the log
    rule: CandidateRule  # the canvas's candidates
    left_out: int = 0  # targets that the canvas could not have shown, which are no part of the case
    drawn_from: int = 0  # requests that these were drawn from at random; 0 = they are all there are
    notes: tuple[str, ...] = ()  # what is to be said of its targets beside their number
    # whether requests are those that the log has of this canvas; else it is asked at those of all canvases
    logged: bool = False

    def __len__(self) -> int:
        return self.frame.height

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides which titles compete and which count."""
        requested = [*self.frame["request_id"], *(self.frame["query"].fill_null("")), *self.catalogue.title_ids]
        if self.logged:
            texts = self.frame.select(
                pl.concat_str(pl.col(*CARRIED_COLUMNS).cast(pl.String).fill_null(""), separator="/")
            )
            requested += [f"as logged, requests {REQUESTS}", *texts.to_series()]
        if "row_id" in self.frame.columns:  # of one row, whose candidates depend on what it is about
            requested += [*self.frame["row_id"]]
        head = json.dumps([self.canvas, self.fold, self.protocol, self.rule.spec.model_dump(mode="json")])
        digest = hashlib.sha256(head.encode())
        digest.update(json.dumps(requested).encode())
        digest.update(self.rows.tobytes() + self.columns.tobytes())
        return digest.hexdigest()

    @property
    def target_counts(self) -> Indices:
        """[N] number of targets of each request."""
        return np.bincount(self.rows, minlength=len(self)).astype(np.int64)

    def chunks(self) -> Iterator[Chunk]:
        """Go through the case in pieces of at most `CELLS_AT_ONCE` request x title cells."""
        for start, stop, mask, rows, columns in self._pieces():
            yield Chunk(start, self._requests(start, stop), mask, rows, columns)

    def reachable(self) -> Mask:
        """[M] whether each target is among its request's candidates."""
        found = [piece.candidates[piece.rows, piece.columns] for piece in self._pieces()]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.bool_)

    def part(self, start: int, stop: int) -> EvaluationCase:
        """Return the requests from `start` up to `stop` as a case of their own."""
        low, high = np.searchsorted(self.rows, [start, stop])
        return self.selected(slice(start, stop), slice(low, high), self.rows[low:high] - start)

    def selected(self, requests: Indices | slice, targets: Indices | Mask | slice, rows: Indices) -> EvaluationCase:
        """Return the case with some requests, and some targets ([M'] `rows` say of which of those requests)."""
        return replace(
            self,
            frame=self.frame[requests],
            positions=self.positions[requests],
            rows=rows.astype(np.int64),
            columns=self.columns[targets],
            targets_at=self.targets_at[targets],
        )

    def in_time_order(self) -> tuple[EvaluationCase, Indices, Indices]:
        """Return the case by time of request, and where each of its requests and of its targets was before."""
        order = np.argsort(microseconds(self.frame["at"]), kind="stable").astype(np.int64)
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        rows = place[self.rows]
        targets = np.argsort(rows, kind="stable").astype(np.int64)
        return self.selected(order, targets, rows[targets]), order, targets

    def keep(self, targets: Mask) -> EvaluationCase:
        """Return the case with some of its targets ([M]), without requests that lose all of theirs."""
        requested, rows = np.unique(self.rows[targets], return_inverse=True)
        left_out = self.left_out + int((~targets).sum())
        return replace(self.selected(requested, targets, rows), left_out=left_out)

    def _pieces(self) -> Iterator[_Piece]:
        step = max(1, CELLS_AT_ONCE // max(1, len(self.catalogue)))
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            low, high = np.searchsorted(self.rows, [start, stop])
            mask = self.rule.mask(self.frame[start:stop], self.positions[start:stop])
            yield _Piece(start, stop, mask, self.rows[low:high] - start, self.columns[low:high])

    def _requests(self, start: int, stop: int) -> list[Request]:
        part = self.frame[start:stop].select(REQUEST_FIELDS)
        positions = self.positions[start:stop].tolist()
        # Requests of one moment share their past's frame, which a scorer then reads once.
        pasts = {position: self.log.past(position) for position in set(positions)}
        return [
            Request(canvas=self.canvas, history=pasts[position], features={}, **row)
            for position, row in zip(positions, part.iter_rows(named=True), strict=True)
        ]


class _Piece(NamedTuple):
    start: int
    stop: int
    candidates: Mask
    rows: Indices
    columns: Indices


@dataclass(frozen=True)
class CandidateRule:
    """A canvas's candidates. The whole catalogue is considered; nothing is sampled."""

    spec: CandidatesSpec  # what the canvas says
    catalogue: Catalogue
    order: TitleOrder
    log: EventLog  # the events; what was watched, and what a protocol lets popularity count
    profiles: Profiles  # members as they were at each moment

    @classmethod
    def of(cls, canvas: CanvasSpec, tables: EvaluationTables, order: TitleOrder, log: EventLog) -> CandidateRule:
        """Read a canvas's rule and the tables it depends on."""
        catalogue = Catalogue(order.title_ids, tables.titles, tables.availability)
        members = tables.members if tables.member_versions is None else tables.member_versions
        return cls(canvas.candidates, catalogue, order, log, Profiles.of(members))

    def mask(self, requests: pl.DataFrame, positions: Indices) -> Mask:
        """Mark the candidates of each request, [N, T].

        `requests` have member_id, at, country and source_title_id; `positions` [N] are where histories end in the log.
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

    def _plays(self, at: datetime) -> Indices:
        return self.plays.before(at)

    def _week(self, at: datetime, country: str) -> Indices:
        return self.plays.of_week(at, country)

    def _past(self, position: int) -> MemberHistory:
        return past_of(self.log.past(position), self.catalogue)


@dataclass(frozen=True)
class RowRule(CandidateRule):
    """One row's candidates: those of its rules that what a generated row is about has.

    With `genre_consistency` every title of a genre row must have the genre.
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


def launches(catalogue: Catalogue, countries: Sequence[str | None], columns: Indices) -> Indices:
    """Return the launch of one title ([N] columns) per request in its country, microseconds, `NEVER` without one."""
    known = np.array([country or UNKNOWN_COUNTRY for country in countries], dtype=object)
    found = np.full(known.size, NEVER, dtype=np.int64)
    for country in set(known.tolist()):
        rows = np.nonzero(known == country)[0]
        found[rows] = catalogue.launches(country)[columns[rows]]
    return found
