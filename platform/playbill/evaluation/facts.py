"""What metrics beyond accuracy need to know of a case: how popular titles are, their genres, what targets are worth.

Axis letters: N requests, T titles, G genres, M targets, E events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from playbill import metrics
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import EventLog
from playbill.evaluation.cases.order import UNKNOWN
from playbill.metrics.ranking import Values
from playbill.metrics.topk import Indices


@dataclass(frozen=True)
class CaseFacts:
    """Numbers that are the same for every score function of a case.

    Args:
        information: [T] self-information of each title in bits, from the plays that fitting may use.
        propensity_weights: [M] inverse popularity propensity of each target.
        shares: [T, G] genre shares of each title; None when no title has a genre.
        mix: [N, G] genre mix of what each request's member has played; None with `shares`.
        rewards: [M] what each target is worth, NaN = not known; None when no reward is asked for.
    """

    information: Values
    propensity_weights: Values
    shares: Values | None
    mix: Values | None
    rewards: Values | None = None


def case_facts(case: EvaluationCase, rewards: Values | None = None) -> CaseFacts:
    """Gather the facts of a case, each from rows that the protocol lets one know.

    Args:
        case: Requests, targets, candidates.
        rewards: [M] worth of each target.
    """
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


def past_mix(log: EventLog, positions: Indices, shares: Values) -> Values:
    """Give the genre mix of what each request's member had played before it.

    Equals `metrics.genre_mix` over `log.watched(positions)`, in memory of the log instead of all pairs.

    Args:
        log: The events.
        positions: [N] position in the log before which each request's history ends.
        shares: [T, G] genre shares.

    Returns:
        [N, G] rows that add up to 1; NaN where nothing with a genre was played.
    """
    starts = log.starts[positions]
    mix = np.empty((positions.size, shares.shape[1]))
    for genre in range(shares.shape[1]):
        played: npt.NDArray[np.float64] = np.where(log.plays, shares[np.maximum(log.column, 0), genre], 0.0)
        total = np.concatenate([[0.0], np.cumsum(played)])
        mix[:, genre] = total[positions] - total[starts]
    mix[np.abs(mix) < 1e-9] = 0.0  # a difference of sums leaves dust where there was nothing
    totals = mix.sum(axis=1, keepdims=True)
    return np.where(totals > 0, mix / np.maximum(totals, np.finfo(np.float64).tiny), np.nan)


def _shares(case: EvaluationCase) -> Values | None:
    genres = case.rule.catalogue.genres
    if not genres:
        return None
    return metrics.genre_shares(np.stack(list(genres.values()), axis=1))
