"""`playbill experiment`: whole studies over a simulated service."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from playbill.cli.main import Selection, earlier_option

if TYPE_CHECKING:
    from playbill.cli.console import Console
    from playbill_lab.studies.objective.arms import StudyOptions

Command = TypeVar("Command", bound=Callable[..., Any])

FILE, FOLDER = click.Path(dir_okay=False, path_type=Path), click.Path(file_okay=False, path_type=Path)


def output(command: Command) -> Command:
    """Add the options of what becomes of a result."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line."),
        click.option("--log/--no-log", default=True, show_default=True, help="Keep the result in MLflow."),
        click.option("--report", "report_file", type=FILE, help="File for the whole result as JSON."),
        click.option("--plot", "plot_file", type=FILE, help="File for a picture, .svg or .png."),
    ):
        command = option(command)
    return command


def publish(
    console: Console,
    whole: dict[str, Any],
    draw: Callable[[Path], list[Path] | None],
    record: Callable[[], str],
    given: Mapping[str, Any],
) -> None:
    """Draw, write, record and print a result, as the options of `output` that are in `given` ask."""
    from playbill_lab.ab.results import write_report

    if (place := given["plot_file"]) is not None:
        for path in draw(place) or [place]:
            console.print(f"wrote {path}")
    if given["report_file"] is not None:
        write_report(given["report_file"], whole)
        console.print(f"wrote {given['report_file']}")
    run_id = record() if given["log"] else None
    if run_id is not None:
        console.print(f"recorded in MLflow as run {run_id}")
    if given["as_json"]:
        click.echo(json.dumps(whole | {"run_id": run_id}))


@click.group("experiment")
def experiment() -> None:
    """Run whole studies over a simulated service.

    `ab` lets registered models serve the members of a simulated workspace; `objective-before-capacity` asks what a
    reward and a larger network do to members.

    Example: playbill -w simulated experiment ab everycanvas@champion everycanvas:2 --days 14
    """


@experiment.command("ab")
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--other-policies", default="", help="Comma-separated simulated policies as further arms, such as popular."
)
@earlier_option("--beside", "--other-policies")
@click.option("--members", type=click.IntRange(min=1), help="Members who take part (default: 2000, or all).")
@click.option("--days", type=click.IntRange(min=1), default=28, show_default=True, help="Days after the log's end.")
@click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs, each with other luck.")
@output
@click.pass_obj
def ab(
    selection: Selection,
    /,
    models: tuple[str, ...],
    other_policies: str,
    members: int | None,
    days: int,
    runs: int,
    **outputs: Any,
) -> None:
    """Let registered MODELS serve the members of a simulated workspace, and compare what becomes of them.

    A model is name@alias, name:version, or name for its newest version. The first one is the one to beat. Every arm
    gets the same members, in the state in which the log left them, and the same luck.

    Example: playbill -w simulated experiment ab everycanvas@champion everycanvas:2 --members 2000 --days 28 --json
    """
    from playbill.cli.console import Console
    from playbill.cli.progress import Stages
    from playbill.versions.tracking import Tracking
    from playbill_lab.ab.experiment import ServedAbOptions, record_ab, served_ab
    from playbill_lab.ab.report import plot

    with Stages() as stages:
        stages.stage("simulated A/B test")
        options = ServedAbOptions(models, names(other_policies), members, days, runs)
        found = served_ab(selection.workspace, options, lambda arm, done, total: stages.advance(done, total, arm))
    report, console = found.report, Console(stderr=outputs["as_json"])
    console.print(report.table())
    record = partial(record_ab, Tracking(selection.workspace), found)
    publish(console, report.as_json(), partial(plot, report), record, outputs)


@experiment.command("objective-before-capacity")
@click.option("--objectives", default="", help="Comma-separated rewards, the least aligned first.")
@click.option("--capacities", default="", help="Comma-separated sizes: small, medium, large.")
@click.option("--members", type=click.IntRange(min=1), help="Members of the log.")
@click.option("--titles", type=click.IntRange(min=1), help="Titles of the service.")
@click.option("--log-days", type=click.IntRange(min=1), help="Days of the log.")
@click.option("--test-members", type=click.IntRange(min=1), help="Members of the test.")
@click.option("--test-days", type=click.IntRange(min=1), help="Days of the test.")
@click.option("--seeds", default="", help="Comma-separated numbers: a world, log, training and test each.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the log.")
@click.option("--min-steps", type=click.IntRange(min=1), help="Training steps at least.")
@click.option("--folder", type=FOLDER, help="Keeps what is done, to go on later.")
@output
@click.pass_obj
def objective_before_capacity(selection: Selection, /, folder: Path | None, **given: Any) -> None:
    """Train every size of network for every reward on one simulated log, and let all of them serve.

    Offline fit and what becomes of members stand side by side. The rewards are those of the project's zoo, so your own
    can be among them. Sizes that are not given are those of docs/results/objective_before_capacity.md, a quarter of an
    hour on one core.

    Example: playbill experiment objective-before-capacity --members 600 --test-members 200 --test-days 5 --seeds 1
    """
    import tempfile

    from playbill.cli.console import Console
    from playbill.cli.progress import Stages
    from playbill.definitions.zoo import open_zoo
    from playbill.versions.tracking import Tracking
    from playbill_lab.studies.objective.report import plot_study, record_study, study_json
    from playbill_lab.studies.objective.study import run_study

    outputs = {name: given.pop(name) for name in ("plot_file", "report_file", "log", "as_json")}
    project, options, console = selection.folder, study_options(given), Console(stderr=outputs["as_json"])
    zoo = open_zoo(project.model_zoo, project.feature_repo)
    total = len(options.seeds) * len(options.arms)
    with Stages() as stages, tempfile.TemporaryDirectory() as scratch:
        stages.stage("objective before capacity")
        lines: list[str] = []

        def tell(text: str) -> None:
            lines.append(text)
            stages.console.print(f"  {text}", style="dim", highlight=False, markup=False, emoji=False)
            stages.advance(len(lines), total)

        study = run_study(zoo, options, folder or Path(scratch), tell)
    console.print(study.online.table())
    record = partial(record_study, Tracking(selection.workspace), study)
    publish(console, study_json(study), partial(plot_study, study), record, outputs)


def names(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def seed_numbers(text: str) -> tuple[int, ...]:
    """Return the seeds of a comma-separated list.

    Raises:
        click.BadParameter: One is no number.
    """
    seeds = names(text)
    if wrong := [seed for seed in seeds if not seed.isdecimal()]:
        raise click.BadParameter(f"'{wrong[0]}' is no number.", param_hint="'--seeds'")
    return tuple(int(seed) for seed in seeds)


def study_options(sizes: Mapping[str, Any]) -> StudyOptions:
    """Return the options of a study; what is not given stays as it is there."""
    from playbill_lab.studies.objective.arms import StudyOptions, StudyRecipe

    given = {name: value for name, value in sizes.items() if value}
    given |= {name: names(given[name]) for name in ("objectives", "capacities") if name in given}
    if "seeds" in given:
        given["seeds"] = seed_numbers(given["seeds"])
    recipe = StudyRecipe(**{name: given.pop(name) for name in ("epochs", "min_steps") if name in given})
    return StudyOptions(**given, recipe=recipe)
