"""`playbill ledger`: one model of every canvas against the separate models it replaces, and what both cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection
from playbill.files import write_text
from playbill_lab.cli.experiment import names

if TYPE_CHECKING:
    from playbill_lab.studies.ledger.data import LedgerOptions

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("ledger")
@click.argument("model")
@click.option("--definition", type=click.IntRange(min=1), help="Version of the definition (default: the newest).")
@click.option("--parts", default="canvases", show_default=True, help="Comma-separated parts, or all.")
@click.option("--canvases", default="", help="Comma-separated canvases (default: all).")
@click.option("--seeds", default="17,18,19", show_default=True, help="Comma-separated; each trains every model.")
@click.option("--protocol", default="global_time", show_default=True, help="What is held out.")
@click.option("--members", type=click.IntRange(1), help="Learn from so many, drawn at random (default: all).")
@click.option("--requests", type=click.IntRange(1), default=6000, show_default=True, help="Of a canvas at most.")
@click.option("--dim", type=click.IntRange(1), help="Width of every network (default: the definition's).")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the data (default: the definition's).")
@click.option("--min-steps", type=click.IntRange(0), help="Steps at least, of every model (default: the definition's).")
@click.option("--minimum-members", default=20, show_default=True, help="Members that a canvas's requests need.")
@click.option("--resamples", default=1000, show_default=True, help="Draws of members behind intervals.")
@click.option("--threads", default=2, show_default=True, help="Of torch.")
@click.option("--folder", type=FOLDER, help="Keeps finished models' answers (default: in the workspace's runs).")
@click.option("--log/--no-log", default=True, show_default=True, help="Keep the result in MLflow.")
@click.option("--plots", type=FOLDER, help="Folder for the pictures.")
@click.option("--report", "report_file", type=FILE, help="File for the whole result as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def ledger(
    selection: Selection,
    /,
    model: str,
    definition: int | None,
    folder: Path | None,
    threads: int,
    plots: Path | None,
    report_file: Path | None,
    log: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train MODEL and one model for each of its canvases, at equal networks and data, and compare them.

    Parts: `canvases` is the main table; `ablations` turns off task, imputation and both crossings; `transfer` leaves
    one canvas's rows out at a time; `heads` trains each head alone; `ladder` climbs from a model that does not know its
    member; `improvement` measures one change on every canvas. What is finished is kept, so that a killed run goes on.

    Example: playbill -w simulated ledger everycanvas --seeds 17,18 --json
    """
    import torch

    from playbill.cli.console import Console
    from playbill.cli.progress import Stages
    from playbill.definitions.zoo import open_zoo
    from playbill.project.references import definition_reference
    from playbill.versions.tracking import Tracking
    from playbill_lab.studies.ledger.data import LedgerService
    from playbill_lab.studies.ledger.models import with_recipe, with_trunk
    from playbill_lab.studies.ledger.recording import record_ledger
    from playbill_lab.studies.ledger.report import ledger_json, ledger_tables, run_ledger

    model = definition_reference(model, definition, "ledger")
    options, workspace = ledger_options(given), selection.workspace
    options.check()
    torch.set_num_threads(threads)
    zoo = open_zoo(workspace.project.model_zoo, workspace.project.feature_repo)
    resolved = with_recipe(zoo.model(model), options.seeds[0], epochs=options.epochs, min_steps=options.min_steps)
    with Stages() as stages:
        stages.stage("ledger")
        service = LedgerService.of_workspace(workspace, with_trunk(resolved, options.dim), options)

        def tell(name: str) -> None:
            stages.console.print(f"  {name}", style="dim", highlight=False, markup=False, emoji=False)

        found = run_ledger(service, folder or workspace.runs / "ledger", tell)
    console, whole = Console(stderr=as_json), ledger_json(found)
    for table in ledger_tables(found):
        console.print(table)
    for canvas, reason in found.skipped.items():
        console.print(f"{canvas} is not in the table: {reason}", style="dim")
    if plots is not None:
        from playbill_lab.studies.ledger.plot import plot_ledger

        for path in plot_ledger(found, plots):
            console.print(f"wrote {path}")
    if report_file is not None:
        write_text(report_file, json.dumps(whole, indent=1), "the report")
        console.print(f"wrote {report_file}")
    run_id = record_ledger(Tracking(workspace), found) if log else None
    if run_id is not None:
        console.print(f"recorded in MLflow as run {run_id}")
    if as_json:
        click.echo(json.dumps(whole | {"run_id": run_id}))


def ledger_options(given: dict[str, Any]) -> LedgerOptions:
    """Return the options of a ledger from what was typed.

    Raises:
        click.BadParameter: A seed is no number.
    """
    from playbill_lab.studies.ledger.data import PARTS, LedgerOptions

    parts, seeds = names(given.pop("parts")), names(given.pop("seeds"))
    if wrong := [seed for seed in seeds if not seed.isdecimal()]:
        raise click.BadParameter(f"'{wrong[0]}' is no number.", param_hint="'--seeds'")
    return LedgerOptions(
        parts=PARTS if parts == ("all",) else parts,
        seeds=tuple(int(seed) for seed in seeds),
        canvases=names(given.pop("canvases")),
        **given,
    )
