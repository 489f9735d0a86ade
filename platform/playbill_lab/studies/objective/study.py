"""The study `objective_before_capacity`: what a larger network does to members, by what it is told to seek.

One simulated log for each seed; from it the same network in several sizes learns several objectives, by the code of
`playbill train`. Each model is measured offline on the log's held-out end, and online on the same members, whose value
is known exactly. Does capacity help, and does a misaligned objective cost more when there is more of it?

Source of the question: "Recommending for long-term member satisfaction at Netflix", TechBlog 2024: better offline fit
can come with flat or negative online metrics where the proxy is misaligned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import polars as pl

from playbill.datasets import Split, TrainingSet, make_split
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo import Zoo
from playbill.evaluation import CanvasScorer, evaluate_canvas
from playbill_lab.ab.experiment import Test, measured
from playbill_lab.ab.report import AbReport, Contrast, compare, contrasts
from playbill_lab.bridge.live_features import NoFeatures
from playbill_lab.bridge.model_policy import ModelPolicy
from playbill_lab.bridge.simulated_log import Fitted, SimulatedLog, going_on, trained_on, training_set
from playbill_lab.simulator import Policy, World, WorldSpec, load_policy, simulate
from playbill_lab.simulator.world.behaviour_model import LAW
from playbill_lab.studies.cells import Agreement, Cell, Cells, Offline, agreements, digest
from playbill_lab.studies.objective.arms import BASE, StudyOptions, study_model

SIZES = ("members", "titles", "log_days", "test_members", "test_days")
"""Options that a cell follows from, beside its seed and its model."""
RIPENING_DAYS = 10  # Days after the log by which the rewards of its last plays are known; the offline report needs them


@dataclass(frozen=True)
class Run:
    """One seed of the study, with the training set of each objective so far. Its log is written when first needed."""

    options: StudyOptions
    models: Mapping[str, ResolvedModel]  # Arm -> definition of every model
    seed: int  # Of the world, of its members' luck and of training
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


OFFLINE = ("ndcg@10", "reward_ndcg@10")
"""Offline metrics that are set against the test: which plays came, and which came that were worth something."""

ONLINE = ("value", "retained", "satisfaction", "plays_per_day")  # Measures of the test that a good model raises

StudyProgress = Callable[[str], None]


@dataclass(frozen=True)
class Study:
    """Results: offline, online, what capacity does by objective, and what a misaligned objective costs by capacity."""

    options: StudyOptions
    offline: tuple[Offline, ...]  # Every model on every log
    online: AbReport
    contrasts: tuple[Contrast, ...]
    agreements: tuple[Agreement, ...]  # Whether offline metrics rank the models as the test does


def run_study(zoo: Zoo, options: StudyOptions, folder: Path, progress: StudyProgress | None = None) -> Study:
    """Run the study, or what is left of it: finished cells in `folder`, where bundles go too, are not made again.

    Raises:
        UnknownNameError: There is no such reward or capacity.
        ProblemsError: It cannot be run in these sizes.
    """
    options.check()
    tell, cells = progress or (lambda _text: None), Cells(folder)
    runs = [Run.of(zoo, options, seed, folder) for seed in options.seeds]
    found = [_of_seed(cells, run, tell) for run in runs]
    offline = tuple(cell.offline for row in found for cell in row if cell.offline is not None)
    values = {
        arm: pl.concat(_of_run(row[place].members, number, options) for number, row in enumerate(found))
        for place, arm in enumerate(options.arms)
    }
    about = {"log_days": options.log_days, "log_members": options.members, "titles": options.titles}
    return Study(
        options=options,
        offline=offline,
        online=compare(values, days=options.test_days, seeds=options.seeds, about=about),
        contrasts=contrasts(values, options.objectives, options.capacities),
        agreements=agreements(offline, values, OFFLINE, ONLINE),
    )


def _of_run(members: pl.DataFrame, number: int, options: StudyOptions) -> pl.DataFrame:
    """Number the run and its members: those of another world are other people."""
    first = number * options.test_members
    return members.with_columns(pl.col("member") + first, run=pl.lit(number, dtype=pl.Int64))


def _of_seed(cells: Cells, run: Run, tell: StudyProgress) -> list[Cell]:
    """Return every cell of a seed, and let go of its log."""
    found = [_cell(cells, run, arm, tell) for arm in run.options.arms]
    run.forget()
    return found


def _cell(cells: Cells, run: Run, arm: str, tell: StudyProgress) -> Cell:
    request = run.digest(arm)
    if (known := cells.read(arm, run.seed, request)) is not None:
        return known
    made = run.cell(arm)
    cells.write(made, request)
    tell(f"seed {run.seed}: {arm}: {_shown(made)}")
    return made


def _shown(cell: Cell) -> str:
    value = f"value {float(cell.members['value'].to_numpy().mean()):.2f} days"
    if (row := cell.offline) is None:
        return value
    numbers = ", ".join(f"{name} {row.metrics[name].value:.4f}" for name in OFFLINE if name in row.metrics)
    return f"{value}, {numbers} ({row.parameters:,} weights, {row.examples:,} examples, {row.train_seconds:.0f} s)"
