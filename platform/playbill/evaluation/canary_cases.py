"""Cases with something planted or provoked, for leakage canaries: another future, random targets, another order.

Axis letters: N requests, T titles, E events.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from playbill.datasets import Request
from playbill.datasets.splits import TIME_PROTOCOLS
from playbill.evaluation.cases.candidates import CandidateRule
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import EventLog
from playbill.evaluation.cases.order import UNKNOWN, microseconds
from playbill.metrics.topk import Indices, Mask

CUTS = 4
"""Moments at which the future is another one, spread over the held-out period."""
REQUESTS_PER_CUT = 25
_KEYS = ("event_id", "member_id", "seq", "event_at", "recorded_at")


def cuts(case: EvaluationCase) -> list[tuple[int, Indices]]:
    """Return moments and the requests to score at each: those at it, and the ones just before."""
    at = microseconds(case.frame["at"])
    order = np.argsort(at, kind="stable")
    if case.log.protocol not in TIME_PROTOCOLS:
        some = np.linspace(0, order.size - 1, min(order.size, CUTS * REQUESTS_PER_CUT)).astype(np.int64)
        return [(int(at.min()), np.sort(order[np.unique(some)]))]
    places = np.unique(np.linspace(0, order.size - 1, CUTS + 1).astype(np.int64)[:-1])
    found = []
    for place in places:
        stop = int(np.searchsorted(at[order], at[order[place]], side="right"))
        found.append((int(at[order[place]]), np.sort(order[max(0, stop - REQUESTS_PER_CUT) : stop])))
    return found


def unknowable(case: EvaluationCase, cut: int, asked: Indices) -> Mask:
    """[E] events that none of the requests asked, at the cut or before, may know."""
    if case.log.protocol in TIME_PROTOCOLS:
        late: Mask = microseconds(case.log.frame["event_at"]) >= cut
        for position in case.positions[asked].tolist():  # what came earlier in the very same moment is known
            late[case.log.starts[position] : position] = False
        return late
    held = pl.col("fold") == case.fold
    if case.fold == "validation":
        held |= pl.col("fold") == "test"
    return case.log.frame.select(held.fill_null(False))["fold"].to_numpy()


def with_another_future(case: EvaluationCase, chosen: Mask, seed: int) -> EvaluationCase:
    """Return the case with other titles in the chosen events, and all else they say shuffled; not who, nor when.

    Titles are drawn anew, each alike: shuffled ones would leave a count over the whole log as it was.
    """
    frame, generator = case.log.frame, np.random.default_rng(seed)
    places = np.nonzero(chosen)[0]
    order = np.arange(frame.height)
    order[places] = generator.permutation(places)
    said = [name for name in frame.columns if name not in (*_KEYS, "place", "fold")]
    column = case.log.column[order]
    titled = places[column[places] != UNKNOWN]
    column[titled] = generator.integers(0, len(case.catalogue), titled.size)
    drawn = np.array([*case.catalogue.title_ids, None], dtype=object)[column]
    anew = np.isin(np.arange(frame.height), titled)
    mixed = frame.with_columns(frame.select(said)[order]).with_columns(
        title_id=pl.when(pl.Series(anew)).then(pl.Series(drawn.tolist(), dtype=pl.String)).otherwise("title_id")
    )
    log = EventLog(
        mixed,
        mixed.drop("place", "fold"),
        column,
        case.log.starts,
        case.log.plays[order],
        case.log.protocol,
        case.log.fitted_until,
    )
    tables = replace(case.tables, interactions=log.events)
    rule = CandidateRule(case.rule.spec, case.rule.catalogue, case.rule.order, log, case.rule.profiles)
    return replace(case, log=log, tables=tables, rule=rule)


def with_random_targets(case: EvaluationCase, generator: np.random.Generator) -> tuple[EvaluationCase, Indices]:
    """Return the case with one random candidate as each request's target, in the log too, and candidates' numbers."""
    firsts = np.unique(case.rows, return_index=True)[1]
    columns, sizes = np.empty(len(case), dtype=np.int64), np.empty(len(case), dtype=np.int64)
    for chunk in case.chunks():
        span = slice(chunk.start, chunk.start + len(chunk.requests))
        keys = np.where(chunk.candidates, generator.random(chunk.candidates.shape), -1.0)
        columns[span], sizes[span] = keys.argmax(axis=1), chunk.candidates.sum(axis=1)
    at = case.targets_at[firsts]
    ids = np.array(case.catalogue.title_ids, dtype=object)[columns].tolist()
    drawn = pl.DataFrame({"place": at, "drawn": pl.Series(ids, dtype=pl.String)}).unique("place", keep="first")
    frame = case.log.frame.join(drawn, on="place", how="left", maintain_order="left")
    frame = frame.with_columns(pl.coalesce("drawn", "title_id").alias("title_id")).drop("drawn")
    column = case.catalogue.codes(frame["title_id"])
    log = replace(case.log, frame=frame, events=frame.drop("place", "fold"), column=column, pasts={})
    made = replace(
        case,
        rows=np.arange(len(case), dtype=np.int64),
        columns=columns,
        targets_at=at,
        log=log,
        tables=replace(case.tables, interactions=log.events),
    )
    return made, sizes


def in_another_order(request: Request, generator: np.random.Generator) -> Request:
    """Return the request with what its history says in another order, at the old moments."""
    history = request.history
    if history is None or history.height < 2:
        return request
    said = [name for name in history.columns if name not in _KEYS]
    mixed = history.select(said)[generator.permutation(history.height)]
    return replace(request, history=history.with_columns(mixed))
