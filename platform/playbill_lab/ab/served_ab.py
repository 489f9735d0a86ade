"""The simulated A/B of registered model versions: who of them would have served the members of a workspace better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from playbill.config import Workspace
from playbill.errors import Problem, ProblemsError, StateError
from playbill.features.feast_door import FeastDoor
from playbill.ranking.bundle import Bundle, read_bundle
from playbill.ranking.scorer import Scorer
from playbill.tracking import ModelVersion, Tracking
from playbill_lab.ab.experiment import Progress, Test, simulated_ab
from playbill_lab.ab.report import AbReport, check_arms
from playbill_lab.bridge.live_features import LiveFeatures
from playbill_lab.bridge.model_policy import ModelPolicy
from playbill_lab.bridge.simulated_log import going_on
from playbill_lab.simulator import load_policy
from playbill_lab.simulator.policies.policies import Policy
from playbill_lab.simulator.world.checkpoint import read_world
from playbill_lab.simulator.world.world import World

MEMBERS = 2000
"""Members who take part where nothing else is said."""


@dataclass(frozen=True)
class Wanted:
    """What is to be compared.

    Args:
        models: References of registered versions: `name@alias`, `name:version` or `name`.
        policies: Registered policies of the simulator to stand beside them.
        members: How many of the workspace's members take part, the first ones; None = 2000, or all if there are fewer.
        days: Days of the test, right after the log.
        runs: How often; each with other luck of the members.
    """

    models: tuple[str, ...]
    policies: tuple[str, ...] = ()
    members: int | None = None
    days: int = 28
    runs: int = 1


@dataclass(frozen=True)
class ServedAb:
    """A finished test.

    Args:
        report: What became of the members.
        versions: Arm -> the registered version that served it.
    """

    report: AbReport
    versions: Mapping[str, ModelVersion]


def served_ab(workspace: Workspace, wanted: Wanted, progress: Progress | None = None) -> ServedAb:
    """Let registered versions serve a simulated workspace's members after its log ends.

    Args:
        workspace: Filled by `playbill simulate`.
        wanted: The arms; the first model is the one to beat.
        progress: Called after every simulated day.

    Raises:
        StateError: The workspace's log is not a simulated one, or its features have changed since a model's training.
        UnknownNameError: There is no such model, version, alias or policy.
        ProblemsError: Fewer than two arms, or one twice.
        ConfigError: More members are asked for than there are.
        ServiceError: MLflow or the feature registry cannot be reached.
    """
    check_arms([*wanted.models, *wanted.policies])
    log = read_world(workspace.folder)
    policies = {name: load_policy(name) for name in wanted.policies}
    tracking = Tracking(workspace)
    versions = _resolved(tracking, wanted.models)
    members = min(MEMBERS, len(log.people)) if wanted.members is None else wanted.members
    world = going_on(log, wanted.days, members)
    models = _models(workspace, tracking, versions, world, log)
    arms: dict[str, Policy] = {**models, **policies}
    test = Test(log.spec.days, load_policy(log.spec.policy), tuple(range(wanted.runs)))
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
