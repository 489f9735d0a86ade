"""Objective before capacity: what a larger network does to members, by what it is told to seek.

One simulated log; from it the same network in two sizes learns three objectives, by the code of `playbill train`. Each
model is then measured twice: offline on the log's held-out end, and online on the same members, whose value is known
exactly. The question: does capacity help, and does a misaligned objective cost more when there is more of it?

Source of the question: "Recommending for long-term member satisfaction at Netflix", TechBlog 2024: better offline fit
can come with flat or negative online metrics where the proxy is misaligned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from playbill.datasets import Split, make_split
from playbill.evaluation import CanvasScorer, evaluate_canvas
from playbill.experiments.ab_report import AbReport, compare
from playbill.experiments.contrasts import Contrast, contrasts
from playbill.experiments.fitting import Fitted, fit_model
from playbill.experiments.live_features import NoFeatures
from playbill.experiments.model_policy import ModelPolicy
from playbill.experiments.objectives import CAPACITIES, OBJECTIVES, Recipe, study_model
from playbill.experiments.simulated_ab import Test, measured
from playbill.experiments.simulated_log import SimulatedLog, going_on
from playbill.metrics import Interval
from playbill.simulator.policies import Policy, load_policy
from playbill.simulator.run import simulate
from playbill.simulator.spec import WorldSpec
from playbill.simulator.world import World
from playbill.zoo import Zoo

BASE = "plackett_luce"
"""The policy that writes the log, and the arm that others are compared with."""
BESIDE = ("popular", "best_value")
"""Arms that show the scale: no personal list at all, and the most that could be had."""

RIPENING_DAYS = 10
"""Days after the log by which the rewards of its last plays are known; the offline report needs them."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class StudyOptions:
    """Sizes of the study.

    Args:
        members: In the log.
        titles: In the catalogue.
        log_days: Days of the log.
        test_members: Members of the test.
        test_days: Days of the test.
        seeds: One world, log, training and test for each.
        objectives: Some of `OBJECTIVES`.
        capacities: Some of `CAPACITIES`.
        recipe: Of training; its seed is replaced by that of the run.
    """

    members: int = 8000
    titles: int = 500
    log_days: int = 42
    test_members: int = 1500
    test_days: int = 28
    seeds: tuple[int, ...] = (1, 2)
    objectives: tuple[str, ...] = tuple(OBJECTIVES)
    capacities: tuple[str, ...] = tuple(CAPACITIES)
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def models(self) -> tuple[tuple[str, str], ...]:
        """(objective, capacity) of every model."""
        return tuple((objective, capacity) for capacity in self.capacities for objective in self.objectives)


@dataclass(frozen=True)
class Offline:
    """One model on the held-out end of one log.

    Args:
        arm: The model.
        seed: Of the run.
        metrics: Metric -> mean with its interval by member.
        requests: Asked.
        parameters: Weights of the network.
        examples: That it learnt from.
        train_seconds: In the training loop.
    """

    arm: str
    seed: int
    metrics: Mapping[str, Interval]
    requests: int
    parameters: int
    examples: int
    train_seconds: float


@dataclass(frozen=True)
class Study:
    """What came out.

    Args:
        options: What was asked.
        offline: Every model on every log.
        online: Every arm over all seeds.
        contrasts: What capacity does by objective, and what a misaligned objective costs by capacity.
    """

    options: StudyOptions
    offline: tuple[Offline, ...]
    online: AbReport
    contrasts: tuple[Contrast, ...]


def run_study(zoo: Zoo, options: StudyOptions, folder: Path, progress: Progress | None = None) -> Study:
    """Run the study.

    Args:
        zoo: Where the rewards are defined.
        options: Sizes.
        folder: Where bundles go.
        progress: Told of every step.

    Raises:
        UnknownNameError: There is no such objective or capacity.
    """
    tell = progress or (lambda _text: None)
    offline: list[Offline] = []
    online: dict[str, list[pl.DataFrame]] = {}
    for run, seed in enumerate(options.seeds):
        log = write_log(options, seed)
        tell(f"seed {seed}: a log of {log.events.height} events")
        split = make_split("global_time_successive", log.interactions())
        world = going_on(log.world, options.test_days, options.test_members)
        arms: dict[str, Policy] = {name: load_policy(name) for name in (BASE, *BESIDE)}
        for objective, capacity in options.models:
            name = f"{objective}_{capacity}"
            fitted = _fitted(zoo, options, log, split, name, seed, folder)
            offline.append(judged(fitted, log, split, name, seed))
            tell(f"seed {seed}: {name} {_shown(offline[-1])}")
            arms[name] = ModelPolicy(
                name, fitted.scorer(world, NoFeatures()), fitted.bundle.resolved, world, NoFeatures()
            )
        test = Test(options.log_days, load_policy(BASE))
        for name, policy in arms.items():
            frame = measured(world, policy, test, None, run)
            shifted = frame.with_columns(pl.col("member") + run * options.test_members)
            online.setdefault(name, []).append(shifted)
            tell(f"seed {seed}: {name} online, value {_mean(frame):.2f}")
    values = {name: pl.concat(frames) for name, frames in online.items()}
    about = {"log_days": options.log_days, "log_members": options.members, "titles": options.titles}
    report = compare(values, days=options.test_days, seeds=options.seeds, about=about)
    return Study(options, tuple(offline), report, contrasts(values, options.objectives, options.capacities))


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


def _fitted(
    zoo: Zoo, options: StudyOptions, log: SimulatedLog, split: Split, name: str, seed: int, folder: Path
) -> Fitted:
    objective, _, capacity = name.rpartition("_")
    recipe = options.recipe.__class__(**{**vars(options.recipe), "seed": seed})
    resolved = study_model(zoo, objective, capacity, recipe)
    return fit_model(log, resolved, split, NoFeatures(), folder / f"{name}-{seed}")


def _mean(frame: pl.DataFrame) -> float:
    return float(frame["value"].to_numpy().mean())


def _shown(row: Offline) -> str:
    numbers = " ".join(f"{name} {interval.value:.4f}" for name, interval in row.metrics.items())
    return f"({row.parameters} weights, {row.examples} examples, {row.train_seconds:.0f} s): {numbers}"
