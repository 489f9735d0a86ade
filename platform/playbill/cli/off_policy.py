"""`playbill offpolicy`: estimate what a model would have earned, from the log of the policy that was served.

Where `playbill offpolicy` leaves what it found: a run in MLflow, and files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from playbill.cli.main import Selection
from playbill.evaluation.off_policy.evaluate import OffPolicyReport
from playbill.evaluation.off_policy.rendering import policy_figure, policy_frames, policy_page
from playbill.evaluation.rendering.html import write_html
from playbill.files import write_text
from playbill.versions.tracking import ModelVersion, Tracking
from playbill.versions.tracking.registry import PREFIX, SPLIT_DIGEST

if TYPE_CHECKING:
    from datetime import datetime

    from playbill.evaluation.off_policy.evaluate import ImportanceLog, LogOptions, OutcomeRule, TargetPolicy


PLAYED = "played"
COVERAGE_HELP = "Share of what the model would show that the log must have tried."


@dataclass(frozen=True, slots=True)
class LogSelection:
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
@click.option("--canvas", "canvases", multiple=True, help="May repeat (default: home, or the model's first one).")
@click.option("--row", "rows", multiple=True, help="Only this row of the page, with its own rule; may repeat.")
@click.option("--reward", default=PLAYED, show_default=True, help="`played`, or a reward of the zoo.")
@click.option(
    "--estimator", "estimators", multiple=True, help="Registered estimator; may repeat (default: those that suit)."
)
@click.option(
    "--policy",
    type=click.Choice(["softmax", "top"]),
    default="softmax",
    show_default=True,
    help="How scores become what is shown.",
)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Of softmax, in units of the score.")
@click.option("--epsilon", type=float, default=0.1, show_default=True, help="Share of places that `top` explores.")
@click.option("--places", type=click.IntRange(1), help="Only the first places of each list (default: all).")
@click.option("--slates", type=click.IntRange(1), default=5000, show_default=True, help="Lists at most, by member.")
@click.option("--since", type=click.DateTime(), help="Only later requests, UTC (default: what training held out).")
@click.option("--randomised-only", is_flag=True, help="Leave out requests without propensities instead of refusing.")
@click.option(
    "--direct",
    type=click.Choice(["ridge", "boosted", "none"]),
    default="ridge",
    show_default=True,
    help="Model of a title's reward that the doubly robust estimators correct.",
)
@click.option("--floor", type=float, default=100.0, show_default=True, help="Effective sample size needed.")
@click.option("--coverage", type=click.FloatRange(0, 1), default=0.8, show_default=True, help=COVERAGE_HELP)
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="File for a picture.")
@click.option("--report", "report_file", type=click.Path(dir_okay=False, path_type=Path), help="Whole report as JSON.")
@click.option("--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Page with all of it.")
@click.option("--log/--no-log", default=True, show_default=True, help="Record the estimates in MLflow.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def offpolicy(
    selection: Selection,
    /,
    reference: str,
    estimators: tuple[str, ...],
    floor: float,
    coverage: float,
    plot_file: Path | None,
    report_file: Path | None,
    html_file: Path | None,
    log: bool,
    as_json: bool,
    **options: object,
) -> None:
    """Estimate what a model would have earned, from the propensities of the policy that was served.

    REFERENCE is model@champion, model:3, or model for its newest version. Only requests after the model's training
    data are weighed. What too little of the log supports is refused, and the message says what is missing.

    Estimators of what one title earns: ips, clipped_ips, snips, doubly_robust, self_normalised_dr, switch_dr, direct.
    Of what a whole list earns: slate, slate_snips, slate_dr, slate_whole, slate_independent.

    Example: playbill -w simulated offpolicy everycanvas --canvas home --row top_picks --places 3
    """
    from playbill.cli.console import Console
    from playbill.cli.off_policy import other_reward, record, write_files
    from playbill.evaluation.off_policy.estimate import Rules
    from playbill.evaluation.off_policy.evaluate import check_names, off_policy_report
    from playbill.evaluation.off_policy.rendering import policy_grids, refusals
    from playbill.evaluation.rendering.grids import grid_table

    check_names(estimators)
    found = weighed(selection, reference, LogSelection(**options))  # type: ignore[arg-type]
    rules = Rules(floor=floor, coverage=coverage)
    report = off_policy_report(found.log, estimators=estimators or None, main=_main(estimators), rules=rules)
    console = Console(stderr=as_json)
    for grid in policy_grids(report):
        console.print(grid_table(grid))
    for line in refusals(report):
        console.print(line, style="yellow", highlight=False)
    if note := other_reward(found.version, report):
        console.print(note, style="yellow", highlight=False)
    run_id = record(found.tracking, found.version, report) if log else None
    if run_id is not None:
        console.print(f"recorded in MLflow as run {run_id}")
    for file in write_files(report, plot=plot_file, whole=report_file, html=html_file):
        console.print(f"wrote {file}")
    if as_json:
        click.echo(json.dumps(report.summary() | {"run_id": run_id}))


@dataclass(frozen=True, slots=True)
class Weighed:
    """A version's log with both policies' probabilities, and where its estimates are recorded."""

    log: ImportanceLog
    version: ModelVersion
    tracking: Tracking


def weighed(selection: Selection, reference: str, options: LogSelection) -> Weighed:
    """Fetch a version and weigh the log of every canvas for it, with a progress bar."""
    from playbill.cli.progress import Stages
    from playbill.evaluation import EvaluationTables
    from playbill.evaluation.canvases.loaded_version import open_model
    from playbill.evaluation.off_policy.evaluate import combine, log_context, weigh_model
    from playbill.features import FeatureDoor
    from playbill.tables import Tables
    from playbill.versions.tracking import Tracking
    from playbill.versions.tracking.registry import SPLIT_DIGEST

    workspace = selection.workspace
    policy, outcome = target_policy(options), outcome_rule(selection, options.reward)
    with Stages() as stages:
        stages.stage("read tables")
        frames = EvaluationTables.read(Tables(workspace))
        stages.stage(f"fetch {reference}")
        tracking, door = Tracking(workspace), FeatureDoor(workspace)
        version = tracking.resolve(reference)
        folder = tracking.download(version.model, version.version)
        model = open_model(folder, frames, door, digest=version.digest, split_digest=version.tags.get(SPLIT_DIGEST))
        scene = log_context(model, frames)
        logs = []
        for canvas in options.canvases or (model.resolved.main_canvas,):
            stages.stage(f"weigh {canvas} for {version.reference}")
            logs.append(
                weigh_model(model, scene, door, canvas, policy, outcome, _options(options), progress=stages.advance)
            )
    return Weighed(combine(logs), version, tracking)


def target_policy(options: LogSelection) -> TargetPolicy:
    """Return how scores become what is shown."""
    from playbill.evaluation.off_policy.evaluate import SoftmaxPolicy, TopPolicy

    return SoftmaxPolicy(options.temperature) if options.policy == "softmax" else TopPolicy(options.epsilon)


def outcome_rule(selection: Selection, reward: str) -> OutcomeRule:
    """Return what impressions are worth: plays, or a reward of the zoo."""
    from playbill.definitions.zoo import open_zoo
    from playbill.evaluation.off_policy.evaluate import played_outcome, reward_outcome

    if reward == PLAYED:
        return played_outcome()
    project = selection.folder
    return reward_outcome(*open_zoo(project.model_zoo, project.feature_repo).reward(reward))


def _options(options: LogSelection) -> LogOptions:
    from datetime import UTC

    from playbill.evaluation.off_policy.evaluate import LogOptions

    return LogOptions(
        rows=options.rows,
        places=options.places,
        most=options.slates,
        since=None if options.since is None else options.since.replace(tzinfo=UTC),
        without_propensity="drop" if options.randomised_only else "refuse",
        direct=None if options.direct == "none" else options.direct,  # type: ignore[arg-type]
    )


def _main(estimators: tuple[str, ...]) -> str | None:
    return estimators[0] if estimators else None


OFF_POLICY = "off_policy"
"""The protocol that estimates are recorded under."""


def record(tracking: Tracking, version: ModelVersion, report: OffPolicyReport) -> str:
    """Keep estimates in MLflow beside the version's other evaluations; gates read them there.

    Numbers, tables, picture, page and the whole report; reward version, estimator and policy as tags.

    Returns:
        The run's id.
    """
    refused = [one.estimator for one in report.estimates if one.refused]
    about = {
        "reward": report.version,
        "estimator": report.main,
        "estimators": ",".join(one.estimator for one in report.estimates),
        "refused": ",".join(refused) or None,
        "policy": report.policy,
        "canvases": ",".join(report.canvases),
    }
    tags = {PREFIX + name: value for name, value in about.items()}
    split = version.tags.get(SPLIT_DIGEST, "")
    with tracking.log_evaluation(version, OFF_POLICY, split, report.gate_metrics(), tags) as run:
        for name, frame in policy_frames(report).items():
            run.log_table(frame, name)
        run.log_figure(policy_figure(report), "off_policy")
        run.log_text(policy_page(report), "off_policy/report.html")
        run.log_text(report.to_json(), "off_policy/report.json")
        return run.run_id


def other_reward(version: ModelVersion, report: OffPolicyReport) -> str | None:
    """Say when a model learned by another version of the reward it is judged by."""
    learned = version.tags.get(f"{PREFIX}rewards", "").split(",")
    same = [one for one in learned if one.partition(":")[0] == report.outcome]
    if not same or report.version in same:
        return None
    return f"{version.reference} learned by the reward {same[0]}, and is judged here by {report.version}."


def write_files(report: OffPolicyReport, *, plot: Path | None, whole: Path | None, html: Path | None) -> list[Path]:
    """Write what was asked for, and return the files."""
    if plot is not None:
        policy_figure(report).savefig(plot, dpi=110)
    if whole is not None:
        write_text(whole, report.to_json(), "the report")
    if html is not None:
        write_html(html, policy_page(report))
    return [file for file in (plot, whole, html) if file is not None]
