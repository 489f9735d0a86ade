"""How well delayed outcomes are told at each age: AUC, log loss and calibration on plays later than any learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.definitions.specs import LabelSpec, RewardSpec
from playbill.errors import StateError
from playbill.rewards.delayed import DelayedFeedback, DelayedSettings, MaturePlays, mature_plays, microseconds
from playbill.rewards.partial_observations import Seen
from playbill.rewards.values import bound_terms, known_at

_BINS = 10
_LEAST = 1e-6
_HOUR_US = 3_600_000_000

SHARES = (0.006, 0.04, 0.15, 0.3, 0.5, 0.75, 0.95)
"""Ages at which outcomes are told, as shares of the time a term takes to mature."""


@dataclass(frozen=True, slots=True)
class DelayedReport:
    """How well each delayed term was told.

    Args:
        rows: A row per term and age: term, age_h (hours), plays, positives (share of ones), auc, log_loss,
            base_log_loss (of telling everyone the learnt share of ones), ece (expected calibration error, ten bins
            of equal size).
        split: The models knew nothing after it; every measured play began at it or later.
    """

    rows: pl.DataFrame
    split: datetime

    def by_age(self, term: str, measure: str) -> dict[float, float]:
        """Return age in hours -> one measure of a term."""
        found = self.rows.filter(pl.col("term") == term)
        return dict(zip(found["age_h"].to_list(), found[measure].to_list(), strict=True))

    def improves(self, term: str, slack: float = 0.002) -> bool:
        """Say whether log loss falls with age: at no age more than `slack` above an earlier one, and lower at last."""
        losses = list(self.by_age(term, "log_loss").values())
        return losses[-1] < losses[0] and all(later <= earlier + slack for earlier, later in pairwise(losses))


def delayed_report(
    reward: RewardSpec,
    labels: Mapping[str, LabelSpec],
    outcomes: pl.DataFrame,
    log: pl.DataFrame,
    as_of: datetime,
    split: datetime,
    availability: pl.DataFrame | None = None,
    *,
    settings: DelayedSettings | None = None,
    shares: Sequence[float] = SHARES,
) -> DelayedReport:
    """Fit on what was mature at `split`, and measure on plays from then on that are mature at `as_of`.

    Args:
        reward: The reward.
        labels: Its labels by plain name.
        outcomes: Of `labels.label_events` at `as_of`.
        log: Rows of the canonical log.
        as_of: End of the held-out part.
        split: End of the part that is learnt from.
        availability: The canonical table.
        settings: Of the models.
        shares: Ages, as shares of the time a term takes to mature.

    Raises:
        StateError: No play is old enough on one side of the split.
    """
    predictor = DelayedFeedback.fit(reward, labels, outcomes, log, split, availability, settings)
    known = known_at(log, as_of)
    seen = Seen(known, availability)
    rows = []
    for term in bound_terms(reward, labels):
        if not term.delayed:
            continue
        plays = mature_plays(term, outcomes, known, as_of)
        learnt = plays.began + plays.span <= microseconds(split)
        held = plays.began >= microseconds(split)
        if not held.any():
            raise StateError(f"delayed term '{term.name}': no play after {split.isoformat()} is mature; split earlier")
        base = float(plays.outcome[learnt].mean())
        rows += [
            {"term": term.name, **_measured(predictor, term.name, seen, plays, held, int(share * plays.span), base)}
            for share in shares
        ]
    return DelayedReport(pl.DataFrame(rows), split)


def _measured(
    predictor: DelayedFeedback,
    term: str,
    seen: Seen,
    plays: MaturePlays,
    held: NDArray[np.bool_],
    age: int,
    base: float,
) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    outcome = plays.outcome[held]
    told = predictor.predict_at(term, seen, plays.rows[held], plays.began[held] + age)
    mixed = outcome.min() < outcome.max()
    return {
        "age_h": round(age / _HOUR_US, 2),
        "plays": len(outcome),
        "positives": float(outcome.mean()),
        "auc": float(roc_auc_score(outcome, told)) if mixed else float("nan"),
        "log_loss": _log_loss(outcome, told),
        "base_log_loss": _log_loss(outcome, np.full(len(outcome), base, np.float32)),
        "ece": calibration_error(outcome, told),
    }


def _log_loss(outcome: NDArray[np.float32], told: NDArray[np.float32]) -> float:
    sure = np.clip(told.astype(np.float64), _LEAST, 1 - _LEAST)
    return float(-np.mean(outcome * np.log(sure) + (1 - outcome) * np.log1p(-sure)))


def calibration_error(outcome: NDArray[np.float32], told: NDArray[np.float32], bins: int = _BINS) -> float:
    """Return the expected calibration error: mean gap between what was told and what came, over bins of equal size.

    Source: Naeini et al., AAAI 2015, with equal-mass bins.
    """
    order = np.argsort(told, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [abs(float(outcome[part].mean()) - float(told[part].mean())) * len(part) for part in parts]
    return sum(gaps) / len(order)
