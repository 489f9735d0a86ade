"""Evaluation cases: the held-out requests of a protocol on one canvas, their targets and candidates.

A request is asked at the moment of a held-out event. Its history is what the member did strictly before that
event, by `seq`; so the test request of `leave_one_out` sees the validation event. Candidates are everything
the canvas may show at that moment in that country.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from playbill.datasets import Request
from playbill.datasets.splits import REQUESTS
from playbill.evaluation.cases.candidates import CandidateRule
from playbill.evaluation.cases.data import EvaluationTables
from playbill.evaluation.cases.event_log import EventLog
from playbill.evaluation.cases.order import TitleOrder, microseconds
from playbill.metrics.topk import Indices, Mask

Fold = Literal["validation", "test"]
CELLS_AT_ONCE = 8_000_000
"""Request x title cells that a chunk may hold; bounds memory at some 150 MB."""

REQUEST_COLUMNS = ("request_id", "event_id", "member_id", "at", "country", "device", "language", "canvas")
ASKED_COLUMNS = {"query": pl.String, "source_title_id": pl.String, "row": pl.String, "row_position": pl.Int32}
"""What a request may carry beyond who asks, when and from where; null where it does not."""
CARRIED = {"query": "query", "source_title": "source_title_id"}
"""Context field of a canvas -> the column of a held-out event that is its request's own. Rows and places are not: on a
held-out event they are those of the answer."""
ASKED_FIELDS = tuple(field.name for field in fields(Request) if field.name not in ("canvas", "history", "features"))
"""Fields of a request that are columns of a case's frame."""


@dataclass(frozen=True)
class Chunk:
    """A few requests of a case, ready to be scored. Axis n counts its requests.

    Args:
        start: Index of its first request in the case.
        requests: n requests.
        candidates: [n, T].
        rows: [m] request, within the chunk, of each target.
        columns: [m] title column of each target.
    """

    start: int
    requests: list[Request]
    candidates: Mask
    rows: Indices
    columns: Indices


@dataclass(frozen=True)
class EvaluationCase:
    """Requests, targets and candidates of one canvas under one protocol.

    Args:
        protocol: Name of the protocol.
        split_digest: Digest of the split it is built on.
        fold: Fold that is held out.
        canvas: Canvas that is asked.
        catalogue: The titles, in tie order (axis T).
        tables: The canonical tables.
        log: The events.
        frame: [N] one row per request: `REQUEST_COLUMNS`, `ASKED_COLUMNS`, slice columns, and `row_id` where one row
            is asked.
        positions: [N] position of the held-out event in the log; the history ends before it.
        rows: [M] request of each target, ascending.
        columns: [M] title column of each target.
        targets_at: [M] position of each target's event in the log.
        rule: The canvas's candidates.
        left_out: Targets that the canvas could not have shown, which are no part of the case.
        drawn_from: Requests that these were drawn from at random; 0 = they are all there are.
        logged: Whether requests are those that the log has of this canvas; else it is asked at those of all canvases.
    """

    protocol: str
    split_digest: str
    fold: Fold
    canvas: str
    catalogue: TitleOrder
    tables: EvaluationTables
    log: EventLog
    frame: pl.DataFrame
    positions: Indices
    rows: Indices
    columns: Indices
    targets_at: Indices
    rule: CandidateRule
    left_out: int = 0
    drawn_from: int = 0
    logged: bool = False

    def __len__(self) -> int:
        return self.frame.height

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides which titles compete and which count."""
        asked = [*self.frame["request_id"], *(self.frame["query"].fill_null("")), *self.catalogue.title_ids]
        if self.logged:
            said = self.frame.select(pl.concat_str(pl.col(*ASKED_COLUMNS).cast(pl.String).fill_null(""), separator="/"))
            asked += [f"as logged, requests {REQUESTS}", *said.to_series()]
        if "row_id" in self.frame.columns:  # of one row, whose candidates depend on what it is about
            asked += [*self.frame["row_id"]]
        head = json.dumps([self.canvas, self.fold, self.protocol, self.rule.spec.model_dump(mode="json")])
        digest = hashlib.sha256(head.encode())
        digest.update(json.dumps(asked).encode())
        digest.update(self.rows.tobytes() + self.columns.tobytes())
        return digest.hexdigest()

    @property
    def target_counts(self) -> Indices:
        """[N] number of targets of each request."""
        return np.bincount(self.rows, minlength=len(self)).astype(np.int64)

    def chunks(self) -> Iterator[Chunk]:
        """Go through the case in pieces of at most `CELLS_AT_ONCE` request x title cells."""
        for piece in self._pieces():
            yield Chunk(
                start=piece.start,
                requests=self._requests(piece.start, piece.stop),
                candidates=piece.candidates,
                rows=piece.rows,
                columns=piece.columns,
            )

    def reachable(self) -> Mask:
        """[M] whether each target is among its request's candidates."""
        found = [piece.candidates[piece.rows, piece.columns] for piece in self._pieces()]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.bool_)

    def part(self, start: int, stop: int) -> EvaluationCase:
        """Return the requests from `start` up to `stop` as a case of their own."""
        low, high = np.searchsorted(self.rows, [start, stop])
        return replace(
            self,
            frame=self.frame[start:stop],
            positions=self.positions[start:stop],
            rows=self.rows[low:high] - start,
            columns=self.columns[low:high],
            targets_at=self.targets_at[low:high],
        )

    def in_time_order(self) -> tuple[EvaluationCase, Indices, Indices]:
        """Return the case by time of request, and where each of its requests and of its targets was before."""
        order = np.argsort(microseconds(self.frame["at"]), kind="stable").astype(np.int64)
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        rows = place[self.rows]
        targets = np.argsort(rows, kind="stable").astype(np.int64)
        ordered = replace(
            self,
            frame=self.frame[order],
            positions=self.positions[order],
            rows=rows[targets],
            columns=self.columns[targets],
            targets_at=self.targets_at[targets],
        )
        return ordered, order, targets

    def keep(self, targets: Mask) -> EvaluationCase:
        """Return the case with only some targets, without the requests that lose all of theirs.

        Args:
            targets: [M] which targets stay; the others are counted in `left_out`.
        """
        asked, rows = np.unique(self.rows[targets], return_inverse=True)
        return replace(
            self,
            frame=self.frame[asked],
            positions=self.positions[asked],
            rows=rows.astype(np.int64),
            columns=self.columns[targets],
            targets_at=self.targets_at[targets],
            left_out=self.left_out + int((~targets).sum()),
        )

    def _pieces(self) -> Iterator[_Piece]:
        step = max(1, CELLS_AT_ONCE // max(1, len(self.catalogue)))
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            low, high = np.searchsorted(self.rows, [start, stop])
            mask = self.rule.mask(self.frame[start:stop], self.positions[start:stop])
            yield _Piece(start, stop, mask, self.rows[low:high] - start, self.columns[low:high])

    def _requests(self, start: int, stop: int) -> list[Request]:
        part = self.frame[start:stop].select(ASKED_FIELDS)
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
