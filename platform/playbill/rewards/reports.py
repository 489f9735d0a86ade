"""How well delayed outcomes are predicted at each age, on plays later than any learnt from; and a reward in words.

AUC, log loss and calibration, as a table and as a picture. matplotlib is imported on use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from playbill.clock import to_microseconds
from playbill.definitions.specs import LabelSpec, RewardSpec, reward_version
from playbill.definitions.specs.resolved import attribution, attribution_window, matures_after, speaks_of
from playbill.definitions.specs.reward import REWARDED
from playbill.errors import ConfigError, StateError
from playbill.metrics.probabilities import auc, ece, log_loss
from playbill.rewards.delayed import DelayedFeedback, DelayedSettings, MaturePlays, mature_plays
from playbill.rewards.partial_observations import PartialObservations
from playbill.rewards.values import BoundTerm, bound_terms, known_at

_BINS = 10
_HOUR_US = 3_600_000_000

SHARES = (0.006, 0.04, 0.15, 0.3, 0.5, 0.75, 0.95)
"""Ages at which outcomes are told, as shares of the time a term takes to mature."""


@dataclass(frozen=True, slots=True)
class DelayedReport:
    """How well each delayed term was told."""

    rows: pl.DataFrame
    """A row per term and age: term, age_h (hours), plays, positives (share of ones), auc, log_loss, base_log_loss (of
    telling everyone the learnt share of ones), ece (expected calibration error, ten bins of equal size)."""
    split: datetime
    """The models knew nothing after it; every measured play began at it or later."""

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

    Ages are `shares` of the time a term takes to mature. `outcomes` are of `labels.label_events` at `as_of`.

    Raises:
        StateError: No play is old enough on one side of the split.
    """
    predictor = DelayedFeedback.fit(reward, labels, outcomes, log, split, availability, settings)
    known = known_at(log, as_of)
    seen = PartialObservations(known, availability)
    rows = []
    for term in bound_terms(reward, labels):
        if not term.delayed:
            continue
        plays = mature_plays(term, outcomes, known, as_of)
        learnt = plays.began + plays.span <= to_microseconds(split)
        held = plays.began >= to_microseconds(split)
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
    seen: PartialObservations,
    plays: MaturePlays,
    held: NDArray[np.bool_],
    age: int,
    base: float,
) -> dict[str, float]:
    outcome = plays.outcome[held]
    predicted = predictor.predict_at(term, seen, plays.rows[held], plays.began[held] + age)
    return {
        "age_h": round(age / _HOUR_US, 2),
        "plays": len(outcome),
        "positives": float(outcome.mean()),
        "auc": auc(predicted, outcome),
        "log_loss": log_loss(predicted, outcome),
        "base_log_loss": log_loss(np.full(len(outcome), base, np.float32), outcome),
        "ece": ece(predicted, outcome, bins=_BINS),
    }


PANELS = {"auc": "AUC", "log_loss": "log loss", "ece": "calibration error"}
"""Measure -> title of its panel."""


def plot_delayed(report: DelayedReport, path: Path) -> None:
    """Draw AUC, log loss and calibration error by age, a line per term; dotted, the log loss of telling all the same.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'playbill[tracking]'") from None
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (measure, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for term in report.rows["term"].unique(maintain_order=True):
            found = report.by_age(term, measure)
            (line,) = axes.plot(list(found), list(found.values()), marker="o", label=term)
            if measure == "log_loss":
                base = report.by_age(term, "base_log_loss")
                axes.plot(list(base), list(base.values()), linestyle=":", color=line.get_color())
        axes.set_xscale("log")
        axes.set_xlabel("age of the play, hours")
        axes.set_title(title, fontsize=10)
    figure.axes[0].legend(fontsize=8)
    figure.axes[-1].set_ylim(bottom=0)
    figure.savefig(path)


@dataclass(frozen=True, slots=True)
class TermDescription:
    """One term."""

    label: str
    """Such as `completion:1`."""
    weight: float
    """Worth of a 1."""
    otherwise: float
    """Worth of a 0."""
    counts_for: str
    """`itself`, or which play another event counts for."""
    of: tuple[str, ...]
    """Actions of the events it can speak of."""
    final_after: timedelta
    """Age at which nothing changes it any more."""
    delayed: bool
    """Whether it is predicted until then."""


@dataclass(frozen=True, slots=True)
class RewardDescription:
    """A reward: its id (`specs.reward_version`), when it is final, its bounds and its terms."""

    id: str
    final_after: timedelta
    clip: tuple[float, float] | None
    terms: tuple[TermDescription, ...]


def describe_reward(reward: RewardSpec, labels: Mapping[str, LabelSpec]) -> RewardDescription:
    """Describe a reward.

    Raises:
        DataError: A term has no label.
    """
    terms = tuple(_described(term) for term in bound_terms(reward, labels))
    return RewardDescription(
        reward_version(reward, labels), max(term.final_after for term in terms), reward.clip, terms
    )


def _described(term: BoundTerm) -> TermDescription:
    of = tuple(action for action in REWARDED if action in speaks_of(term.spec, term.label))
    return TermDescription(
        label=f"{term.label.name}:{term.label.version}",
        weight=term.spec.weight,
        otherwise=term.spec.otherwise,
        counts_for=_counts_for(term),
        of=of,
        final_after=max(matures_after(term.spec, term.label, action) for action in of),
        delayed=term.delayed,
    )


def _counts_for(term: BoundTerm) -> str:
    if attribution(term.spec, term.label) == "event":
        return "itself"
    window = attribution_window(term.spec, term.label)
    days = "" if window is None else f" within {window / timedelta(days=1):g} days"
    return f"the title's latest play before it{days}"
