"""`playbill experiment`: whole studies over a simulated workspace."""

from __future__ import annotations

import json
from pathlib import Path

import click

from playbill.cli.main import Selection


@click.group("experiment")
def experiment() -> None:
    """Run whole studies, such as a simulated A/B test.

    Example: playbill -w simulated experiment ab everycanvas@champion everycanvas:2 --days 14
    """


@experiment.command("ab")
@click.argument("models", nargs=-1, required=True)
@click.option("--beside", default="", help="Comma-separated simulated policies as further arms, such as popular.")
@click.option("--members", type=click.IntRange(min=1), default=2000, show_default=True, help="Members who take part.")
@click.option("--days", type=click.IntRange(min=1), default=28, show_default=True, help="Days after the log's end.")
@click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs, each with other luck.")
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Picture, .svg or .png.")
@click.option("--report", "report_file", type=click.Path(dir_okay=False, path_type=Path), help="Report as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def ab(
    selection: Selection,
    models: tuple[str, ...],
    beside: str,
    members: int,
    days: int,
    runs: int,
    plot_file: Path | None,
    report_file: Path | None,
    as_json: bool,
) -> None:
    """Let registered MODELS serve the members of a simulated workspace, and compare what becomes of them.

    A model is name@alias, name:version, or name for its newest version. The first one is the one to beat. Every arm
    gets the same members, in the state in which the log left them, and the same luck.

    Example: playbill -w simulated experiment ab everycanvas@champion everycanvas:2 --members 2000 --days 28 --json
    """
    from rich.console import Console

    from playbill.cli.progress import Stages
    from playbill.experiments.ab_report import plot
    from playbill.experiments.served_ab import Wanted, served_ab

    policies = tuple(name.strip() for name in beside.split(",") if name.strip())
    with Stages() as stages:
        stages.stage("simulated A/B test")
        wanted = Wanted(models, policies, members, days, runs)
        report = served_ab(selection.workspace, wanted, lambda arm, done, total: stages.advance(done, total, arm))
    console = Console(stderr=as_json)
    console.print(report.table())
    if plot_file is not None:
        plot(report, plot_file)
        console.print(f"wrote {plot_file}")
    if report_file is not None:
        report.save(report_file)
        console.print(f"wrote {report_file}")
    if as_json:
        click.echo(json.dumps(report.as_json()))
