"""What a ranking by the truth would reach: the ceiling of a case, where the world behind the log is known."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from playbill.datasets import Request
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.score_function import ScoreFunction, Scores
from playbill.registry import Registry

TRUTHS = Registry("source of the truth behind a log", "playbill.truths", {})
"""Of packages that know how a workspace's log came about, called as `truth(folder)`; they return a `KnownTruth`, or
None for a folder that they know nothing of."""


class KnownTruth(Protocol):
    """How likely titles were to be played in logged requests; evaluation does not know where it comes from."""

    @property
    def title_ids(self) -> Sequence[str]:
        """The titles, one for each column."""

    @property
    def note(self) -> str:
        """Why something is not known; empty where all is."""

    def gather(self, request_ids: Collection[str]) -> None:
        """Work the truth of many requests out at once."""

    def of(self, request_ids: Collection[str]) -> npt.NDArray[np.floating[Any]] | None:
        """Return [N, T] how likely each title was to be played in requests of the log; None where that is not known."""


def truth_of(folder: Path) -> KnownTruth | None:
    """Return the truth behind a workspace's log, None where no installed package knows it.

    Raises:
        IntegrityError: What was kept of the truth is damaged.
    """
    found: Iterator[KnownTruth | None] = (TRUTHS[name].load()(folder) for name in TRUTHS.names())
    return next((truth for truth in found if truth is not None), None)


@dataclass(frozen=True)
class TrueOrder:
    """Ranks titles by how likely they were to be played: `values` [N, T], rows found by member and moment."""

    title_ids: Sequence[str]
    values: npt.NDArray[np.floating[Any]]
    places: dict[tuple[str | None, datetime], int]

    def score(self, requests: Sequence[Request]) -> Scores:
        """Return [N, T] chances."""
        return self.values[[self.places[one.member_id, one.at] for one in requests]]


def ceiling_of(case: EvaluationCase, truth: KnownTruth | None) -> ScoreFunction | None:
    """Return the scores of a case by the truth; None where it is not known of all of its requests."""
    requested = case.log.frame[case.positions]["request_id"]
    if truth is None or requested.null_count():
        return None
    values = truth.of(requested.to_list())
    if values is None:
        return None
    keys = zip(case.frame["member_id"].to_list(), case.frame["at"].to_list(), strict=True)
    return TrueOrder(truth.title_ids, values, {key: row for row, key in enumerate(keys)})
