"""Titles on the eve of their launch: what the canvases of coming titles ranked first, against what members then played.

Nobody has played such a title, so it is ranked by its metadata and by what members are. Axis letters: N requests, one
for each play of a title within a week of its launch in the member's country, asked just before the launch; T titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from playbill.arrays import Floats64, Indices
from playbill.datasets import Request
from playbill.errors import StateError
from playbill.evaluation.cases.build import only_reachable
from playbill.evaluation.cases.case import CandidateRule, launches
from playbill.evaluation.cases.event_log import microseconds
from playbill.evaluation.cases.score_function import Scores
from playbill.evaluation.measure import accuracy
from playbill.metrics import relevance_from_ranks, target_ranks
from playbill.ranking.candidates import NEVER
from playbill_lab.studies.freshness.replay import METRIC, K, ReplayedDays

WITHIN = timedelta(days=7)
GENRES, CHANCE = "popularity of genre", "chance"


@dataclass(frozen=True)
class GenrePopularity:
    """Ranks a title by how much its genres were played before a moment, whoever asks."""

    title_ids: Sequence[str]
    values: Floats64  # [T]

    @classmethod
    def before(cls, days: ReplayedDays, moment: datetime) -> GenrePopularity:
        """Count the plays of each genre; a title has the mean over its own."""
        plays = days.played_before(moment).astype(np.float64)
        genres = days.case.rule.catalogue.genres
        if not genres:
            return cls(days.case.catalogue.title_ids, np.zeros(len(plays)))
        has_TG = np.stack(list(genres.values()), axis=1).astype(np.float64)
        share_G = plays @ has_TG / np.maximum(has_TG.sum(axis=0), 1.0)
        return cls(days.case.catalogue.title_ids, has_TG @ share_G / np.maximum(has_TG.sum(axis=1), 1.0))

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return the same values for every request."""
        return np.tile(self.values, (len(requests), 1))


def eve_of_launches(days: ReplayedDays, canvas: str, rule: CandidateRule, until: datetime) -> ReplayedDays:
    """Return requests of a canvas of coming titles, each just before the launch of what its member then played.

    Raises:
        StateError: Nothing that launched in that time was played within a week of it and a candidate before.
    """
    log = days.case.log
    events = log.frame.with_row_index("event").filter(
        (pl.col("action") == "play") & (pl.col("event_at") >= days.start) & pl.Series(log.column >= 0)
    )
    columns = log.column[events["event"].to_numpy()]
    launch = launches(days.case.rule.catalogue, events["country"].to_list(), columns)
    at, since = microseconds(events["event_at"]), int(days.start.timestamp() * 1_000_000)
    stop = int(until.timestamp() * 1_000_000)
    soon = (launch != NEVER) & (launch >= since) & (launch < stop) & (at - launch < WITHIN // timedelta(microseconds=1))
    chosen = events.filter(pl.Series(soon)).with_columns(
        at=pl.Series(launch[soon] - 1).cast(pl.Datetime("us", "UTC")), column=pl.Series(columns[soon])
    )
    chosen = chosen.unique(["member_id", "title_id"], keep="first", maintain_order=True)
    if chosen.is_empty():
        raise StateError(f"no title that launched from {days.start:%Y-%m-%d} on was played within a week of its launch")
    frame = chosen.with_columns(request_id=pl.col("event_id"), canvas=pl.lit(canvas))
    frame = frame.select([name for name in days.case.frame.columns if name in frame.columns])
    missing = {
        name: pl.lit(None, dtype=kind) for name, kind in days.case.frame.schema.items() if name not in frame.columns
    }
    frame = frame.with_columns(**missing, query=pl.lit(None, pl.String), source_title_id=pl.lit(None, pl.String))
    case = replace(
        days.case,
        canvas=canvas,
        frame=frame.select(days.case.frame.columns),
        positions=_before(log.frame, chosen),
        rows=np.arange(chosen.height),
        columns=chosen["column"].to_numpy().astype(np.int64),
        targets_at=chosen["event"].to_numpy().astype(np.int64),
        rule=rule,
        left_out=0,
    )
    ordered, _, _ = only_reachable(case, f"canvas '{canvas}' on the eve of launches").in_time_order()
    return replace(days, case=ordered)


def _before(log: pl.DataFrame, chosen: pl.DataFrame) -> Indices:
    """Return the position of each request in the log: that of its member's first event from its moment on."""
    starts = log.with_row_index("event").group_by("member_id").agg(pl.col("event").min(), moments=pl.col("event_at"))
    own = {member: (first, moments) for member, first, moments in starts.iter_rows()}
    found = []
    for member, at in chosen.select("member_id", "at").iter_rows():
        first, moments = own[member]
        found.append(first + sum(moment < at for moment in moments))
    return np.array(found, np.int64)


def beside(days: ReplayedDays, moment: datetime) -> pl.DataFrame:
    """Return `METRIC` of what needs no model, a row for each request: the popularity of genres, and chance.

    Chance is the expectation over all orders of a request's candidates.
    """
    case, own = days.case, GenrePopularity.before(days, moment)
    values, chance = np.zeros(len(case)), np.zeros(len(case))
    gains = 1.0 / np.log2(np.arange(2, K + 2))
    for chunk in case.chunks():
        part = slice(chunk.start, chunk.start + len(chunk.requests))
        ranks = target_ranks(own.score(chunk.requests), chunk.rows, chunk.columns, chunk.candidates)
        relevance = relevance_from_ranks(ranks, chunk.rows, len(chunk.requests), K)
        values[part] = accuracy(relevance, np.bincount(chunk.rows, minlength=len(chunk.requests)), K)[METRIC]
        sizes = chunk.candidates.sum(axis=1)
        chance[part] = [gains[:size].sum() / size for size in sizes.tolist()]
    return pl.DataFrame({"place": np.arange(len(case)), GENRES: values, CHANCE: chance})
