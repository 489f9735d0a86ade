"""Orders of rows, judged on the pages of a log: a model's, and those that stand beside it.

Axis letters: N pages, P rows of pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from playbill import metrics
from playbill.arrays import Floats64
from playbill.datasets import Request, Split
from playbill.definitions.specs import ResolvedModel
from playbill.evaluation.canvases.head_probabilities import RESAMPLES, drawn_weights, interval_of
from playbill.evaluation.canvases.row_cases import RowCase, build_row_case
from playbill.evaluation.cases.case import Fold
from playbill.evaluation.cases.event_log import EvaluationTables, EventLog
from playbill.evaluation.cases.score_function import MemberFeatures, with_features
from playbill.evaluation.measure import Measured, accuracy, check_cutoffs
from playbill.evaluation.metric_aggregation import Judging, report_context, report_of
from playbill.evaluation.report import EvaluationReport, HeadRow
from playbill.ranking.candidates import ABSENT
from playbill.ranking.page_rules import RowEntry

if TYPE_CHECKING:  # it imports torch
    from playbill.ranking.scoring.scorer import Scorer

CUTOFFS = (1, 3)  # beside those of the model's `evaluate`: the first row, and what a screen shows
PAGES_AT_ONCE = 512


@runtime_checkable
class RowFunction(Protocol):
    """Anything that says what the rows of pages are worth."""

    def values(self, case: RowCase) -> Floats64:
        """Return [P] values, each row by itself; the best of a page comes first, equal ones as they were logged."""


class RowRanker:
    """A model's order of rows on one canvas by its blend, with features as of each page's moment.

    Without `features` requests have them, or the model has none.
    """

    def __init__(self, heads: Scorer, resolved: ResolvedModel, canvas: str, features: MemberFeatures | None) -> None:
        self._heads, self._blend = heads, resolved.canvas(canvas).blend
        self._features, self._service = features, resolved.model.features

    def values(self, case: RowCase) -> Floats64:
        """Return [P] blended log probabilities."""
        return self.of_requests(case, with_features(case.requests(), self._service, self._features))

    def of_requests(self, case: RowCase, requests: Sequence[Request]) -> Floats64:
        """Return the same for requests [N] that have their features."""
        return self.blended(self._by_head(case, requests))

    def heads(self, case: RowCase) -> dict[str, Floats64]:
        """Return each head's [P] log probabilities."""
        return self._by_head(case, with_features(case.requests(), self._service, self._features))

    def blended(self, heads: Mapping[str, Floats64]) -> Floats64:
        """Return the [P] blend of what `heads` returns."""
        total: Floats64 = sum((weight * heads[head] for head, weight in self._blend.items()), np.zeros(1))
        return total

    def _by_head(self, case: RowCase, requests: Sequence[Request]) -> dict[str, Floats64]:
        entries = _entries(case, self._heads.title_ids)
        ends = np.searchsorted(case.pages, np.arange(len(case) + 1))
        found: dict[str, list[Floats64]] = {head: [] for head in self._blend}
        for start in range(0, len(case), PAGES_AT_ONCE):
            states = self._heads.page_states(requests[start : start + PAGES_AT_ONCE])
            for page, state in enumerate(states, start):
                rows = entries[ends[page] : ends[page + 1]]
                for head, values in found.items():
                    values.append(state.values({head: 1.0})(rows, []))
        return {head: np.concatenate(values) for head, values in found.items()}


def _entries(case: RowCase, title_ids: Sequence[str]) -> list[RowEntry]:
    known = {title: column for column, title in enumerate(title_ids)}

    def column(title: str | None) -> int:
        return ABSENT if title is None else known.get(title, ABSENT)

    return [
        RowEntry(name, stated, column(stated if stated in known else source), column(first))
        for _, name, stated, source, first in case.rows.iter_rows()
    ]


class AsWritten:
    """Rows in the order in which the definitions write them."""

    def values(self, case: RowCase) -> Floats64:
        """Return [P] minus the place of each row's name; a row of the log that no definition knows comes last."""
        places = {name: -float(place) for place, name in enumerate(case.written)}
        return np.array([places.get(name, -float(len(places))) for name in case.rows["name"]])


class AsLogged:
    """Rows as the service showed them."""

    def values(self, case: RowCase) -> Floats64:
        """Return [P] minus the place of each row on its page."""
        return -np.arange(case.rows.height, dtype=np.float64)


class PopularRows:
    """Rows by how often rows of their name were played from."""

    def values(self, case: RowCase) -> Floats64:
        """Return [P] rates in the train fold; 0 of a name that it has not seen."""
        return np.array([case.rates.get(name, 0.0) for name in case.rows["name"]])


BASELINES: Mapping[str, RowFunction] = {
    "as_written": AsWritten(),
    "popular_rows": PopularRows(),
    "as_logged": AsLogged(),
}
"""What every order of rows is judged beside. Members look from the top and stop when they play, so the row they played
from is mostly the last one looked at: `as_logged` is at a disadvantage."""


def evaluate_rows(
    function: RowFunction,
    split: Split,
    tables: EvaluationTables,
    resolved: ResolvedModel,
    canvas: str,
    *,
    judging: Judging,
    name: str | None = None,
    fold: Fold = "test",
    log: EventLog | None = None,
) -> EvaluationReport:
    """Measure a model's order of rows on the held-out pages of its log; arguments as for `evaluate`.

    Raises:
        UnknownNameError: An unknown canvas or slice.
        StateError: No held-out page says anything of an order.
    """
    cuts = tuple(dict.fromkeys((*resolved.model.evaluate.k, *CUTOFFS)))
    check_cutoffs(cuts)
    whole = build_row_case(tables, split, resolved, canvas, fold=fold, log=log)
    case, context = whole.ordered(), report_context(whole.frame, judging)
    heads = function.heads(whole) if isinstance(function, RowRanker) else {}
    own = function.blended(heads) if isinstance(function, RowRanker) else function.values(whole)
    values = {name or resolved.model.name: own} | {one: other.values(whole) for one, other in BASELINES.items()}
    there = whole.tells_order[whole.pages]
    measured = {one: measured_order(case, found[there], cuts) for one, found in values.items()}
    note = f"ranks the rows that were looked at on pages of '{case.requested_as}'; those that were played from count"
    report = report_of(case, measured, cuts, judging, context._replace(notes=(note, *context.notes)))
    rows = (head_row(head, whole, found, judging) for head, found in heads.items())
    return replace(report, heads=tuple(row for row in rows if row is not None))


def head_row(head: str, case: RowCase, values: Floats64, judging: Judging) -> HeadRow | None:
    """Return the area under the curve of a head over every row that was looked at, None where all are alike.

    `values` are [P]; pages without a play are in the case. The interval is over members.
    """
    members = case.frame["member_id"].rank("dense").to_numpy().astype(np.int64)[case.pages] - 1
    positives, size = int(case.played.sum()), int(members.max()) + 1
    if not 0 < positives < len(case.played) or size < judging.minimum_members:
        return None
    label, draws = case.played.astype(np.float64), min(judging.resamples, RESAMPLES)
    drawn = [metrics.auc(values, label, weight) for weight in drawn_weights(members, judging.seed, draws)]
    interval = interval_of(metrics.auc(values, label), drawn)
    return HeadRow(head, len(case.played), positives, size, {"auc": interval})


def measured_order(case: RowCase, values: Floats64, cuts: Sequence[int]) -> Measured:
    """Return hr, ndcg, mrr, map and recall at each cut-off of an order of rows by `values` [P].

    Raises:
        ValueError: A value is NaN, or there is not one for each row.
    """
    if values.shape != case.pages.shape or np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum()} of {values.size} values of {case.pages.size} rows are no number")
    ranks = metrics.ranks_within(values, case.pages)[case.played]
    relevance = metrics.relevance_from_ranks(ranks, case.pages[case.played], len(case), max(cuts))
    found: dict[str, Floats64] = {}
    for cut in sorted(set(cuts)):
        found |= accuracy(relevance, case.target_counts, cut)
        found[f"recall@{cut}"] = metrics.recall(relevance, case.target_counts, cut)
    return Measured(found, {}, ranks)
