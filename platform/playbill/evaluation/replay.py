"""`replay`: the held-out period is gone through in time order; each window is scored, then learnt from.

A score that a model keeps up with what happened is not the score of a frozen one, so replays are compared only with
replays of the same window. Baselines are fitted anew after every window on all that happened before its end. A model
is told of the events through `Replay.update`; without it only what a frozen model reads moves on: histories and
features. The idea is prequential evaluation: Gama, Sebastião and Rodrigues, "On evaluating stream learning
algorithms", Machine Learning 2013; for recommenders Vinagre, Jorge and Gama, arXiv 1504.08175.
Axis letters: N requests, W windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from playbill.datasets import Split
from playbill.definitions.specs.base import format_duration
from playbill.errors import ConfigError, StateError
from playbill.evaluation.cases.boundaries import assert_before_requests
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.order import microseconds
from playbill.evaluation.cases.score_function import ScoreFunction
from playbill.evaluation.facts import case_facts
from playbill.evaluation.measure import Collector, Measured, Progress
from playbill.evaluation.report import WindowRow
from playbill.metrics import MemberBootstrap
from playbill.metrics.ranking import Values

REPLAY = "replay"
DAY = timedelta(days=1)
MOST_WINDOWS = 2_000
"""Windows at most: each costs every baseline a new fit."""

Update = Callable[[pl.DataFrame], None]
"""Called with the events a model has not learnt from yet, in log order."""


class Replay(NamedTuple):
    """How a held-out period is gone through.

    Args:
        window: Length of a window; the first one begins with the fold.
        update: Tells the model what happened, after each window; the first call brings the validation fold too.
            None = the model stays as it was trained.
    """

    window: timedelta = DAY
    update: Update | None = None

    @property
    def protocol(self) -> str:
        """The protocol's name with the window and what learns: replays that differ in it are not compared."""
        return f"{REPLAY}/{format_duration(self.window)}" + ("" if self.update is None else "/updated")


class _Window(NamedTuple):
    start: datetime
    end: datetime
    first: int
    stop: int


def replayed(
    case: EvaluationCase,
    split: Split,
    name: str,
    function: ScoreFunction,
    fit: Callable[[EvaluationCase], Mapping[str, ScoreFunction]],
    k: Sequence[int],
    replay: Replay,
    rewards: Values | None,
    progress: Progress | None,
) -> tuple[EvaluationCase, dict[str, Measured], tuple[WindowRow, ...]]:
    """Go through a case in time order and learn after every window.

    Args:
        case: Requests of the protocol `replay`.
        split: Says where its fold begins.
        name: What the model is called.
        function: The model.
        fit: Fits the baselines of a part of the case, anew after every window.
        k: Cut-offs.
        replay: The windows.
        rewards: [M] worth of each target.
        progress: Called after every chunk of requests.

    Returns:
        The case in time order, what every function did, and a row per window with requests.

    Raises:
        ConfigError: The window is not positive, or there would be more than `MOST_WINDOWS` of them.
    """
    begun = split.cutoff if case.fold == "test" else split.validation_cutoff
    if begun is None:
        raise StateError(f"split '{split.protocol}' has no moment at which its {case.fold} fold begins")
    ordered, _, order = replace(case, protocol=replay.protocol).in_time_order()
    windows = _windows(ordered, begun, replay.window)
    collector: Collector | None = None
    learnt = ordered.log.frame["fold"].eq_missing("train").to_numpy()
    for number, window in enumerate(windows):
        part = ordered.part(window.first, window.stop)
        if number:
            part = replace(part, log=part.log.until(windows[number - 1].end))
        assert_before_requests(part)
        fitted = fit(part)
        collector = collector or Collector(ordered, [name, *fitted], max(k))
        collector.add(part, {name: function, **fitted}, progress)
        if replay.update is not None:
            happened = (ordered.log.frame["event_at"] < window.end).to_numpy() & ~learnt
            replay.update(ordered.log.events.filter(pl.Series(happened)))
            learnt |= happened
    assert collector is not None  # a case has requests, so there is a window
    facts = case_facts(ordered, None if rewards is None else rewards[order])
    measured = collector.measured(facts, k)
    return ordered, measured, _rows(ordered, windows, measured, f"ndcg@{k[0]}")


def _windows(case: EvaluationCase, begun: datetime, length: timedelta) -> list[_Window]:
    """Return the windows that have requests, with where these stand in the ordered case."""
    if length <= timedelta(0):
        raise ConfigError(f"a replay needs windows longer than nothing, got {length}")
    at = microseconds(case.frame["at"])
    origin = microseconds(pl.Series([begun], dtype=pl.Datetime("us", "UTC")))[0]
    width = length // timedelta(microseconds=1)
    number = (at - origin) // width
    found, first = np.unique(number, return_index=True)
    if found.size > MOST_WINDOWS:
        raise ConfigError(
            f"windows of {length} make {found.size} windows with requests, each with new fits; choose longer ones "
            f"(at most {MOST_WINDOWS})"
        )
    stops = [*first[1:].tolist(), len(case)]
    edges = [datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(origin + one * width)) for one in found]
    return [
        _Window(start, start + length, begin, stop)
        for start, begin, stop in zip(edges, first.tolist(), stops, strict=True)
    ]


def _rows(
    case: EvaluationCase, windows: Sequence[_Window], measured: dict[str, Measured], metric: str
) -> tuple[WindowRow, ...]:
    found = []
    for window in windows:
        span = slice(window.first, window.stop)
        members = case.frame["member_id"][span].rank("dense").to_numpy().astype(np.int64) - 1
        values = np.stack([one.values[metric][span] for one in measured.values()], axis=1)
        intervals = MemberBootstrap(members, resamples=500).intervals(values)
        found.append(
            WindowRow(
                start=window.start.isoformat(),
                end=window.end.isoformat(),
                requests=window.stop - window.first,
                members=int(members.max()) + 1,
                metrics=dict(zip(measured, intervals, strict=True)),
            )
        )
    return tuple(found)
