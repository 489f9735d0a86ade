"""EASE, the linear item-item model with a closed-form solution, as a baseline: it is hard to beat.

The model and its source are in `playbill.models.ease`. Axis letters: N requests, U members, T titles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill import metrics
from playbill.datasets import Request
from playbill.errors import ConfigError, IntegrityError
from playbill.evaluation.baselines.play_matrix import play_matrix, played
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.order import TitleOrder
from playbill.evaluation.cases.score_function import Scores
from playbill.models.ease import DEFAULT_PENALTY, Square, played_both, solve

PENALTIES = (100.0, 200.0, 500.0, 1000.0, 2000.0)
"""What `pick_penalty` tries."""
LARGEST_CATALOGUE = 20_000
"""Titles. Three T x T float32 arrays are held while solving: 4.8 GB there, and the time grows with T cubed."""


class Ease:
    """Scores are x B, where x [T] marks the member's played titles.

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
    return played_both(play_matrix(catalogue, plays))


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
