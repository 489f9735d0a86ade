"""iALS: matrix factors by alternating least squares over everything, played or not.

Sources: Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008; the loss, the
frequency-scaled regularisation and the starting values of Rendle, Krichene, Zhang and Koren, "Revisiting the
performance of iALS on item recommendation benchmarks", RecSys 2022 (arXiv 2110.14037), equations 1 to 5. They find
that weight and regularisation have to be tuned together, and that wide vectors are then as good as any linear model.
Axis letters: N requests, U members, T titles, D factors, B rows at once, L plays of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse

from playbill.arrays import Floats32, Floats64, Ints64
from playbill.datasets import Request
from playbill.errors import ConfigError
from playbill.evaluation.baselines.ease import check_size, past_matrix, play_matrix
from playbill.evaluation.baselines.popularity import popular
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import TitleOrder
from playbill.evaluation.cases.score_function import Scores

LARGEST_CATALOGUE = 500_000
"""Titles. Memory is small (D float32 per title and member); the time of a round grows with plays x D^2 + titles x D^3:
at D = 64 some ten minutes a round at that size."""
NUMBERS_AT_ONCE = 16_000_000  # Float32 numbers that a batch of rows may gather

Factors = Floats32


@dataclass(frozen=True)
class IalsOptions:
    """What iALS is fitted with."""

    factors: int = 128  # D
    unplayed_weight: float = 0.3  # alpha_0, the weight of a title that was not played; a played one has one more
    regularisation: float = 0.003  # lambda
    frequency_power: float = 1.0  # nu: a row's lambda is multiplied by (its plays + alpha_0 x the other side's rows)^nu
    rounds: int = 12  # each solves the titles, then the members
    spread: float = 0.1  # sigma*: vectors start with a standard deviation of sigma* / sqrt(D)
    seed: int = 0  # of the starting values

    def __post_init__(self) -> None:
        positive = {"factors": self.factors, "rounds": self.rounds, "regularisation": self.regularisation}
        wrong = [f"{name} {value} is not above zero" for name, value in positive.items() if not value > 0]
        if not self.unplayed_weight >= 0:
            wrong.append(f"unplayed_weight {self.unplayed_weight} is below zero")
        if wrong:
            raise ConfigError(f"ials: {'; '.join(wrong)}")


def ials(case: EvaluationCase) -> Ials:
    """Fit iALS on the plays a baseline may know; it reads each request's own history."""
    return Ials.fit(case.catalogue, case.log.fitted_plays(), backoff=popular(case).shares)


class Ials:
    """Scores are w v_t (v [T, D]), with w solved from the titles that the request's history played.

    No member's own vector is kept: a request's is solved anew from its history (the paper's fold-in), so a member
    who was not there in training is asked for like any other. A request without a known past gets the backoff [T].
    """

    def __init__(self, catalogue: TitleOrder, titles: Factors, options: IalsOptions, backoff: Floats64) -> None:
        self.title_ids: Sequence[str] = catalogue.title_ids
        self.titles, self.options = titles, options
        self._catalogue, self._backoff = catalogue, backoff.astype(np.float32)

    @classmethod
    def fit(
        cls, catalogue: TitleOrder, plays: pl.DataFrame, options: IalsOptions | None = None, *, backoff: Floats64
    ) -> Ials:
        """Alternate between titles and members; plays are rows of member_id and title_id, repeated ones count once.

        Raises:
            ConfigError: The catalogue exceeds `LARGEST_CATALOGUE`.
        """
        check_size("ials", catalogue, LARGEST_CATALOGUE, "solves a system of equations for every title in every round")
        options = options or IalsOptions()
        titles = title_factors(play_matrix(catalogue, plays), options)
        return cls(catalogue, titles, options, backoff)

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T] from the titles each request's history played."""
        past = past_matrix(self._catalogue, requests)
        scores: Scores = solve_rows(past, self.titles, self.options) @ self.titles.T
        scores[np.diff(past.indptr) == 0] = self._backoff
        return scores


def title_factors(plays: sparse.csr_array, options: IalsOptions) -> Factors:
    """Return v [T, D] of a binary play matrix [U, T]."""
    generator = np.random.default_rng(options.seed)
    size = (plays.shape[0], options.factors)
    members = generator.normal(0.0, options.spread / np.sqrt(options.factors), size).astype(np.float32)
    by_title = plays.T.tocsr()
    titles = solve_rows(by_title, members, options)
    for _ in range(options.rounds - 1):
        members = solve_rows(plays, titles, options)
        titles = solve_rows(by_title, members, options)
    return titles


def solve_rows(plays: sparse.csr_array, other: Factors, options: IalsOptions) -> Factors:
    """Return the vectors that fit each row best while the other side's stand still.

    Row r with plays P_r solves (sum_P v v' + alpha_0 V'V + lambda (|P_r| + alpha_0 |V|)^nu I) w = sum_P v.

    `plays` is [R, S] of zeros and ones, `other` V [S, D]; returns [R, D] float32, zero for a row without plays.
    """
    counts = np.diff(plays.indptr)
    shared = options.unplayed_weight * (other.T @ other)
    exposure = counts + options.unplayed_weight * other.shape[0]
    penalties = (options.regularisation * exposure**options.frequency_power).astype(np.float32)
    found = np.zeros((plays.shape[0], other.shape[1]), dtype=np.float32)
    for rows in _batches(counts, other.shape[1]):
        gathered = _gather(plays, rows, other)
        left = gathered.transpose(0, 2, 1) @ gathered + shared
        left[:, np.arange(other.shape[1]), np.arange(other.shape[1])] += penalties[rows, None]
        found[rows] = np.linalg.solve(left, gathered.sum(axis=1)[:, :, None])[:, :, 0]
    return found


def _batches(counts: Ints64, factors: int) -> list[Ints64]:
    rows = np.argsort(-counts, kind="stable")
    rows = rows[counts[rows] > 0]
    batches = []
    start = 0
    while start < rows.size:
        numbers_of_row = factors * (int(counts[rows[start]]) + factors)
        stop = start + max(1, NUMBERS_AT_ONCE // numbers_of_row)
        batches.append(rows[start:stop])
        start = stop
    return batches


def _gather(plays: sparse.csr_array, rows: Ints64, other: Factors) -> Factors:
    """Return [B, L, D]: the other side's vectors of each row's plays, zeros behind them."""
    starts, counts = plays.indptr[rows], np.diff(plays.indptr)[rows]
    offsets = np.arange(counts.max())
    inside = offsets[None, :] < counts[:, None]
    places = np.where(inside, starts[:, None] + offsets[None, :], 0)
    gathered: Factors = other[plays.indices[places]]
    gathered[~inside] = 0.0
    return gathered
