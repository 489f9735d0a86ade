"""Runs score functions over a case: a value per request and metric, and what metrics beyond accuracy need to know.

Axis letters: N requests, T titles, K places, G genres, M targets, E events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from playbill import metrics
from playbill.arrays import Floats64, Indices, Mask
from playbill.errors import ConfigError
from playbill.evaluation.cases.case import Chunk, EvaluationCase
from playbill.evaluation.cases.event_log import UNKNOWN, EventLog
from playbill.evaluation.cases.score_function import AlignedScorer, ScoreFunction
from playbill.metrics import WeightedValues

Progress = Callable[[int, int], None]  # called with (requests done, requests in all)


@dataclass(frozen=True)
class Measured:
    """What one score function did on a case."""

    values: dict[str, Floats64]  # metric such as `ndcg@10` -> [N]; NaN where a request says nothing about it
    coverage: dict[str, float]  # metric such as `coverage@10` -> share of the catalogue
    ranks: Indices  # [M] rank of each target, 0 = it was no candidate of the function
    # metric -> [N] weight of each request; a metric that is not in it weighs them alike
    weights: dict[str, Floats64] = field(default_factory=dict)

    def frame(self, prefix: str) -> pl.DataFrame:
        """Return the values as columns `prefix/metric`, null where there is none."""
        return pl.DataFrame({f"{prefix}/{name}": values for name, values in self.values.items()}).fill_nan(None)


class Collector:
    """Gathers the ranks and lists (`depth` places) of every function over a case, part by part."""

    def __init__(self, case: EvaluationCase, names: Sequence[str], depth: int) -> None:
        self.case, self.depth = case, depth
        self._lists = {name: np.zeros((len(case), depth), dtype=np.int64) for name in names}
        self._ranks = {name: np.zeros(case.rows.size, dtype=np.int64) for name in names}
        self._done = self._seen = 0

    def add(self, part: EvaluationCase, functions: Mapping[str, ScoreFunction], progress: Progress | None) -> None:
        """Score the next requests of the case with every function, over the same candidates."""
        aligned = [AlignedScorer(name, function, self.case.catalogue) for name, function in functions.items()]
        # Requests of one moment lie together: what a moment's titles are like is then worked out once.
        ordered, requests, targets = part.in_time_order()
        requested, ranked = self._done, self._seen
        for chunk in ordered.chunks():
            own = slice(self._done - requested, self._done - requested + len(chunk.requests))
            answers = slice(self._seen - ranked, self._seen - ranked + chunk.rows.size)
            for scorer in aligned:
                self._collect(scorer, chunk, requested + requests[own], ranked + targets[answers])
            self._done += len(chunk.requests)
            self._seen += chunk.rows.size
            if progress is not None:
                progress(self._done, len(self.case))

    def _collect(self, scorer: AlignedScorer, chunk: Chunk, requests: Indices, targets: Indices) -> None:
        scores, mask = scorer.score(chunk.requests, chunk.candidates)
        lists, ranks = metrics.lists_and_ranks(scores, self.depth, chunk.rows, chunk.columns, mask)
        self._lists[scorer.name][requests] = lists
        self._ranks[scorer.name][targets] = ranks

    def measured(self, facts: CaseFacts, k: Sequence[int]) -> dict[str, Measured]:
        """Return every function's values, in the order the functions were named."""
        return {name: _measured(self.case, facts, self._lists[name], self._ranks[name], k) for name in self._lists}


def check_cutoffs(k: Sequence[int]) -> None:
    """Refuse cut-offs that are not positive, and none at all.

    Raises:
        ConfigError: Such cut-offs.
    """
    if not k or min(k) < 1:
        raise ConfigError(f"metrics need cut-offs of at least 1, got {list(k)}")


def measure(
    case: EvaluationCase,
    functions: Mapping[str, ScoreFunction],
    k: Sequence[int],
    progress: Progress | None = None,
    *,
    facts: CaseFacts | None = None,
) -> dict[str, Measured]:
    """Score every request of a case with every function, over the same candidates.

    `facts` are of this case (default: gathered here, without rewards).

    Raises:
        ConfigError: A cut-off is not positive, or there is none.
        IntegrityError: A function returned something that is no score.
    """
    check_cutoffs(k)
    collector = Collector(case, list(functions), max(k))
    collector.add(case, functions, progress)
    return collector.measured(facts or case_facts(case), k)


def _measured(case: EvaluationCase, facts: CaseFacts, lists: Indices, ranks: Indices, k: Sequence[int]) -> Measured:
    targets, n = case.target_counts, len(case)
    relevance = metrics.relevance_from_ranks(ranks, case.rows, n, max(k))
    values: dict[str, Floats64] = {}
    weights: dict[str, Floats64] = {}
    for cut in sorted(set(k)):
        values |= accuracy(relevance, targets, cut) | _beyond(facts, lists, cut)
        for name, weighted in _weighted(case, facts, ranks, cut).items():
            values[name], weights[name] = weighted
    covered = {f"coverage@{cut}": metrics.coverage(lists, cut, len(case.catalogue)) for cut in sorted(set(k))}
    known = {name: found for name, found in values.items() if not np.isnan(found).all()}
    return Measured(known, covered, ranks, {name: weights[name] for name in known if name in weights})


def accuracy(relevance: Mask, targets: Indices, cut: int) -> dict[str, Floats64]:
    """Return the accuracy of [N, K] `relevance` at a cut-off; recall only where it is not the hit rate."""
    found = {
        f"hr@{cut}": metrics.hit_rate(relevance, cut),
        f"ndcg@{cut}": metrics.ndcg(relevance, targets, cut),
        f"mrr@{cut}": metrics.mrr(relevance, cut),
        f"map@{cut}": metrics.average_precision(relevance, targets, cut),
    }
    if (targets > 1).any():
        found[f"recall@{cut}"] = metrics.recall(relevance, targets, cut)
    return found


def _beyond(facts: CaseFacts, lists: Indices, cut: int) -> dict[str, Floats64]:
    found = {f"novelty@{cut}": metrics.novelty(lists, facts.information, cut)}
    if facts.shares is not None and facts.mix is not None:
        found[f"calibration@{cut}"] = metrics.calibration(lists, facts.shares, facts.mix, cut)
    return found


def _weighted(case: EvaluationCase, facts: CaseFacts, ranks: Indices, cut: int) -> dict[str, WeightedValues]:
    weigh = {"debiased_ndcg": facts.propensity_weights}
    if facts.rewards is not None:
        weigh["reward_ndcg"] = np.maximum(np.nan_to_num(facts.rewards), 0.0)
    found: dict[str, WeightedValues] = {}
    for name, gains in weigh.items():
        with np.errstate(invalid="ignore"):  # a request whose targets are worth nothing has no best list
            found[f"{name}@{cut}"] = metrics.popularity_debiased_ndcg(ranks, case.rows, gains, len(case), cut)
    return found


@dataclass(frozen=True)
class CaseFacts:
    """Numbers that are the same for every score function of a case."""

    information: Floats64  # [T] self-information of each title in bits, from the plays that fitting may use
    propensity_weights: Floats64  # [M] inverse popularity propensity of each target
    shares: Floats64 | None  # [T, G] genre shares of each title; None when no title has a genre
    mix: Floats64 | None  # [N, G] genre mix of what each request's member has played; None with `shares`
    rewards: Floats64 | None = None  # [M] what each target is worth, NaN = not known; None when no reward is asked for


def case_facts(case: EvaluationCase, rewards: Floats64 | None = None) -> CaseFacts:
    """Gather the facts of a case, each from rows that the protocol lets one know; `rewards` are [M]."""
    plays = case.log.fitted_plays()
    columns = case.catalogue.codes(plays["title_id"])
    size = len(case.catalogue)
    counts = np.bincount(columns[columns != UNKNOWN], minlength=size)
    heard = plays.select("member_id", "title_id").unique()
    members_of = np.bincount(case.catalogue.codes(heard["title_id"]), minlength=size)
    information = metrics.self_information(members_of, heard["member_id"].n_unique())
    shares = _shares(case)
    return CaseFacts(
        information=information,
        propensity_weights=metrics.inverse_popularity(counts)[case.columns],
        shares=shares,
        mix=None if shares is None else past_mix(case.log, case.positions, shares),
        rewards=rewards,
    )


def past_mix(log: EventLog, positions: Indices, shares: Floats64) -> Floats64:
    """Return the [N, G] genre mix of what each request's member had played before it; NaN where that is nothing.

    Equals `metrics.genre_mix` over `log.watched(positions)`, in memory of the log instead of all pairs. `positions` [N]
    are where each request's history ends in the log, `shares` [T, G] the titles' genres.
    """
    starts = log.starts[positions]
    mix = np.empty((positions.size, shares.shape[1]))
    for genre in range(shares.shape[1]):
        played: Floats64 = np.where(log.plays, shares[np.maximum(log.column, 0), genre], 0.0)
        total = np.concatenate([[0.0], np.cumsum(played)])
        mix[:, genre] = total[positions] - total[starts]
    mix[np.abs(mix) < 1e-9] = 0.0  # a difference of sums leaves dust where there was nothing
    totals = mix.sum(axis=1, keepdims=True)
    return np.where(totals > 0, mix / np.maximum(totals, np.finfo(np.float64).tiny), np.nan)


def _shares(case: EvaluationCase) -> Floats64 | None:
    genres = case.rule.catalogue.genres
    if not genres:
        return None
    return metrics.genre_shares(np.stack(list(genres.values()), axis=1))
