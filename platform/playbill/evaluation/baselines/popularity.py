"""Popularity baselines, and the way to any baseline by name.

A baseline is a function `baseline(case) -> ScoreFunction`, registered in `playbill.definitions.specs.BASELINES`. It is
fitted on rows that the protocol allows, and evaluation masks its scores with the same candidates as the
model's. Axis letters: N requests, T titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl

from playbill.arrays import Floats64
from playbill.datasets import Request
from playbill.definitions.specs import BASELINES
from playbill.errors import IntegrityError
from playbill.evaluation.baselines.ease import Ease, pick_penalty
from playbill.evaluation.cases.boundaries import assert_fitted_before
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import UNKNOWN, TitleOrder, microseconds
from playbill.evaluation.cases.score_function import ScoreFunction, Scores

WEEK_US = 7 * 86_400_000_000


def build_baseline(name: str, case: EvaluationCase, until: datetime | None = None) -> ScoreFunction:
    """Fit the baseline of a registered name: on every play before `until`, whatever its fold, else on the train fold.

    Raises:
        UnknownNameError: No baseline has the name.
        IntegrityError: It would be fitted on plays at or after a request of the case.
    """
    known = case if until is None else replace(case, log=case.log.until(until))
    assert_fitted_before(known)
    fitted: ScoreFunction = BASELINES[name].load()(known)
    return fitted


def popular(case: EvaluationCase) -> Popular:
    """Most plays in the train fold, the same list for everybody."""
    return Popular(case.catalogue, case.log.fitted_plays())


def popular_7d(case: EvaluationCase) -> Popular7d:
    """Most plays in the seven days before the request, of the rows a protocol lets one know by then."""
    return Popular7d(case.catalogue, case.log.known_plays(), popular(case))


def ease(case: EvaluationCase) -> Ease:
    """EASE fitted on the train fold with the default penalty; it reads each request's own history."""
    return Ease.fit(case.catalogue, case.log.fitted_plays(), backoff=popular(case).shares)


def tuned_ease(case: EvaluationCase, validation: EvaluationCase) -> Ease:
    """EASE with the penalty that does best on the same canvas's validation fold, which alone chooses.

    Raises:
        IntegrityError: `validation` is another fold, or of another split.
    """
    if validation.split_digest != case.split_digest:
        raise IntegrityError("the penalty of 'ease' would be chosen on another split; build both cases from one")
    penalty = pick_penalty(validation)
    return Ease.fit(case.catalogue, case.log.fitted_plays(), penalty, backoff=popular(case).shares)


class Popular:
    """Titles by number of plays."""

    def __init__(self, catalogue: TitleOrder, plays: pl.DataFrame) -> None:
        self.title_ids: Sequence[str] = catalogue.title_ids
        columns = catalogue.codes(plays["title_id"])
        counts = np.bincount(columns[columns != UNKNOWN], minlength=len(catalogue))
        self.shares: Floats64 = counts / (counts.max(initial=0) + 1)
        """[T] plays over (most plays + 1): in [0, 1), so that adding it to whole counts only breaks their ties."""

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return the same [N, T] popularity for every request."""
        return np.broadcast_to(self.shares, (len(requests), len(self.title_ids)))


class Popular7d:
    """Titles by plays in [at - 7 days, at), ties and empty weeks by all-time popularity.

    Strictly before the moment: a play at the same microsecond is not counted, so a target never counts itself.
    Cost: one pass over the week's plays per request.
    """

    def __init__(self, catalogue: TitleOrder, plays: pl.DataFrame, backoff: Popular) -> None:
        self.title_ids: Sequence[str] = catalogue.title_ids
        self._backoff = backoff
        ordered = plays.sort("event_at")
        columns = catalogue.codes(ordered["title_id"])
        self._columns = columns[columns != UNKNOWN]
        self._moments = microseconds(ordered["event_at"])[columns != UNKNOWN]

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T]: plays of the week before each request plus the all-time share in [0, 1)."""
        at = microseconds(pl.Series([request.at for request in requests], dtype=pl.Datetime("us", "UTC")))
        low = np.searchsorted(self._moments, at - WEEK_US, side="left")
        high = np.searchsorted(self._moments, at, side="left")
        titles = len(self.title_ids)
        scores = np.tile(self._backoff.shares, (len(requests), 1))
        for row, (first, last) in enumerate(zip(low, high, strict=True)):
            scores[row] += np.bincount(self._columns[first:last], minlength=titles)
        # float64 keeps a share of 1/plays beside counts of many thousands; float32 would round it away.
        return scores
