"""Item-to-item neighbours: titles like those the member played, by shrunk cosine of who played them.

The sources are in `playbill.models.item_knn`. Axis letters: N requests, U members, T titles, J neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import sparse

from playbill.arrays import Floats64
from playbill.datasets import Request
from playbill.errors import ConfigError
from playbill.evaluation.baselines.ease import check_size, past_matrix, play_matrix
from playbill.evaluation.baselines.popularity import popular
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import TitleOrder
from playbill.evaluation.cases.score_function import Scores
from playbill.models.item_knn import DEFAULT_SHRINKAGE, similarities

DEFAULT_NEIGHBOURS = 200  # J. The searches of the 2019 study range from 5 to 800.
LARGEST_CATALOGUE = 100_000
"""Titles. J neighbours of each are kept (160 MB there at J = 200), after every title was compared with every other:
the time grows with the plays of members who play much, squared."""


def item_knn(case: EvaluationCase) -> ItemKnn:
    """Item-kNN fitted on the plays a baseline may know; it reads each request's own history."""
    return ItemKnn.fit(case.catalogue, case.log.fitted_plays(), backoff=popular(case).shares)


class ItemKnn:
    """Scores are x S, where x [T] marks the member's played titles.

    S[s, t] = |members of both| / (sqrt(|members of s| |members of t|) + h), kept where s is among the J titles most
    like t, zero elsewhere and on the diagonal. A request without a known past gets the backoff [T].
    """

    def __init__(self, catalogue: TitleOrder, similarity: sparse.csr_array, backoff: Floats64) -> None:
        self.title_ids: Sequence[str] = catalogue.title_ids
        self.similarity = similarity
        self._catalogue, self._backoff = catalogue, backoff.astype(np.float32)

    @classmethod
    def fit(
        cls,
        catalogue: TitleOrder,
        plays: pl.DataFrame,
        neighbours: int = DEFAULT_NEIGHBOURS,
        shrinkage: float = DEFAULT_SHRINKAGE,
        *,
        backoff: Floats64,
    ) -> ItemKnn:
        """Compare every title with every other.

        Plays are rows of member_id and title_id; repeated ones count once. J is 1 or more, h 0 or more.

        Raises:
            ConfigError: The catalogue exceeds `LARGEST_CATALOGUE`, or an option is out of its range.
        """
        check_size("item_knn", catalogue, LARGEST_CATALOGUE, "compares every title with every other")
        if neighbours < 1 or not shrinkage >= 0:
            raise ConfigError(
                "item_knn needs one neighbour or more and a shrinkage of zero or more, "
                f"got {neighbours} and {shrinkage}"
            )
        return cls(catalogue, similarities(play_matrix(catalogue, plays), neighbours, shrinkage), backoff)

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T] from the titles each request's history played."""
        past = past_matrix(self._catalogue, requests)
        scores: Scores = (past @ self.similarity).toarray()
        scores[np.diff(past.indptr) == 0] = self._backoff
        return scores
