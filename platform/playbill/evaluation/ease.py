"""EASE, the linear item-item model with a closed-form solution: a baseline that is hard to beat.

Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019 (arXiv 1905.03375), equation 8.
Axis letters: N requests, U members, T titles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill import metrics
from playbill.datasets import Request
from playbill.errors import ConfigError, IntegrityError
from playbill.evaluation.cases import EvaluationCase
from playbill.evaluation.log import PLAY
from playbill.evaluation.order import UNKNOWN, TitleOrder
from playbill.evaluation.scoring import Scores
from playbill.metrics.topk import Indices

DEFAULT_PENALTY = 500.0
"""Lambda. The paper's choice for MovieLens-20M; between 200 and 1,000 MovieLens results differ little."""
PENALTIES = (100.0, 200.0, 500.0, 1000.0, 2000.0)
"""What `pick_penalty` tries."""
LARGEST_CATALOGUE = 20_000
"""Titles. Three T x T float32 arrays are held while solving: 4.8 GB there, and the time grows with T cubed."""
MEMBERS_AT_ONCE = 2_048

Square = npt.NDArray[np.float32]


class Ease:
    """Scores are x B, where x [T] marks the member's played titles.

    B = I - P / diag(P) with a zero diagonal, P = (X'X + lambda I)^-1, X [U, T] the binary play matrix.
    A request without a known past gets the backoff.

    Args:
        catalogue: The titles.
        weights: [T, T] B.
        backoff: [T] scores for an empty past.
    """

    def __init__(self, catalogue: TitleOrder, weights: Square, backoff: npt.NDArray[np.float64]) -> None:
        self.title_ids: Sequence[str] = catalogue.title_ids
        self.weights = weights
        self._catalogue, self._backoff = catalogue, backoff.astype(np.float32)

    @classmethod
    def fit(
        cls,
        catalogue: TitleOrder,
        plays: pl.DataFrame,
        penalty: float = DEFAULT_PENALTY,
        *,
        backoff: npt.NDArray[np.float64],
    ) -> Ease:
        """Solve for B.

        Args:
            catalogue: The titles.
            plays: member_id and title_id of the plays to fit on; repeated plays count once.
            penalty: lambda, above zero.
            backoff: [T] scores for an empty past.

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
    total = np.zeros((size, size), dtype=np.float32)
    for block in _member_blocks(catalogue, plays):
        total += block.T @ block
    return total


def solve(counts: Square, penalty: float) -> Square:
    """Return B [T, T] of the co-play counts X'X.

    Raises:
        ConfigError: The penalty is not positive.
    """
    if not penalty > 0:
        raise ConfigError(f"EASE needs a penalty above zero, got {penalty}")
    inverse = np.linalg.inv(counts + np.float32(penalty) * np.eye(counts.shape[0], dtype=np.float32))
    weights: Square = (inverse / -np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0.0)
    return weights


def played(requests: Sequence[Request], catalogue: TitleOrder) -> tuple[Indices, Indices]:
    """Return pairs (request, title column) of the plays in each request's history."""
    histories = [(row, request.history) for row, request in enumerate(requests) if request.history is not None]
    if not histories:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    lengths = [history.height for _, history in histories]
    rows = np.repeat(np.array([row for row, _ in histories], dtype=np.int64), lengths)
    columns = catalogue.codes(_texts("title_id", [history for _, history in histories]))
    plays = _texts("action", [history for _, history in histories]) == PLAY
    known = (columns != UNKNOWN) & plays.to_numpy()
    return rows[known], columns[known]


def _texts(name: str, histories: Sequence[pl.DataFrame]) -> pl.Series:
    """Return a column of several histories as one; a cast of each by itself would cost more than all the rest."""
    columns = [history[name] for history in histories]
    alike = all(column.dtype == columns[0].dtype for column in columns)
    return pl.concat(columns if alike else [column.cast(pl.String) for column in columns]).cast(pl.String)


def pick_penalty(validation: EvaluationCase, penalties: Sequence[float] = PENALTIES, k: int = 10) -> float:
    """Return the penalty with the best NDCG@k on a validation case; the smaller one of equals.

    Args:
        validation: A case whose fold is not the one that will be reported.
        penalties: What to try.
        k: Cut-off.

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
        key=lambda penalty: _mean_ndcg(Ease(validation.catalogue, solve(counts, penalty), nothing), validation, k),
    )


def _mean_ndcg(model: Ease, case: EvaluationCase, k: int) -> float:
    gained = 0.0
    for chunk in case.chunks():
        n = len(chunk.requests)
        ranks = metrics.target_ranks(model.score(chunk.requests), chunk.rows, chunk.columns, chunk.candidates)
        relevance = metrics.relevance_from_ranks(ranks, chunk.rows, n, k)
        gained += float(metrics.ndcg(relevance, np.bincount(chunk.rows, minlength=n), k).sum())
    return gained / len(case)


def _member_blocks(catalogue: TitleOrder, plays: pl.DataFrame) -> Iterator[Square]:
    """Yield the binary play matrix in blocks of members."""
    members = plays["member_id"].rank("dense").to_numpy().astype(np.int64) - 1
    columns = catalogue.codes(plays["title_id"])
    order = np.argsort(members, kind="stable")
    order = order[columns[order] != UNKNOWN]
    members, columns = members[order], columns[order]
    for start in range(0, int(members.max(initial=-1)) + 1, MEMBERS_AT_ONCE):
        low, high = np.searchsorted(members, [start, start + MEMBERS_AT_ONCE])
        block = np.zeros((MEMBERS_AT_ONCE, len(catalogue)), dtype=np.float32)
        block[members[low:high] - start, columns[low:high]] = 1.0
        yield block
