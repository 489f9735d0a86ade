"""Searches as they were typed: what was asked, with what in mind, and how good the answer is.

A search is an event with a query; what its member wanted is the title that was played in the same request, or, where a
simulation knows better, what they had in mind. Some of what is wanted cannot be shown: then the list is judged by how
near it comes. Axis letters: N searches, T titles, K places.

Lists of titles like a title, judged by what is known of the titles instead of by what was played next.

Axis letters: S source titles, T titles, K places.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.arrays import AnyFloats, Indices, Ints64, Mask
from playbill.datasets import Request
from playbill.evaluation.cases.event_log import UNKNOWN, TitleOrder

QUERY_LENGTHS = ("1", "2", "3", "4+")
Scores = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Searches:
    """N searches.

    Args:
        frame: [N] request_id, member_id, at, country, device, language, query, and wanted (null = nothing that has an
            id).
    """

    frame: pl.DataFrame
    positions: Indices  # [N] place in `events` that each one's past ends before
    events: pl.DataFrame  # The log, sorted by member_id and seq
    starts: Indices  # [N] place in `events` of each one's member

    def __len__(self) -> int:
        return self.frame.height

    @classmethod
    def logged(cls, events: pl.DataFrame, after: datetime) -> Searches:
        """Read the searches of a log since a moment; wanted is what was played in the same request."""
        ordered = events.sort("member_id", "seq").with_row_index("place")
        played = ordered.filter((pl.col("action") == "play") & pl.col("request_id").is_not_null())
        wanted = played.group_by("request_id").agg(wanted=pl.col("title_id").first())
        starts = ordered.group_by("member_id").agg(start=pl.col("place").min())
        requested = ordered.filter((pl.col("action") == "search") & (pl.col("event_at") >= after))
        requested = requested.filter(pl.col("query").str.len_chars() > 0)
        requested = requested.join(wanted, on="request_id", how="left", maintain_order="left")
        requested = requested.join(starts, on="member_id", how="left", maintain_order="left")
        columns = ("request_id", "member_id", "country", "device", "language", "query", "wanted")
        frame = requested.select(*columns, at="event_at")
        places = (requested[name].to_numpy().astype(np.int64) for name in ("place", "start"))
        return cls(frame, next(places), ordered.drop("place"), next(places))

    def wanting(self, wanted: pl.Series) -> Searches:
        """Return the same searches for other titles: [N] ids, null = nothing that has one."""
        return Searches(self.frame.with_columns(wanted=wanted), self.positions, self.events, self.starts)

    def asking(self, queries: pl.Series) -> Searches:
        """Return the same searches with other queries, [N]."""
        return Searches(self.frame.with_columns(query=queries), self.positions, self.events, self.starts)

    def keep(self, chosen: Mask) -> Searches:
        """Return some of the searches."""
        return Searches(self.frame.filter(pl.Series(chosen)), self.positions[chosen], self.events, self.starts[chosen])

    def requests(self, canvas: str = "search") -> list[Request]:
        """Return [N] requests, each with what its member did before."""
        return [
            Request(
                canvas=canvas,
                at=row["at"],
                member_id=row["member_id"],
                country=row["country"],
                device=row["device"],
                language=row["language"],
                query=row["query"],
                history=self.events.slice(start, place - start),
            )
            for row, start, place in zip(
                self.frame.iter_rows(named=True), self.starts.tolist(), self.positions.tolist(), strict=True
            )
        ]

    def candidates(self, availability: pl.DataFrame, catalogue: TitleOrder) -> Mask:
        """Return [N, T] which titles could be watched in each one's country at its moment."""
        spans = availability.with_columns(column=pl.Series(catalogue.codes(availability["title_id"])))
        spans = spans.filter(pl.col("column") != UNKNOWN)
        found = np.zeros((len(self), len(catalogue)), np.bool_)
        requested = self.frame.select("country", "at").with_row_index("row")
        pairs = requested.join(spans, on="country").filter(
            (pl.col("available_from") <= pl.col("at"))
            & (pl.col("available_until").is_null() | (pl.col("available_until") > pl.col("at")))
        )
        found[pairs["row"].to_numpy(), pairs["column"].to_numpy()] = True
        return found


def query_lengths(queries: pl.Series) -> pl.Series:
    """Return one of `QUERY_LENGTHS` for each query."""
    letters = queries.str.strip_chars().str.len_chars()
    return pl.select(pl.when(letters >= 4).then(pl.lit("4+")).otherwise(letters.cast(pl.String))).to_series()


def target_ranks(scores: Scores, candidates: Mask, columns: Indices) -> npt.NDArray[np.float64]:
    """Return [N] the rank of each target from 0, the mean over ties; nan where it is no candidate.

    Args:
        scores: [N, T].
        candidates: [N, T].
        columns: [N] title column of each target, `UNKNOWN` = none.
    """
    rows = np.arange(len(columns))
    own = scores[rows, columns][:, None]
    above = ((scores > own) & candidates).sum(axis=1)
    beside = ((scores == own) & candidates).sum(axis=1) - 1
    there = (columns != UNKNOWN) & candidates[rows, columns]
    return np.where(there, above + np.maximum(beside, 0) / 2, np.nan)


def first_titles(scores: Scores, candidates: Mask, k: int = 10) -> Indices:
    """Return [N, K] the columns of each list, best first; fewer candidates than K give `UNKNOWN` at the end."""
    masked = np.where(candidates, scores, -np.inf)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(masked, order, axis=1) > -np.inf, order, UNKNOWN)


def nearness(lists: Indices, likeness: Scores, candidates: Mask) -> npt.NDArray[np.float64]:
    """Return [N] how near each list comes to what was wanted, as a share of the nearest list there could be.

    Args:
        lists: [N, K] columns, from `first_titles`.
        likeness: [N, T] how like what was wanted each title is.
        candidates: [N, T].
    """
    k = lists.shape[1]
    masked = np.where(candidates, likeness, -np.inf)
    best = -np.sort(-masked, axis=1)[:, :k]
    got = np.where(lists == UNKNOWN, 0.0, np.take_along_axis(masked, np.maximum(lists, 0), axis=1))
    best = np.where(np.isfinite(best), best, 0.0).sum(axis=1)
    missing = np.full(len(lists), np.nan)
    found: npt.NDArray[np.float64] = np.divide(got.sum(axis=1), best, out=missing, where=best > 0)
    return found


def accuracy(ranks: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the metrics of single targets by name, [N] each: hr@1, hr@10, mrr and ndcg@10."""
    listed = ranks < 10
    return {
        "hr@1": (ranks < 1).astype(np.float64),
        "hr@10": listed.astype(np.float64),
        "mrr": 1 / (ranks + 1),
        "ndcg@10": np.where(listed, 1 / np.log2(ranks + 2), 0.0),
    }


def shared_metadata(titles: pl.DataFrame) -> npt.NDArray[np.float64]:
    """Return [T, T] how much of their genres, language and kind two titles share, from 0 to 1.

    The mean of the genres' Jaccard index, with weight 0.6, and of being of one language and of one kind, with 0.2 each.
    It stands in for judgements by people. What it is made of is also what semantic likeness reads, so it can show that
    a list is about something, and not that the list is good.
    """
    genres = sorted({genre for own in titles["genres"].to_list() for genre in own or []})
    place = {genre: number for number, genre in enumerate(genres)}
    has = np.zeros((titles.height, len(genres)))
    for row, own in enumerate(titles["genres"].to_list()):
        has[row, [place[genre] for genre in own or []]] = 1.0
    common = has @ has.T
    either = has.sum(axis=1)[:, None] + has.sum(axis=1)[None, :] - common
    shared: npt.NDArray[np.float64] = 0.6 * common / np.maximum(either, 1.0)
    for column in ("original_language", "kind"):
        values = titles[column].fill_null("").to_numpy().astype(str)
        shared += 0.2 * ((values[:, None] == values[None, :]) & (values != "")[:, None])
    return shared


def listed(scores: AnyFloats, candidates: Mask, sources: Ints64, k: int = 10) -> Ints64:
    """Return [S, K] the titles most like each source, the source itself left out.

    Args:
        scores: [S, T].
        candidates: [T] what may be listed.
        sources: [S] column of each source.
        k: Places.
    """
    masked = np.where(candidates[None, :], scores, -np.inf)
    masked[np.arange(len(sources)), sources] = -np.inf
    return np.argsort(-masked, axis=1, kind="stable")[:, :k]


def mean_likeness(lists: Ints64, judged: AnyFloats, candidates: Mask, sources: Ints64) -> AnyFloats:
    """Return [S] the likeness of each list to its source, as a share of the best list that there could be.

    Args:
        lists: [S, K] columns, from `listed`.
        judged: [S, T] likeness by truth, by metadata, or by any other judge.
        candidates: [T].
        sources: [S].
    """
    masked = np.where(candidates[None, :], judged, -np.inf)
    masked[np.arange(len(sources)), sources] = -np.inf
    best = -np.sort(-masked, axis=1)[:, : lists.shape[1]].sum(axis=1)
    got = np.take_along_axis(masked, lists, axis=1).sum(axis=1)
    found: AnyFloats = np.divide(got, best, out=np.full(len(sources), np.nan), where=best > 0)
    return found
