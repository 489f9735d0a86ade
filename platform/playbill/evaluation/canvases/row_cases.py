"""Pages of the log as requests for an order of their rows: which rows a page had, and which were played from.

Axis letters: N pages, P rows of pages, E events.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import polars as pl

from playbill.arrays import Indices, Mask
from playbill.datasets import Request, Split
from playbill.datasets.examples.labelled import NAME_END, assert_held_out_later
from playbill.definitions.specs import CanvasSpec, ResolvedModel
from playbill.errors import StateError
from playbill.evaluation.cases.boundaries import assert_history_before
from playbill.evaluation.cases.build import request_frame
from playbill.evaluation.cases.case import REQUEST_FIELDS, Fold
from playbill.evaluation.cases.event_log import TRAIN, EvaluationTables, EventLog, TitleOrder
from playbill.evaluation.cases.slices import add_tenure
from playbill.labels import extract

ROW_COLUMNS = ("row_id", "name", "stated", "source_title_id", "title_id")
"""Of a row of a page: its id, its definition's name, what the id says after it, its source title, its first title."""


@dataclass(frozen=True)
class RowCase:
    """Pages and their rows."""

    protocol: str
    split_digest: str
    fold: Fold
    canvas: str  # canvas that is asked for an order
    requested_as: str  # canvas of the pages
    written: tuple[str, ...]  # names of that canvas's rows, in the order they are written in
    log: EventLog
    frame: pl.DataFrame  # [N] `cases.REQUEST_COLUMNS` of each page's request, with slice columns
    positions: Indices  # [N] position of the page's first event in the log; the history ends before it
    rows: pl.DataFrame  # [P] `ROW_COLUMNS`, page after page, each in the order in which its rows were looked at
    pages: Indices  # [P] page of each row, ascending
    played: Mask  # [P] whether the canvas's label says that something was played from the row
    rates: dict[str, float]  # name of a row -> how often rows of this name were played from in the train fold
    left_out: int = 0  # pages that say nothing of an order: see `ordered`
    logged: bool = True

    def __len__(self) -> int:
        return self.frame.height

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides which rows compete and which count."""
        head = json.dumps(
            [self.canvas, self.requested_as, self.fold, self.protocol, self.frame["request_id"].to_list()]
        )
        digest = hashlib.sha256(head.encode())
        digest.update(json.dumps(self.rows["row_id"].to_list()).encode())
        digest.update(self.pages.tobytes() + self.played.tobytes())
        return digest.hexdigest()

    @property
    def catalogue(self) -> Sequence[str]:
        """Every row that is on some page."""
        return sorted(set(self.rows["row_id"]))

    @property
    def target_counts(self) -> Indices:
        """[N] rows of each page that were played from."""
        return np.bincount(self.pages[self.played], minlength=len(self)).astype(np.int64)

    def requests(self) -> list[Request]:
        """Return the pages' requests, as the canvas of the pages is asked."""
        requested = self.frame.select(REQUEST_FIELDS).iter_rows(named=True)
        return [
            Request(canvas=self.requested_as, history=self.log.past(position), features={}, **row)
            for position, row in zip(self.positions.tolist(), requested, strict=True)
        ]

    @property
    def tells_order(self) -> Mask:
        """[N] whether a page says something of an order."""
        several: Mask = np.bincount(self.pages, minlength=len(self)) > 1
        return several & (self.target_counts > 0)

    def ordered(self) -> RowCase:
        """Return the pages that say something of an order: several rows, and one that was played from."""
        kept = self.tells_order
        return replace(self.keep(kept), left_out=int((~kept).sum()))

    def keep(self, kept: Mask) -> RowCase:
        """Return the case with only some pages ([N])."""
        there = kept[self.pages]
        return replace(
            self,
            frame=self.frame.filter(pl.Series(kept)),
            positions=self.positions[kept],
            rows=self.rows.filter(pl.Series(there)),
            pages=(np.cumsum(kept) - 1)[self.pages[there]].astype(np.int64),
            played=self.played[there],
        )


def build_row_case(
    tables: EvaluationTables,
    split: Split,
    resolved: ResolvedModel,
    canvas: str,
    *,
    fold: Fold = "test",
    log: EventLog | None = None,
) -> RowCase:
    """Gather the held-out pages whose rows a canvas ranks.

    A page is what one request showed; its rows are those that were looked at, and those with a play are its targets. It
    is asked before its first event, with no more than who asks, when and from where, and it is of the fold that it
    begins in. Pages that say nothing of an order are among them.

    Raises:
        UnknownNameError: The model has no such canvas.
        StateError: The fold has no page with a row that was played from.
        IntegrityError: Something later than a request would take part in its answer.
    """
    assert_held_out_later(tables.interactions, split)
    spec = resolved.canvas(canvas)
    titles = TitleOrder.of(tables.titles["title_id"].to_list())
    log = EventLog.of(tables.interactions, split, titles) if log is None else log.under(split.protocol)
    rows = _labelled_rows(tables, log, resolved, spec, tables.end)
    held = rows.filter(pl.col("fold") == fold)
    decided = held.filter((pl.col("value") > 0).any().over("page"), pl.len().over("page") > 1)
    if decided.is_empty():
        raise StateError(
            f"protocol '{split.protocol}' holds out no page on '{spec.requested_as}' with several rows and a play from "
            f"one in its {fold} fold, so canvas '{canvas}' cannot be measured on it"
        )
    positions, pages = np.unique(held["page"].to_numpy(), return_inverse=True)
    frame = request_frame(log.frame[positions])
    case = RowCase(
        protocol=split.protocol,
        split_digest=split.digest,
        fold=fold,
        canvas=canvas,
        requested_as=spec.requested_as,
        written=tuple(row.name for row in resolved.rows_of(spec.requested_as)),
        log=log,
        frame=add_tenure(frame, tables),
        positions=positions,
        rows=held.select(ROW_COLUMNS),
        pages=pages.astype(np.int64),
        played=(held["value"] > 0).to_numpy(),
        rates=_rates(tables, log, resolved, spec),
    )
    assert_history_before(case)
    return case


def _rates(tables: EvaluationTables, log: EventLog, resolved: ResolvedModel, spec: CanvasSpec) -> dict[str, float]:
    last = log.frame.filter(pl.Series(log.trained()))["event_at"].max()
    if not isinstance(last, datetime):
        return {}
    rows = _labelled_rows(tables, log, resolved, spec, last).filter(pl.col("fold") == TRAIN)
    return dict(rows.group_by("name").agg((pl.col("value") > 0).mean()).iter_rows())


def _labelled_rows(
    tables: EvaluationTables, log: EventLog, resolved: ResolvedModel, spec: CanvasSpec, as_of: datetime
) -> pl.DataFrame:
    values = extract(resolved.labels[spec.metric], tables.interactions, as_of, tables.availability)
    began = pl.col("place").min().over("member_id", "request_id")
    known = log.frame.filter(pl.col("request_id").is_not_null()).with_columns(page=began)
    known = known.with_columns(fold=pl.col("fold").first().over("page"))
    shown = (pl.col(name).is_not_null() for name in ("row_id", "title_id"))
    here = known.filter(pl.col("canvas") == spec.requested_as, *shown)
    rows = here.join(values.select("event_id", "value"), on="event_id", how="inner", maintain_order="left")
    parts = pl.col("row_id").str.splitn(NAME_END, 2).struct
    named = rows.sort("page", "place").with_columns(name=parts.field("field_0"), stated=parts.field("field_1"))
    return named.select(*ROW_COLUMNS, "value", "page", "fold")
