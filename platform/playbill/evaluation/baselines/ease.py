"""EASE, the linear item-item model with a closed-form solution, as a baseline: it is hard to beat.

The model and its source are in `playbill.models.ease`; other item-to-item and factor baselines use the play matrix.
Axis letters: N requests, U members, T titles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import sparse

from playbill import metrics
from playbill.arrays import Floats64, Indices
from playbill.datasets import Request
from playbill.errors import ConfigError, IntegrityError
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import PLAY, UNKNOWN, TitleOrder
from playbill.evaluation.cases.score_function import Scores
from playbill.models.ease import DEFAULT_PENALTY, Square, played_both, solve
from playbill.ranking.scoring.history_terms import together

PENALTIES = (100.0, 200.0, 500.0, 1000.0, 2000.0)  # what `pick_penalty` tries
LARGEST_CATALOGUE = 20_000
"""Titles. Three T x T float32 arrays are held while solving: 4.8 GB there, and the time grows with T cubed."""


class Ease:
    """Scores are x B ([T, T]), where x [T] marks the member's played titles; an empty past gets the backoff [T]."""

    def __init__(self, catalogue: TitleOrder, weights: Square, backoff: Floats64) -> None:
        self.title_ids: Sequence[str] = catalogue.title_ids
        self.weights = weights
        self._catalogue, self._backoff = catalogue, backoff.astype(np.float32)

    @classmethod
    def fit(
        cls, catalogue: TitleOrder, plays: pl.DataFrame, penalty: float = DEFAULT_PENALTY, *, backoff: Floats64
    ) -> Ease:
        """Solve for B; plays are rows of member_id and title_id, repeated ones count once; the penalty is lambda > 0.

        Raises:
            ConfigError: The catalogue exceeds `LARGEST_CATALOGUE`, or the penalty is not positive.
        """
        return cls(catalogue, solve(gram(catalogue, plays), penalty), backoff)

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T] from the titles each request's history played."""
        rows, columns = played(requests, self._catalogue)
        past = np.zeros((len(requests), len(self._catalogue)), dtype=np.float32)
        past[rows, columns] = 1.0
        scores: Scores = past @ self.weights
        scores[~past.any(axis=1)] = self._backoff
        return scores


def gram(catalogue: TitleOrder, plays: pl.DataFrame) -> Square:
    """Return X'X [T, T]: how many members played both titles.

    Raises:
        ConfigError: The catalogue exceeds `LARGEST_CATALOGUE`.
    """
    size = len(catalogue)
    if size > LARGEST_CATALOGUE:
        raise ConfigError(
            f"EASE solves a {size} x {size} system; it is meant for at most {LARGEST_CATALOGUE} titles. "
            "Leave 'ease' out of the baselines"
        )
    return played_both(play_matrix(catalogue, plays))


def pick_penalty(validation: EvaluationCase, penalties: Sequence[float] = PENALTIES, k: int = 10) -> float:
    """Return the penalty with the best NDCG@k on a validation case; the smaller one of equals.

    Raises:
        IntegrityError: The case holds out another fold than `validation`.
    """
    if validation.fold != "validation":
        raise IntegrityError(
            f"the penalty of 'ease' would be chosen on the {validation.fold} fold that it is reported on; "
            "build_case(..., fold='validation') makes the case for it"
        )
    counts = gram(validation.catalogue, validation.log.fitted_plays())
    nothing = np.zeros(len(validation.catalogue))
    return max(
        sorted(penalties),
        key=lambda penalty: mean_ndcg(Ease(validation.catalogue, solve(counts, penalty), nothing), validation, k),
    )


def mean_ndcg(model: Ease, case: EvaluationCase, k: int) -> float:
    """Return the mean NDCG@k over the requests of a case."""
    gained = 0.0
    for chunk in case.chunks():
        n = len(chunk.requests)
        ranks = metrics.target_ranks(model.score(chunk.requests), chunk.rows, chunk.columns, chunk.candidates)
        relevance = metrics.relevance_from_ranks(ranks, chunk.rows, n, k)
        gained += float(metrics.ndcg(relevance, np.bincount(chunk.rows, minlength=n), k).sum())
    return gained / len(case)


def play_matrix(catalogue: TitleOrder, plays: pl.DataFrame) -> sparse.csr_array:
    """Return who played what, [U, T] float32 of zeros and ones, members by id; repeated plays count once.

    Plays of titles outside the catalogue are left out, and so are members without any other.
    """
    columns = catalogue.codes(plays["title_id"])
    known = columns != UNKNOWN
    members = plays["member_id"].filter(pl.Series(known)).rank("dense").to_numpy().astype(np.int64) - 1
    return _binary(members, columns[known], len(catalogue))


def past_matrix(catalogue: TitleOrder, requests: Sequence[Request]) -> sparse.csr_array:
    """Return what each request's history played, [N, T] float32 of zeros and ones."""
    rows, columns = played(requests, catalogue)
    return _binary(rows, columns, len(catalogue), len(requests))


def played(requests: Sequence[Request], catalogue: TitleOrder) -> tuple[Indices, Indices]:
    """Return pairs (request, title column) of the plays in each request's history."""
    histories = [(row, request.history) for row, request in enumerate(requests) if request.history is not None]
    if not histories:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    lengths = [history.height for _, history in histories]
    rows = np.repeat(np.array([row for row, _ in histories], dtype=np.int64), lengths)
    frames = [history for _, history in histories]
    columns = catalogue.codes(together(frames, "title_id"))
    plays = together(frames, "action") == PLAY
    known = (columns != UNKNOWN) & plays.to_numpy()
    return rows[known], columns[known]


def check_size(name: str, catalogue: TitleOrder, largest: int, why: str) -> None:
    """Refuse a catalogue that a baseline cannot hold; `why` says what grows with the titles.

    Raises:
        ConfigError: There are more titles.
    """
    if len(catalogue) > largest:
        raise ConfigError(
            f"baseline '{name}' {why}; it is meant for at most {largest} titles, and there are {len(catalogue)}. "
            f"Leave '{name}' out of the baselines"
        )


def _binary(rows: Indices, columns: Indices, titles: int, height: int | None = None) -> sparse.csr_array:
    height = int(rows.max(initial=-1)) + 1 if height is None else height
    cells = np.unique(rows * max(1, titles) + columns)
    place = (cells // max(1, titles), cells % max(1, titles))
    return sparse.csr_array((np.ones(cells.size, dtype=np.float32), place), shape=(height, titles))
