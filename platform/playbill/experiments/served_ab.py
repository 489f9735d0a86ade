"""The simulated A/B of registered model versions: who of them would have served the members of a workspace better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from playbill.config import Workspace
from playbill.errors import StateError
from playbill.experiments.ab_report import AbReport, check_arms
from playbill.experiments.live_features import LiveFeatures
from playbill.experiments.model_policy import ModelPolicy
from playbill.experiments.simulated_ab import Progress, Test, simulated_ab
from playbill.experiments.simulated_log import going_on
from playbill.features.feast_door import FeastDoor
from playbill.ranking.bundle import Bundle, read_bundle
from playbill.ranking.scorer import Scorer
from playbill.simulator.policies import Policy, ScoredPolicy, load_policy
from playbill.simulator.saved import read_world
from playbill.simulator.world import World
from playbill.tracking import Tracking


@dataclass(frozen=True)
class Wanted:
    """What is to be compared.

    Args:
        models: References of registered versions: `name@alias`, `name:version` or `name`.
        policies: Registered policies of the simulator to stand beside them.
        members: How many of the workspace's members take part, the first ones.
        days: Days of the test, right after the log.
        runs: How often; each with other luck of the members.
    """

    models: tuple[str, ...]
    policies: tuple[str, ...] = ()
    members: int = 2000
    days: int = 28
    runs: int = 1


def served_ab(workspace: Workspace, wanted: Wanted, progress: Progress | None = None) -> AbReport:
    """Let registered versions serve a simulated workspace's members after its log ends.

    Args:
        workspace: Filled by `playbill simulate`.
        wanted: The arms; the first model is the one to beat.
        progress: Told before every run.

    Raises:
        StateError: The workspace's log is not a simulated one, or its features have changed since a model's training.
        UnknownNameError: There is no such model, version, alias or policy.
        ProblemsError: Fewer than two arms, or one twice.
        ServiceError: MLflow or the feature registry cannot be reached.
    """
    check_arms([*wanted.models, *wanted.policies])
    log = read_world(workspace.folder)
    world = going_on(log, wanted.days, min(wanted.members, len(log.people)))
    policies = {name: load_policy(name) for name in wanted.policies}
    models = _models(workspace, wanted.models, world, log)
    arms: dict[str, Policy] = {**models, **policies}
    test = Test(log.spec.days, load_policy(log.spec.policy), tuple(range(wanted.runs)))
    about = {"workspace": workspace.name, "versions": {name: _version(policy) for name, policy in models.items()}}
    report = simulated_ab(world, arms, test, about=about, progress=progress)
    answered = {name: dict(policy.answered) for name, policy in models.items()}
    return replace(report, about={**report.about, "answered": answered})


def _models(workspace: Workspace, references: Sequence[str], world: World, log: World) -> dict[str, ModelPolicy]:
    tracking, door = Tracking(workspace), FeastDoor(workspace)
    found = {}
    for reference in references:
        version = tracking.resolve(reference)
        bundle = read_bundle(tracking.download(version.model, version.version, version.digest), version.digest)
        features = LiveFeatures(door, world.titles, world.availability, world.members)
        _check_features(bundle, features, version.reference)
        scorer = Scorer(bundle, world.titles, world.availability, features, as_of=log.spec.end)
        elsewhere = load_policy(log.spec.policy)
        assert isinstance(elsewhere, ScoredPolicy)
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


def _version(policy: ModelPolicy) -> dict[str, str]:
    return {"version": policy.name, "digest": policy.scorer.bundle.digest}
