"""The parts of a freshness study, and what each found.

`cadences` replays the log and updates never, weekly, daily or as often as is wanted; the staleness curve lets versions
of several ages answer the same requests. `retrain` puts a model trained anew beside the one that was updated. With
`forgetting` the last version of 30 daily updates ranks titles that none of them has seen a play of, for several shares
of replayed examples. `launches` holds canvases of coming titles, as they were ranked on the eve of launches, against
what members then played; `surge` lets a title of the long tail be played a lot all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from playbill.config import Workspace
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.specs.base import parse_duration
from playbill.errors import Problem, ProblemsError, StateError
from playbill.evaluation.cases.case import CandidateRule
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.cases.slices import popularity_bands
from playbill.features import FeatureDoor
from playbill.tables import Tables
from playbill_lab.ab.results import repeated
from playbill_lab.studies.freshness.launches import CHANCE, GENRES, beside, eve_of_launches
from playbill_lab.studies.freshness.replay import DAY, GroupComparison, ReplayedDays, compared
from playbill_lab.studies.freshness.surge import Panel, SurgeCourse, SurgingTables, course, surge_of
from playbill_lab.studies.freshness.versions import TrainedVersion, VersionTrainer

PARTS = ("cadences", "retrain", "forgetting", "launches", "surge")
COMING = ("coming_soon", "pre_launch")
NEVER = "never"
DENSE = 20  # events between two updates that a cadence needs
DAILY = "1d"
AGES = (0, 1, 2, 4, 7, 14, 21)  # days


@dataclass(frozen=True)
class FreshnessOptions:
    """What a study does."""

    parts: tuple[str, ...] = ("cadences", "retrain")
    canvas: str = "home"
    days: int = 21
    cadences: tuple[str, ...] = (NEVER, "7d", "1d")
    replays: tuple[float, ...] = (0.0, 0.2, 0.5)
    updates: int = 30
    seed: int = 17
    requests: int = 6000
    dim: int | None = None
    epochs: int | None = None
    min_steps: int | None = None
    resamples: int = 1000

    def check(self) -> None:
        """Refuse options that make no study.

        Raises:
            ProblemsError: Every problem, by option.
        """
        problems = [*repeated("parts", self.parts), *repeated("cadences", self.cadences)]
        known = ", ".join(PARTS)
        problems += [
            Problem("parts", f"there is no part '{part}'.", f"Parts: {known}.")
            for part in self.parts
            if part not in PARTS
        ]
        problems += [Problem("parts", "name at least one.", f"Parts: {known}.")] if not self.parts else []
        problems += [problem for cadence in self.cadences for problem in _cadence_problems(cadence, self.days)]
        problems += [
            Problem("replay", f"{share:g} is no share of examples, which is from 0 to below 1.")
            for share in self.replays
            if not 0 <= share < 1
        ]
        if problems:
            raise ProblemsError("freshness", problems)


def _cadence_problems(cadence: str, days: int) -> list[Problem]:
    if cadence == NEVER:
        return []
    try:
        period = parse_duration(cadence)
    except ValueError:
        return [Problem("cadences", f"'{cadence}' is no cadence.", "Write never, or a duration such as 7d, 1d or 6h.")]
    if not timedelta(hours=1) <= period < days * DAY or (DAY % period and period % DAY):
        what = f"'{cadence}' must be an hour or more, less than the {days} days, and part a day or be whole days."
        return [Problem("cadences", what)]
    return []


@dataclass(frozen=True)
class CadenceCost:
    """What one cadence took for the days of the study."""

    cadence: str
    updates: int
    events: int
    cpu_seconds: float
    cpu_seconds_a_day: float


@dataclass(frozen=True)
class Retrained:
    """A model trained anew at the end of the replay's first part, beside the one that was updated every day."""

    days: int  # Of updates before
    tested_days: int
    comparisons: tuple[GroupComparison, ...]  # Arms `retrained` and `updated`
    quality_ratio: float  # `updated` / `retrained`, of all requests
    cost_ratio: float  # A day's update / the training anew, processor time


@dataclass(frozen=True)
class Forgotten:
    """One share of replay: the version before the updates, and the one after them.

    Groups are `all`, `tail` (titles with the last fifth of plays before the updates) and of these the `untouched`, of
    which no update has seen a play.
    """

    replay: float
    comparisons: tuple[GroupComparison, ...]


@dataclass(frozen=True)
class Freshness:
    """What a study found."""

    model: str
    options: FreshnessOptions
    start: datetime
    requests: int
    members: int
    catalogue: int
    trained_cpu_seconds: float  # Of the first version
    cadences: tuple[GroupComparison, ...] = ()
    costs: tuple[CadenceCost, ...] = ()
    by_day: pl.DataFrame = field(default_factory=pl.DataFrame)
    staleness: tuple[GroupComparison, ...] = ()  # By group; arms are ages in days, the youngest first
    retrained: Retrained | None = None
    forgotten: tuple[Forgotten, ...] = ()
    launches: Mapping[str, GroupComparison] = field(default_factory=dict)  # Canvas -> chance, popularity, versions
    surge: tuple[SurgeCourse, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def monotone(self) -> bool | None:
        """Whether no age is better than the next younger one beyond its interval; None without a curve."""
        return all(step.high >= 0.0 for step in self.staleness[0].step.values()) if self.staleness else None

    @property
    def in_order(self) -> bool | None:
        """Whether every cadence is ahead of the next slower one beyond its interval; None without cadences."""
        return all(step.high < 0.0 for step in self.cadences[0].step.values()) if self.cadences else None


@dataclass
class FreshnessStudy:
    """A study under way over one workspace."""

    trainer: VersionTrainer
    frames: EvaluationTables
    features: FeatureDoor
    options: FreshnessOptions
    start: datetime
    progress: Callable[[str], None] = lambda _name: None
    skipped: list[str] = field(default_factory=list)

    @classmethod
    def of_workspace(
        cls,
        workspace: Workspace,
        resolved: ResolvedModel,
        options: FreshnessOptions,
        folder: Path,
        progress: Callable[[str], None],
    ) -> FreshnessStudy:
        """Read a workspace: the study's days are the last ones of its log.

        Raises:
            StateError: Data or features are missing, or the log is too short.
        """
        tables, features = Tables(workspace).require(), FeatureDoor(workspace)
        features.schema(resolved.model.features)
        resolved.canvas(options.canvas)
        frames = EvaluationTables.read(tables)
        begun = frames.interactions["event_at"].min()
        assert isinstance(begun, datetime)
        end = frames.end.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
        needed = options.days
        if "forgetting" in options.parts:
            needed = max(needed, options.updates + 1)
        start = end - needed * DAY
        if start - begun < 2 * DAY:
            length = (end - begun) // DAY
            raise StateError(
                f"the log of workspace '{workspace.name}' has {length} days; {needed} of them are replayed, and the "
                "model is trained on at least two before them: choose fewer with --days, or with --updates"
            )
        folder.mkdir(parents=True, exist_ok=True)
        trainer = VersionTrainer(tables, resolved, features, folder, progress)
        return cls(trainer, frames, features, options, start, progress)

    @cached_property
    def base(self) -> TrainedVersion:
        """The first version."""
        return self.trainer.train(self.start)

    @cached_property
    def days(self) -> ReplayedDays:
        """The requests."""
        length, most = (self.frames.end - self.start) // DAY + 1, self.options.requests
        split, own = self.trainer.split(self.start), self.trainer.resolved
        given = (self.frames, self.features, own, self.options.canvas, split)
        return ReplayedDays.of(*given, days=length, most=most, seed=self.options.seed)

    def run(self) -> Freshness:
        """Do every part."""
        parts, days = self.options.parts, self.days
        found = Freshness(
            model=self.trainer.resolved.model.name,
            options=self.options,
            start=self.start,
            requests=len(days.case),
            members=int(days.members.max()) + 1,
            catalogue=len(days.case.catalogue),
            trained_cpu_seconds=self.base.cost.cpu_seconds,
        )
        results: dict[str, object] = {}
        if "cadences" in parts:
            results |= self._cadences()
        if "retrain" in parts:
            results["retrained"] = self._retrained()
        if "forgetting" in parts:
            results["forgotten"] = self._forgotten()
        if "launches" in parts:
            results["launches"] = self._launches()
        if "surge" in parts:
            results["surge"] = self._surge()
        return Freshness(**{**vars(found), **results, "skipped": tuple(self.skipped)})

    def chain(
        self, cadence: str, until: datetime, replay: float | None = None, trainer: VersionTrainer | None = None
    ) -> list[TrainedVersion]:
        """Return the first version and those of a cadence's moments before another one, in order."""
        versions, moment = [self.base], self.start
        if cadence == NEVER:
            return versions
        period = parse_duration(cadence)
        while (moment := moment + period) < until:
            versions.append((trainer or self.trainer).update(versions[-1], moment, replay))
        return versions

    @property
    def end(self) -> datetime:
        """The moment after the replayed days of cadences and ages."""
        return self.start + self.options.days * DAY

    def _cadences(self) -> dict[str, object]:
        wanted = sorted((one for one in self.options.cadences if self._dense(one)), key=_period, reverse=True)
        chains = {cadence: self.chain(cadence, self.end) for cadence in wanted}

        def in_force(moment: datetime) -> dict[str, TrainedVersion]:
            known = {name: [one for one in chain if one.cutoff <= moment] for name, chain in chains.items()}
            return {name: versions[-1] for name, versions in known.items()}

        step = min(DAY, *(_period(cadence) for cadence in wanted))
        answers = self.days.answered(in_force, self.start, self.end, step)
        costs = tuple(self._cost(name, chain) for name, chain in chains.items())
        found = {
            "cadences": compared(self.days, answers, wanted, self.days.groups, self.options.resamples),
            "costs": costs,
            "by_day": answers.group_by("day").agg(pl.len().alias("requests"), pl.col(wanted).mean()).sort("day"),
        }
        if DAILY in chains:
            found["staleness"] = self._staleness(chains[DAILY])
        return found

    def _staleness(self, chain: Sequence[TrainedVersion]) -> tuple[GroupComparison, ...]:
        ages = [age for age in AGES if age <= 2 * self.options.days // 3]

        def in_force(moment: datetime) -> dict[str, TrainedVersion]:
            day = (moment - self.start) // DAY
            return {str(age): chain[day - age] for age in ages}

        answers = self.days.answered(in_force, self.start + max(ages) * DAY, self.end)
        return compared(self.days, answers, [str(age) for age in ages], self.days.groups, self.options.resamples)

    def _cost(self, cadence: str, chain: Sequence[TrainedVersion]) -> CadenceCost:
        updates = list({one.parent.digest: one for one in chain[1:]}.values())
        seconds = sum(one.cost.cpu_seconds for one in updates)
        events = sum(one.cost.events for one in updates)
        return CadenceCost(cadence, len(updates), events, seconds, seconds / self.options.days)

    def _retrained(self) -> Retrained:
        tested = max(1, self.options.days // 4)
        moment = self.end - tested * DAY
        updated, retrained = self.chain(DAILY, moment + DAY)[-1], self.trainer.train(moment)
        arms = {"retrained": retrained, "updated": updated}
        answers = self.days.answered(lambda _: arms, moment, self.end, self.end - moment)
        found = compared(self.days, answers, list(arms), self.days.groups, self.options.resamples)
        quality = found[0].quality
        before = self.chain(DAILY, moment + DAY)[1:]
        daily = sum(one.cost.cpu_seconds for one in before) / max(1, len(before))
        return Retrained(
            days=self.options.days - tested,
            tested_days=tested,
            comparisons=found,
            quality_ratio=quality["updated"].value / quality["retrained"].value,
            cost_ratio=daily / retrained.cost.cpu_seconds,
        )

    def _forgotten(self) -> tuple[Forgotten, ...]:
        moment, end = self.start + self.options.updates * DAY, self.frames.end
        shares = {f"replay {share:g}": share for share in self.options.replays}
        arms = {"before": self.base}
        arms |= {name: self.chain(DAILY, moment + DAY, share)[-1] for name, share in shares.items()}
        answers = self.days.answered(lambda _: arms, moment, end, end - moment)
        before, during = self.days.played_before(self.start), self.days.played_before(moment)
        tail, target = popularity_bands(before) == "tail", self.days.first_target
        groups = {
            "all": np.ones(len(self.days.case), np.bool_),
            "tail": tail[target],
            "untouched": (tail & (during == before))[target],
        }
        return tuple(
            Forgotten(share, compared(self.days, answers, ["before", name], groups, self.options.resamples))
            for name, share in shares.items()
        )

    def _launches(self) -> dict[str, GroupComparison]:
        resolved, found = self.trainer.resolved, {}
        chain = self.chain(DAILY, self.end)
        for canvas in (name for name in COMING if name in self.base.parent.bundle.resolved.canvases):
            case = self.days.case
            rule = CandidateRule.of(resolved.canvas(canvas), self.frames, case.catalogue, case.log)
            try:
                eve = eve_of_launches(self.days, canvas, rule, self.end)
            except StateError as error:
                self.skipped.append(f"launches on {canvas}: {error}")
                continue

            def in_force(moment: datetime) -> dict[str, TrainedVersion]:
                return {NEVER: self.base, DAILY: [one for one in chain if one.cutoff <= moment][-1]}

            answers = eve.answered(in_force, self.start - DAY, self.end)
            answers = answers.join(beside(eve, self.start), on="place", how="left", maintain_order="left")
            arms, every = [CHANCE, GENRES, NEVER, DAILY], {"all": np.ones(len(eve.case), np.bool_)}
            (found[canvas],) = compared(eve, answers, arms, every, self.options.resamples)
        return found

    def _surge(self) -> tuple[SurgeCourse, ...]:
        panel = Panel.of(self.days, self.options.seed)
        surge = surge_of(panel, self.frames, self.options.days, self.options.seed)
        given = (SurgingTables(self.trainer.tables, surge), self.trainer.resolved, self.features, self.trainer.folder)
        trainer = VersionTrainer(*given, self.progress)
        found = []
        for cadence in sorted((one for one in self.options.cadences if self._dense(one)), key=_period, reverse=True):
            found.append(course(panel, cadence, self.chain(cadence, self.end, trainer=trainer)))
        return tuple(found)

    def _dense(self, cadence: str) -> bool:
        if cadence == NEVER:
            return True
        inside = pl.col("event_at").is_between(self.start, self.end)
        each = self.frames.interactions.filter(inside).height * (_period(cadence) / (self.end - self.start))
        if each < DENSE:
            text = f"cadence {cadence}: {each:.0f} events come between two updates, fewer than {DENSE}"
            self.skipped += [] if text in self.skipped else [text]
        return each >= DENSE


def _period(cadence: str) -> timedelta:
    found: timedelta = timedelta.max if cadence == NEVER else parse_duration(cadence)
    return found
