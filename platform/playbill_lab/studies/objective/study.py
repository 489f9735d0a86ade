"""One seed of the study `objective_before_capacity`: a world, its log, the models that learn from it, and the test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import polars as pl

from playbill.datasets import Split, TrainingSet, make_split
from playbill.evaluation import CanvasScorer, evaluate_canvas
from playbill.specs import ResolvedModel
from playbill.zoo import Zoo
from playbill_lab.ab.experiment import Test, measured
from playbill_lab.bridge.live_features import NoFeatures
from playbill_lab.bridge.model_policy import ModelPolicy
from playbill_lab.bridge.simulated_log import SimulatedLog, going_on
from playbill_lab.bridge.training import Fitted, trained_on, training_set
from playbill_lab.simulator import load_policy
from playbill_lab.simulator.engine.run import simulate
from playbill_lab.simulator.policies.policies import Policy
from playbill_lab.simulator.world.behaviour_model import LAW
from playbill_lab.simulator.world.spec import WorldSpec
from playbill_lab.simulator.world.world import World
from playbill_lab.studies.cells import Cell, Offline, digest
from playbill_lab.studies.objective.arms import BASE, StudyOptions, study_model

SIZES = ("members", "titles", "log_days", "test_members", "test_days")
"""Options that a cell follows from, beside its seed and its model."""
RIPENING_DAYS = 10
"""Days after the log by which the rewards of its last plays are known; the offline report needs them."""


@dataclass(frozen=True)
class Run:
    """One seed of the study. Its log is written when the first cell asks for it.

    Args:
        options: Sizes.
        models: Arm -> definition of every model.
        seed: Of the world, of its members' luck and of training.
        folder: Where bundles go.
        sets: Objective -> training set, as far as they have been built.
    """

    options: StudyOptions
    models: Mapping[str, ResolvedModel]
    seed: int
    folder: Path
    sets: dict[str, TrainingSet] = field(default_factory=dict)

    @classmethod
    def of(cls, zoo: Zoo, options: StudyOptions, seed: int, folder: Path) -> Run:
        """Define the models of one seed."""
        recipe = replace(options.recipe, seed=seed)
        models = {
            name: study_model(zoo, goal, size, recipe, options.judged_by)
            for name, (goal, size) in options.models.items()
        }
        return cls(options, models, seed, folder)

    @cached_property
    def log(self) -> SimulatedLog:
        """What the service logged."""
        return write_log(self.options, self.seed)

    @cached_property
    def split(self) -> Split:
        """What of the log is held out."""
        return make_split("global_time_successive", self.log.interactions())

    @cached_property
    def world(self) -> World:
        """The service with the days of the test."""
        return going_on(self.log.world, self.options.test_days, self.options.test_members)

    def data(self, objective: str) -> TrainingSet:
        """Return what all models of an objective learn from."""
        if objective not in self.sets:
            of = next(self.models[arm] for arm, (goal, _) in self.options.models.items() if goal == objective)
            self.sets[objective] = training_set(self.log, of, self.split, NoFeatures())
        return self.sets[objective]

    def forget(self) -> None:
        """Let go of everything that can be made again."""
        self.sets.clear()
        for name in ("log", "split", "world"):
            self.__dict__.pop(name, None)

    def digest(self, arm: str) -> str:
        """Return a hash of everything that the cell of an arm follows from."""
        sizes = {name: getattr(self.options, name) for name in SIZES}
        model = self.models[arm].spec_hash if arm in self.models else None
        return digest(sizes=sizes, model=model, law=asdict(LAW), ripening=RIPENING_DAYS)

    def cell(self, arm: str) -> Cell:
        """Make the cell of an arm: train and judge it if it is a model, then let it serve."""
        if arm not in self.models:
            return Cell(arm, self.seed, self._tested(load_policy(arm)))
        objective, _ = self.options.models[arm]
        fitted = trained_on(self.data(objective), self.models[arm], self.folder / f"{arm}-{self.seed}")
        offline = judged(fitted, self.log, self.split, arm, self.seed)
        scorer = fitted.scorer(self.world, NoFeatures())
        policy = ModelPolicy(arm, scorer, fitted.bundle.resolved, self.world, NoFeatures())
        return Cell(arm, self.seed, self._tested(policy), offline)

    def _tested(self, policy: Policy) -> pl.DataFrame:
        return measured(self.world, policy, Test(self.options.log_days, load_policy(BASE)))


def write_log(options: StudyOptions, seed: int) -> SimulatedLog:
    """Let the service run under its own policy, and keep what it logs, and what came of it in the days after."""
    spec = WorldSpec(seed=seed, members=options.members, titles=options.titles, days=options.log_days)
    world = World.make(spec)
    outcome = simulate(going_on(world, RIPENING_DAYS), load_policy(BASE), keep_log=True)
    events = outcome.interactions
    return SimulatedLog(world, events.filter(pl.col("event_at") < spec.end), spec.end, events)


def judged(fitted: Fitted, log: SimulatedLog, split: Split, name: str, seed: int) -> Offline:
    """Measure a model on the held-out end of the log: which titles the members played next."""
    frames, features = log.evaluation(), NoFeatures()
    resolved = fitted.bundle.resolved
    scorer = fitted.scorer(log.world, features)
    report = evaluate_canvas(
        CanvasScorer(scorer, resolved, "home", features), split, frames, resolved, "home", name=name
    )
    return Offline(
        arm=name,
        seed=seed,
        metrics=dict(report.result.metrics),
        requests=report.n,
        parameters=fitted.parameters,
        examples=fitted.examples,
        train_seconds=fitted.seconds,
    )
