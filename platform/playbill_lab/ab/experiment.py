"""The simulated A/B test: the same members under several policies or registered models, their value known exactly.

Every arm gets the same service, members and luck; until the first day of the test the policy that wrote the log answers
in all arms, so they begin in the same state. What differs at the end is what the policies did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from playbill.clock import to_microseconds
from playbill.config import Workspace
from playbill.errors import ConfigError, Problem, ProblemsError, StateError
from playbill.features.feast_door import FeastDoor
from playbill.ranking.scoring.bundle import Bundle, read_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.versions.tracking import ModelVersion, Tracking
from playbill.versions.tracking.registry import PREFIX
from playbill_lab.ab.report import AbReport, check_arms, compare, plot
from playbill_lab.ab.results import record_results
from playbill_lab.bridge.live_features import LiveFeatures
from playbill_lab.bridge.model_policy import ModelPolicy
from playbill_lab.bridge.simulated_log import Switching, going_on
from playbill_lab.simulator import Policy, RunOutcome, World, load_policy, simulate
from playbill_lab.simulator.world.checkpoint import read_world
from playbill_lab.simulator.world.launches import DAY_US

FALSE_START = 0.1  # A play left before this share of its title was watched is a false start

ArmProgress = Callable[[str, int, int], None]
"""Called with an arm's name, days simulated so far and days in all, over every arm and run."""


@dataclass(frozen=True)
class Test:
    """When the arms part, and how often the test is run."""

    from_day: int  # First day of the test; before it `before` answers in every arm
    before: Policy  # The policy that wrote the log
    seeds: tuple[int, ...] = (0,)  # Of the members' luck, one run of every arm each


def simulated_ab(
    world: World,
    arms: Mapping[str, Policy],
    test: Test,
    *,
    about: Mapping[str, Any] | None = None,
    progress: ArmProgress | None = None,
) -> AbReport:
    """Run the arms in `world`, whose run ends with the test, and compare them; the first is the one to beat.

    `about` is handed on to the report; `progress` is called after every simulated day.

    Raises:
        ProblemsError: There are fewer than two arms, or a name comes twice.
        ConfigError: The test begins outside the run.
    """
    check_arms(list(arms))
    if not 0 <= test.from_day < world.spec.days:
        raise ConfigError(f"a test from day {test.from_day} on lies outside a run of {world.spec.days} days")
    found: dict[str, list[pl.DataFrame]] = {name: [] for name in arms}
    total = world.spec.days * len(arms) * len(test.seeds)
    for run, seed in enumerate(test.seeds):
        for place, (name, policy) in enumerate(arms.items()):
            before = (run * len(arms) + place) * world.spec.days
            tell = partial(_report_day, progress, name, before, total) if progress else None
            found[name].append(measured(world, policy, test, seed, run, tell))
    days = world.spec.days - test.from_day
    return compare(
        {name: pl.concat(runs) for name, runs in found.items()}, days=days, seeds=test.seeds, about=about or {}
    )


def _report_day(progress: ArmProgress, name: str, before: int, total: int, days: int, _in_all: int) -> None:
    progress(name, before + days, total)


def measured(
    world: World,
    policy: Policy,
    test: Test,
    seed: int | None = None,
    run: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Run one arm once and measure every member who was there on the first day of the test.

    `seed` is added to the world's own, for other luck of the same members (None and 0 keep the log's luck). `progress`
    is called with days done and days in all, those of the log included.

    Returns member (number), run, and a column per measure of `MEASURES`.
    """
    spec = world.spec.model_copy(update={"seed": world.spec.seed + (seed or 0)})
    lucky = replace(world, spec=spec)
    outcome = simulate(lucky, Switching(test.before, policy, test.from_day), keep_log=True, progress=progress)
    return _measures(outcome, lucky, test.from_day, run)


def _measures(outcome: RunOutcome, world: World, from_day: int, run: int) -> pl.DataFrame:
    begin = to_microseconds(world.spec.start)
    first = begin + from_day * DAY_US
    days = world.spec.days - from_day
    joined = np.maximum(world.people.joined, begin)
    left = outcome.members["churned_at"].dt.epoch("us")
    before = np.maximum(first - joined, 0) / DAY_US
    rows = outcome.members.select(
        "member_id", "satisfaction", value=pl.col("value") - before, left=left
    ).with_row_index("member")
    there = rows.filter(pl.Series(joined < first) & (left.is_null() | (left > first)))
    test = _in_test(outcome.interactions, first)
    found = there.join(test, on="member_id", how="left", maintain_order="left").with_columns(
        pl.col("plays", "hours", "false_starts").fill_null(0) / days
    )
    return found.select(
        pl.col("member").cast(pl.Int64),
        pl.lit(run, dtype=pl.Int64).alias("run"),
        "value",
        pl.col("left").is_null().cast(pl.Float64).alias("retained"),
        "satisfaction",
        plays_per_day="plays",
        hours_per_day="hours",
        false_starts_per_day="false_starts",
    )


def _in_test(events: pl.DataFrame, first_us: int) -> pl.DataFrame:
    plays = events.filter((pl.col("action") == "play") & (pl.col("event_at").dt.epoch("us") >= first_us))
    return plays.group_by("member_id").agg(
        plays=pl.len().cast(pl.Float64),
        hours=pl.col("duration_s").sum().cast(pl.Float64) / 3600,
        false_starts=(pl.col("progress") < FALSE_START).sum().cast(pl.Float64),
    )


MEMBERS = 2000  # Members who take part where nothing else is said


@dataclass(frozen=True)
class ServedAbOptions:
    """What is to be compared, among the first `members` of a workspace (None = 2000, or all if there are fewer)."""

    models: tuple[str, ...]  # References of registered versions: `name@alias`, `name:version` or `name`
    policies: tuple[str, ...] = ()  # Registered policies of the simulator to stand beside them
    members: int | None = None
    days: int = 28
    runs: int = 1  # How often; each with other luck of the members


@dataclass(frozen=True)
class ServedAb:
    """A finished test."""

    report: AbReport
    versions: Mapping[str, ModelVersion]  # Arm -> the registered version that served it


def served_ab(workspace: Workspace, options: ServedAbOptions, progress: ArmProgress | None = None) -> ServedAb:
    """Let registered versions, the first the one to beat, serve a simulated workspace's members after its log ends.

    Raises:
        StateError: The workspace's log is not a simulated one, or its features have changed since a model's training.
        UnknownNameError: There is no such model, version, alias or policy.
        ProblemsError: Fewer than two arms, or one twice.
        ConfigError: More members are asked for than there are.
        ServiceError: MLflow or the feature registry cannot be reached.
    """
    check_arms([*options.models, *options.policies])
    log = read_world(workspace.folder)
    policies = {name: load_policy(name) for name in options.policies}
    tracking = Tracking(workspace)
    versions = _resolved(tracking, options.models)
    members = min(MEMBERS, len(log.people)) if options.members is None else options.members
    world = going_on(log, options.days, members)
    models = _models(workspace, tracking, versions, world, log)
    arms: dict[str, Policy] = {**models, **policies}
    test = Test(log.spec.days, load_policy(log.spec.policy), tuple(range(options.runs)))
    about = {
        "workspace": workspace.name,
        "from_day": log.spec.days,
        "log_policy": log.spec.policy,
        "versions": {arm: {"version": one.reference, "digest": one.digest} for arm, one in versions.items()},
    }
    report = simulated_ab(world, arms, test, about=about, progress=progress)
    answered = {name: dict(policy.answered) for name, policy in models.items()}
    return ServedAb(replace(report, about={**report.about, "answered": answered}), versions)


def _resolved(tracking: Tracking, references: Sequence[str]) -> dict[str, ModelVersion]:
    """Return the version behind every reference; two names of one version are one arm twice."""
    found = {reference: tracking.resolve(reference) for reference in references}
    named: dict[str, list[str]] = {}
    for reference, version in found.items():
        named.setdefault(version.reference, []).append(reference)
    problems = [
        Problem("arms", f"{' and '.join(names)} are the same version, {version}.")
        for version, names in named.items()
        if len(names) > 1
    ]
    if problems:
        raise ProblemsError("the A/B test", problems)
    return found


def _models(
    workspace: Workspace, tracking: Tracking, versions: Mapping[str, ModelVersion], world: World, log: World
) -> dict[str, ModelPolicy]:
    door = FeastDoor(workspace)
    found = {}
    for reference, version in versions.items():
        bundle = read_bundle(tracking.download(version.model, version.version, version.digest), version.digest)
        features = LiveFeatures(door, world.titles, world.availability, world.members)
        _check_features(bundle, features, version.reference)
        scorer = Scorer(bundle, world.titles, world.availability, features, as_of=log.spec.end)
        elsewhere = load_policy(log.spec.policy)
        found[reference] = ModelPolicy(version.reference, scorer, bundle.resolved, world, features, elsewhere)
    return found


def _check_features(bundle: Bundle, features: LiveFeatures, name: str) -> None:
    state = bundle.encoder.state
    now = features.schema(state.service).version
    if now != state.service_version:
        raise StateError(
            f"{name} was trained with version {state.service_version} of feature service '{state.service}', the "
            f"registry has {now}; train again, or register the features it was trained with"
        )


SIMULATED_AB = PREFIX + "simulated_ab"  # Tag of a version: the run of the last simulated A/B that it was an arm of


def record_ab(tracking: Tracking, ab: ServedAb) -> str:
    """Record a simulated A/B in MLflow, tag every version that took part with the run, and return the run's id."""
    report, versions = ab.report, ab.versions
    tags = {PREFIX + "arms": ", ".join(report.names)}
    tags |= {f"{PREFIX}arm.{version.reference}": str(version.digest) for version in versions.values()}
    about = {name: value for name, value in report.about.items() if not isinstance(value, Mapping)}
    run_id = record_results(
        tracking,
        f"simulated A/B: {', '.join(report.names)}",
        tags=tags,
        params={"members": report.members, "days": report.days, "seeds": list(report.seeds), **about},
        # An alias means another version tomorrow.
        metrics=report.metrics({arm: version.reference for arm, version in versions.items()}),
        tables={"simulated_ab": report.frame()},
        texts={"simulated_ab/report.json": json.dumps(report.as_json(), indent=1)},
        draw=lambda folder: plot(report, folder / "simulated_ab.png"),
    )
    for version in versions.values():
        tracking.set_version_tag(version.model, version.version, SIMULATED_AB, run_id)
    return run_id
