"""A log replayed day by day: what each version in force answers to the requests of a day, before it learns from them.

Prequential evaluation (Gama, Sebastião and Rodrigues, Machine Learning 2013): every request is answered from the
member's history and features up to its moment; what grows stale is the weights alone. Axis letters: N requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from playbill.arrays import Bools, Floats64, Indices
from playbill.datasets import Split
from playbill.definitions.specs import ResolvedModel
from playbill.errors import StateError
from playbill.evaluation.canvases.model import CanvasScorer
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.case import EvaluationCase, launches
from playbill.evaluation.cases.event_log import EvaluationTables, microseconds
from playbill.evaluation.evaluate import REPLAY
from playbill.evaluation.measure import measure
from playbill.metrics import Interval, MemberBootstrap
from playbill.ranking.candidates import NEVER
from playbill.ranking.scoring.scorer import Scorer
from playbill.ranking.scoring.state_cache import KeptSnapshots
from playbill_lab.studies.freshness.versions import TrainedVersion

DAY = timedelta(days=1)
K = 10
METRIC = f"ndcg@{K}"
InForce = Callable[[datetime], Mapping[str, TrainedVersion]]
GROUPS = ("all", "launch_week", "new")
"""Of requests: all; those whose target launched in the member's country within the last week; and those whose target
nobody had played when the first version was trained."""


class FeaturesOnce:
    """Features of members, looked up once for versions that answer the very same requests one after the other."""

    def __init__(self, features: Any) -> None:
        self._features = features
        self._last: tuple[str, pl.DataFrame, pl.DataFrame] | None = None

    def member_features(self, service: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` with features of members and requests, strictly before each row's `event_at`."""
        if self._last is None or self._last[0] != service or not self._last[1].equals(frame):
            self._last = (service, frame, self._features.member_features(service, frame))
        return self._last[2]


@dataclass(frozen=True)
class ReplayedDays:
    """The requests of one canvas from a moment on, by day."""

    frames: EvaluationTables
    features: Any  # `playbill.features.FeatureDoor`
    case: EvaluationCase  # N requests, in time order
    start: datetime  # Of the first day
    snapshots: KeptSnapshots = field(default_factory=KeptSnapshots)

    @classmethod
    def of(
        cls,
        frames: EvaluationTables,
        features: Any,
        resolved: ResolvedModel,
        canvas: str,
        split: Split,
        *,
        days: int,
        most: int,
        seed: int,
    ) -> ReplayedDays:
        """Build the requests of some days after a split's cutoff, at most so many, drawn at random.

        Raises:
            UnknownNameError: The model has no such canvas.
            StateError: Nobody played anything on it in those days.
        """
        assert split.cutoff is not None
        case, _, _ = build_case(frames, split.under(REPLAY), resolved, canvas).in_time_order()
        until = split.cutoff + days * DAY
        held = np.nonzero((case.frame["at"] < until).to_numpy())[0]
        if len(held) > most:
            held = np.random.default_rng(seed).choice(held, most, replace=False)
        chosen = np.isin(case.rows, held)
        return cls(frames, features, case.keep(chosen), split.cutoff)

    @cached_property
    def members(self) -> Indices:
        """[N] dense codes of members."""
        return self.case.frame["member_id"].rank("dense").to_numpy().astype(np.int64) - 1

    @cached_property
    def first_target(self) -> Indices:
        """[N] title column of each request's first target."""
        first = np.unique(self.case.rows, return_index=True)[1]
        return self.case.columns[first]

    @cached_property
    def launched(self) -> Floats64:
        """[N] days since the first target's launch in the member's country; NaN where that is not known."""
        launch = launches(self.case.rule.catalogue, self.case.frame["country"].to_list(), self.first_target)
        at = microseconds(self.case.frame["at"])
        return np.where(launch == NEVER, np.nan, (at - np.where(launch == NEVER, at, launch)) / 86_400_000_000)

    def played_before(self, moment: datetime) -> Indices:
        """Return [T] plays of each title before a moment."""
        plays = self.case.log.frame.filter((pl.col("action") == "play") & (pl.col("event_at") < moment))
        codes = self.case.catalogue.codes(plays["title_id"])
        return np.bincount(codes[codes >= 0], minlength=len(self.case.catalogue)).astype(np.int64)

    @cached_property
    def groups(self) -> Mapping[str, Bools]:
        """Return the requests of each of `GROUPS`."""
        with np.errstate(invalid="ignore"):
            young = (self.launched >= 0) & (self.launched < 7)
        new = self.played_before(self.start)[self.first_target] == 0
        return dict(zip(GROUPS, (np.ones(len(self.case), np.bool_), young, new), strict=True))

    def answered(self, in_force: InForce, since: datetime, until: datetime, step: timedelta = DAY) -> pl.DataFrame:
        """Let versions answer the requests of some time.

        Args:
            in_force: From the first moment of a step: arm -> the version that answers. One that several arms have
                answers once.
            since: The first moment, and `until` the one after the last.
            until: See `since`.
            step: How long versions stay in force.

        Returns:
            A row per request of that time: `place` (of the request in the case), `day`, and a column of `METRIC` for
            each arm.

        Raises:
            StateError: Nobody asked anything in that time.
        """
        at = microseconds(self.case.frame["at"])
        parts, moment = [], since
        while moment < until:
            then = min(moment + step, until)
            first, stop = np.searchsorted(at, [int(one.timestamp() * 1_000_000) for one in (moment, then)]).tolist()
            if first < stop:
                parts.append(self._step(first, stop, moment, in_force(moment)))
            moment = then
        if not parts:
            raise StateError(f"nothing was played on '{self.case.canvas}' from {since:%Y-%m-%d} to {until:%Y-%m-%d}")
        return pl.concat(parts)

    def _step(self, first: int, stop: int, moment: datetime, arms: Mapping[str, TrainedVersion]) -> pl.DataFrame:
        versions, once = {version.parent.digest: version for version in arms.values()}, FeaturesOnce(self.features)
        functions = {name: self.scorer(version, moment, once) for name, version in versions.items()}
        measured = measure(self.case.part(first, stop), functions, (K,))
        columns = {arm: measured[version.parent.digest].values[METRIC] for arm, version in arms.items()}
        days = [(moment - self.start) // DAY] * (stop - first)
        return pl.DataFrame({"place": np.arange(first, stop), "day": days, **columns})

    def scorer(self, version: TrainedVersion, at: datetime, members: FeaturesOnce | None = None) -> CanvasScorer:
        """Return a version's blend on the canvas, over the catalogue as it is known at a moment."""
        bundle = version.parent.bundle
        given = (bundle, self.frames.titles_at(at), self.frames.availability, self.features)
        scorer = Scorer(*given, as_of=at, snapshots=self.snapshots)
        return CanvasScorer(scorer, bundle.resolved, self.case.canvas, members or self.features)


@dataclass(frozen=True)
class GroupComparison:
    """Arms on the same requests, in one group of them."""

    group: str
    requests: int
    members: int
    quality: Mapping[str, Interval]  # Arm -> mean of `METRIC`
    difference: Mapping[str, Interval]  # Arm -> that minus the first arm's, paired by request
    step: Mapping[str, Interval]  # Arm, but for the first -> the arm before it minus that, paired


def compared(
    days: ReplayedDays, answers: pl.DataFrame, arms: Sequence[str], groups: Mapping[str, Bools], resamples: int
) -> tuple[GroupComparison, ...]:
    """Compare arms in each group of requests that has some, with intervals by member.

    Args:
        days: The requests.
        answers: Of `ReplayedDays.answered`.
        arms: Columns of these.
        groups: Group -> [N] which requests are of it.
        resamples: Draws of members.
    """
    place, values = answers["place"].to_numpy(), answers.select(arms).to_numpy()
    return tuple(
        _in_group(name, days.members[place][inside], values[inside], arms, resamples)
        for name, of_all in groups.items()
        if (inside := of_all[place]).any()
    )


def _in_group(name: str, members: Indices, values: Floats64, arms: Sequence[str], resamples: int) -> GroupComparison:
    dense, count = np.unique(members, return_inverse=True)[1].astype(np.int64), len(arms)
    columns = np.concatenate([values, values - values[:, :1], values[:, :-1] - values[:, 1:]], axis=1)
    found = MemberBootstrap(dense, resamples=resamples).intervals(columns)
    parts = (found[:count], found[count : 2 * count])
    quality, difference = (dict(zip(arms, part, strict=True)) for part in parts)
    step = dict(zip(arms[1:], found[2 * count :], strict=True))
    return GroupComparison(name, len(members), int(dense.max()) + 1, quality, difference, step)
