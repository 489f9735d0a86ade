"""`playbill train`: from the canonical tables to a registered version."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection
from playbill.cli.protocols import protocol_list, protocol_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from playbill.datasets.examples.sampling import Stratum
    from playbill.datasets.export.manifest import StratumRecord
    from playbill.evaluation.report import EvaluationReport
    from playbill.training.run import TrainOutcome


_OPTIONS = (
    click.option("--definition", type=click.IntRange(min=1), help="Version of the definition (default: the newest)."),
    protocol_option("the definition's, which may leave it to the log"),
    click.option("--epochs", type=click.IntRange(min=1), help="Passes over the data (default: the definition's)."),
    click.option(
        "--seed", type=click.IntRange(min=0), help="Of weights, order and dropout (default: the definition's)."
    ),
)
_WORKERS = (
    click.option("--workers", type=click.IntRange(min=0), help="0 = this process; N = Ray workers."),
    click.option("--sharded/--no-sharded", default=None, help="Share the network out among workers, FSDP for DDP."),
    click.option("--gpu/--no-gpu", default=None, help="Use a GPU (default: when there is one)."),
)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a run may override of its definition."""
    return _with(command, (*_OPTIONS, *_WORKERS))


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add where a run computes."""
    return _with(command, _WORKERS)


def _with(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


@click.command("train", epilog=protocol_list(auto=True))
@click.argument("model")
@training_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def train(
    selection: Selection,
    /,
    model: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Train MODEL, measure it on every canvas beside the baselines, and register it in MLflow.

    A run that was killed is resumed by the same command.

    Example: playbill -w ml_100k train everycanvas
    """
    from playbill.cli.progress import Stages

    signal.signal(signal.SIGTERM, end_as_interrupted)
    project = selection.project
    with Stages() as stages:
        outcome = project.train(model, **options, progress=stages)
    show_outcome(outcome)
    if as_json:
        click.echo(json.dumps(outcome_json(outcome)))


def end_as_interrupted(number: int, _frame: object) -> None:
    """End as an interrupted command does, so that the run is closed in MLflow at once."""
    sys.exit(128 + number)


def show_outcome(outcome: TrainOutcome) -> None:
    """Print every canvas's tables, and what to do next."""
    from playbill.cli.console import Console
    from playbill.evaluation.rendering.grids import summary_table, tables

    console = Console()
    for note in outcome.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    if outcome.strata:
        console.print(strata_table(outcome.strata))
    for report in each_note_once(outcome):
        for table in tables(report):
            console.print(table)
    for canvas, reason in outcome.evaluation.skipped.items():
        console.print(f"{canvas} was not measured: {reason}", style="dim")
    console.print(summary_table(list(outcome.evaluation.reports.values())))
    for line in outcome.features.lines():
        console.print(line, markup=False, highlight=False)
    if outcome.features.absent:
        names = ", ".join(outcome.features.absent)
        console.print(f"features WITHOUT A SINGLE VALUE in training: {names}", markup=False, style="bold red")
    console.print(
        f"{outcome.model} version {outcome.version}: {outcome.epochs} epochs of "
        f"{outcome.train_seconds / outcome.epochs:.1f} s, "
        f"{outcome.tokens_per_second:,.0f} tokens/s, {outcome.seconds:.0f} s in all"
    )
    console.print(f"Next: playbill promote {outcome.model}:{outcome.version}, or set the alias champion in MLflow")


def each_note_once(outcome: TrainOutcome) -> list[EvaluationReport]:
    """Return the canvases' reports without the notes of the run, and each other note under the first that has it."""
    shown, reports = set(outcome.notes), []
    for report in outcome.evaluation.reports.values():
        reports.append(replace(report, notes=tuple(note for note in report.notes if note not in shown)))
        shown.update(report.notes)
    return reports


def strata_table(strata: Sequence[Stratum | StratumRecord]) -> Table:
    """Return what examples were drawn by: the smallest groups first, as they are why."""
    from rich.table import Table

    table = Table("stratum", title="Examples by stratum: the log, an epoch, and the weight that restores the log")
    for name in ("rows", "share", "drawn", "share of an epoch", "weight"):
        table.add_column(name, justify="right")
    for one in strata:
        shares = (f"{one.share:.2%}", f"{one.drawn:,}", f"{one.sampled_share:.2%}", f"{one.weight:.4f}")
        table.add_row(one.name, f"{one.rows:,}", *shares)
    return table


def outcome_json(outcome: TrainOutcome) -> dict[str, Any]:
    """Return what a script would read."""
    return {
        "model": outcome.model,
        "version": outcome.version,
        "run_id": outcome.run_id,
        "digest": outcome.digest,
        "protocol": outcome.protocol,
        "protocol_reason": outcome.protocol_reason,
        "notes": list(outcome.notes),
        "strata": [asdict(stratum) for stratum in outcome.strata],
        "epochs": outcome.epochs,
        "resumed_from": outcome.resumed_from,
        "train_seconds": round(outcome.train_seconds, 2),
        "total_seconds": round(outcome.seconds, 2),
        "tokens_per_second": round(outcome.tokens_per_second),
        "final_loss": outcome.final_loss,
        "features": outcome.features.table().to_dicts(),
        "canvases": {
            canvas: {name: interval.value for name, interval in report.result.metrics.items()}
            for canvas, report in outcome.evaluation.reports.items()
        },
        "beside": {canvas: standing(report) for canvas, report in outcome.evaluation.reports.items()},
    }


def standing(report: EvaluationReport) -> dict[str, Any]:
    """Return what stands beside the model on a canvas: baselines and the ceiling on the main metric."""
    metric = report.main_metric
    return {
        "baselines": {row.name: row.metrics[metric].value for row in report.baselines},
        "not_ahead_of": list(report.not_ahead_of),
        "ceiling": None if report.ceiling is None else report.ceiling.metrics[metric].value,
        "share_of_ceiling": report.share_of_ceiling,
    }
