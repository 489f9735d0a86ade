"""`playbill evaluate`: measure a registered version under a named protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.evaluation import EvaluationReport
    from playbill.tracking import ModelVersion


@click.command("evaluate")
@click.argument("reference")
@click.option("--protocol", help="leave_one_out or global_time (default: the one it was trained under).")
@click.option("--canvas", default="home", show_default=True, help="Canvas to ask.")
@click.option("--baselines", help="Comma-separated baselines to stand beside it (default: the model's).")
@click.option(
    "--targets",
    type=click.Choice(["last", "successive", "period"]),
    default="last",
    show_default=True,
    help="How held-out events become requests.",
)
@click.option("--plots", "plot_folder", type=click.Path(file_okay=False), help="Folder for pictures.")
@click.option("--report", "report_file", type=click.Path(dir_okay=False), help="File for the whole report as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def evaluate(
    selection: Selection,
    reference: str,
    protocol: str | None,
    canvas: str,
    baselines: str | None,
    targets: str,
    plot_folder: str | None,
    report_file: str | None,
    as_json: bool,
) -> None:
    """Measure a model version under a named protocol.

    REFERENCE is model@champion, model:3, or model for its newest version. The whole catalogue is ranked.

    Example: playbill -w ml_100k evaluate everycanvas@champion --protocol leave_one_out
    """
    from pathlib import Path

    from rich.console import Console

    from playbill.evaluation import plots, tables

    names = None if baselines is None else tuple(name.strip() for name in baselines.split(",") if name.strip())
    version, report = measure(selection, reference, protocol, canvas, names, targets)
    console = Console(stderr=as_json)
    for table in tables(report):
        console.print(table)
    if plot_folder is not None:
        for file in plots(report, Path(plot_folder)):
            console.print(f"wrote {file}")
    if report_file is not None:
        Path(report_file).write_text(report.to_json(), encoding="utf-8")
        console.print(f"wrote {report_file}")
    if as_json:
        click.echo(json.dumps(summary(version, report)))


def measure(
    selection: Selection,
    reference: str,
    protocol: str | None,
    canvas: str,
    baselines: tuple[str, ...] | None,
    targets: Any,
) -> tuple[ModelVersion, EvaluationReport]:
    """Fetch a version and measure it, with a progress bar."""
    from playbill.cli.progress import Stages
    from playbill.evaluation import CanvasScorer, EvaluationTables, evaluate_canvas, open_model
    from playbill.features import FeatureDoor
    from playbill.tables import Tables
    from playbill.tracking import Tracking
    from playbill.tracking.lineage import SPLIT_DIGEST

    workspace = selection.workspace
    with Stages() as stages:
        stages.stage("read tables")
        frames = EvaluationTables.read(Tables(workspace))
        stages.stage(f"fetch {reference}")
        tracking, door = Tracking(workspace), FeatureDoor(workspace)
        version = tracking.resolve(reference)
        folder = tracking.download(version.model, version.version)
        known = version.tags.get(SPLIT_DIGEST)
        model = open_model(folder, frames, door, digest=version.digest, split_digest=known)
        split = model.split(protocol, frames)
        stages.stage(f"evaluate {version.reference} on {canvas}")
        report = evaluate_canvas(
            CanvasScorer(model.scorer, model.resolved, canvas, door),
            split,
            frames,
            model.resolved,
            canvas,
            baselines=baselines,
            targets=targets,
            progress=stages.advance,
        )
    return version, report


def summary(version: ModelVersion, report: EvaluationReport) -> dict[str, Any]:
    """Return what a script reads: metrics at the top level, baselines by name, slices worst first."""
    return {
        "model": version.model,
        "version": version.version,
        "protocol": report.protocol,
        "canvas": report.canvas,
        "fold": report.fold,
        "split_digest": report.split_digest,
        "n": report.n,
        "members": report.members,
        "left_out": report.left_out,
        **{name: interval.value for name, interval in report.result.metrics.items()},
        **report.result.coverage,
        "main_metric": report.main_metric,
        "intervals": {name: [one.low, one.high] for name, one in report.result.metrics.items()},
        "baselines": _baselines(report),
        "slices": _slices(report),
    }


def _baselines(report: EvaluationReport) -> dict[str, Any]:
    differences = {row.baseline: row.metrics[report.main_metric] for row in report.differences}
    return {
        row.name: {
            **{name: interval.value for name, interval in row.metrics.items()},
            **row.coverage,
            "difference": differences[row.name].value,
            "interval": [differences[row.name].low, differences[row.name].high],
            "includes_zero": differences[row.name].includes_zero,
        }
        for row in report.baselines
    }


def _slices(report: EvaluationReport) -> list[dict[str, Any]]:
    metric = report.main_metric
    return [
        {
            "slice": row.slice,
            "group": row.group,
            "n": row.requests,
            "members": row.members,
            "small": row.small,
            metric: row.metrics[metric].value,
            "interval": [row.metrics[metric].low, row.metrics[metric].high],
        }
        for row in report.slices
    ]
