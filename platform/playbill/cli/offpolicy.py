"""`playbill offpolicy`: estimate what a model would have earned, from the log of the policy that was served."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from datetime import datetime

    from playbill.evaluation.off_policy import OutcomeRule, PolicyLog, TargetPolicy
    from playbill.evaluation.off_policy_model import LogOptions

PLAYED = "played"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line."""

    canvases: tuple[str, ...]
    rows: tuple[str, ...]
    reward: str
    policy: str
    temperature: float
    epsilon: float
    places: int | None
    slates: int
    since: datetime | None
    randomised_only: bool
    direct: str


@click.command("offpolicy")
@click.argument("reference")
@click.option("--canvas", "canvases", multiple=True, default=("home",), show_default=True, help="Canvas; may repeat.")
@click.option("--row", "rows", multiple=True, help="Only this row of the page, with its own rule; may repeat.")
@click.option("--reward", default=PLAYED, show_default=True, help="`played`, or a reward of the zoo.")
@click.option(
    "--estimator", "estimators", multiple=True, help="Registered estimator; may repeat (default: those that suit)."
)
@click.option("--policy", type=click.Choice(["softmax", "top"]), default="softmax", show_default=True)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Of softmax, in units of the score.")
@click.option("--epsilon", type=float, default=0.1, show_default=True, help="Share of places that `top` explores.")
@click.option("--places", type=click.IntRange(1), help="Only the first places of each list (default: all).")
@click.option("--slates", type=click.IntRange(1), default=5000, show_default=True, help="Lists at most, by member.")
@click.option("--since", type=click.DateTime(), help="Only later requests, UTC (default: what training held out).")
@click.option("--randomised-only", is_flag=True, help="Leave out requests without propensities instead of refusing.")
@click.option("--direct", type=click.Choice(["ridge", "boosted", "none"]), default="ridge", show_default=True)
@click.option("--floor", type=float, default=100.0, show_default=True, help="Effective sample size needed.")
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False), help="File for a picture.")
@click.option("--report", "report_file", type=click.Path(dir_okay=False), help="File for the whole report as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def offpolicy(
    selection: Selection,
    /,
    reference: str,
    estimators: tuple[str, ...],
    floor: float,
    plot_file: str | None,
    report_file: str | None,
    as_json: bool,
    **options: object,
) -> None:
    """Estimate what a model would have earned, from the propensities of the policy that was served.

    REFERENCE is model@champion, model:3, or model for its newest version. Only requests after the model's training
    data are weighed.

    Example: playbill -w simulated offpolicy everycanvas --canvas home --row top_picks --places 3 --reward long_term
    """
    from pathlib import Path

    from rich.console import Console

    from playbill.evaluation.off_policy import check_names, off_policy_report
    from playbill.metrics import Rules

    check_names(estimators)
    log = weighed(selection, reference, Wanted(**options))  # type: ignore[arg-type]
    report = off_policy_report(log, estimators=estimators or None, main=_main(estimators), rules=Rules(floor=floor))
    console = Console(stderr=as_json)
    for table in report.tables():
        console.print(table)
    for one in report.estimates:
        if one.refused:
            console.print(one.refused, style="yellow", highlight=False)
    if plot_file is not None:
        console.print(f"wrote {report.plot(Path(plot_file))}")
    if report_file is not None:
        Path(report_file).write_text(report.to_json(), encoding="utf-8")
        console.print(f"wrote {report_file}")
    if as_json:
        click.echo(json.dumps(report.summary()))


def weighed(selection: Selection, reference: str, wanted: Wanted) -> PolicyLog:
    """Fetch a version and weigh the log of every canvas for it, with a progress bar."""
    from playbill.cli.progress import Stages
    from playbill.evaluation import EvaluationTables
    from playbill.evaluation.bundles import open_model
    from playbill.evaluation.off_policy import combine
    from playbill.evaluation.off_policy_model import scene_of, weigh_model
    from playbill.features import FeatureDoor
    from playbill.tables import Tables
    from playbill.tracking import Tracking
    from playbill.tracking.lineage import SPLIT_DIGEST

    workspace = selection.workspace
    policy, outcome = target_policy(wanted), outcome_rule(selection, wanted.reward)
    with Stages() as stages:
        stages.stage("read tables")
        frames = EvaluationTables.read(Tables(workspace))
        stages.stage(f"fetch {reference}")
        tracking, door = Tracking(workspace), FeatureDoor(workspace)
        version = tracking.resolve(reference)
        folder = tracking.download(version.model, version.version)
        model = open_model(folder, frames, door, digest=version.digest, split_digest=version.tags.get(SPLIT_DIGEST))
        scene = scene_of(model, frames)
        logs = []
        for canvas in wanted.canvases:
            stages.stage(f"weigh {canvas} for {version.reference}")
            logs.append(
                weigh_model(model, scene, door, canvas, policy, outcome, _options(wanted), progress=stages.advance)
            )
    return combine(logs)


def target_policy(wanted: Wanted) -> TargetPolicy:
    """Return how scores become what is shown."""
    from playbill.evaluation.off_policy import SoftmaxPolicy, TopPolicy

    return SoftmaxPolicy(wanted.temperature) if wanted.policy == "softmax" else TopPolicy(wanted.epsilon)


def outcome_rule(selection: Selection, reward: str) -> OutcomeRule:
    """Return what impressions are worth: plays, or a reward of the zoo."""
    from playbill.evaluation.off_policy import played_outcome, reward_outcome
    from playbill.specs import RewardSpec
    from playbill.zoo import load_zoo

    if reward == PLAYED:
        return played_outcome()
    project = selection.project
    zoo = load_zoo(project.model_zoo, project.feature_repo)
    spec = zoo.find("Reward", reward)
    assert isinstance(spec, RewardSpec)
    return reward_outcome(spec, zoo.labels)


def _options(wanted: Wanted) -> LogOptions:
    from datetime import UTC

    from playbill.evaluation.off_policy_model import LogOptions

    return LogOptions(
        rows=wanted.rows,
        places=wanted.places,
        most=wanted.slates,
        since=None if wanted.since is None else wanted.since.replace(tzinfo=UTC),
        without_propensity="drop" if wanted.randomised_only else "refuse",
        direct=None if wanted.direct == "none" else wanted.direct,  # type: ignore[arg-type]
    )


def _main(estimators: tuple[str, ...]) -> str | None:
    return estimators[0] if estimators else None
