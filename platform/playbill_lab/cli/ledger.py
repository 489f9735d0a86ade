"""`playbill ledger`: one model of every canvas against the separate models it replaces, and what both cost."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection
from playbill.cli.protocols import protocol_list, protocol_option
from playbill_lab.cli.experiment import FILE, FOLDER, names, publish, seed_numbers

if TYPE_CHECKING:
    from playbill_lab.studies.ledger.data import LedgerOptions


@click.command("ledger", epilog=protocol_list(auto=True))
@click.argument("model")
@click.option("--definition", type=click.IntRange(min=1), help="Version of the definition (default: the newest).")
@click.option("--parts", default="canvases", show_default=True, help="Comma-separated parts, or all.")
@click.option("--canvases", default="", help="Comma-separated canvases (default: all).")
@click.option("--seeds", default="17,18,19", show_default=True, help="Comma-separated; each trains every model.")
@protocol_option("global_time", default="global_time")
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
@click.option("--plots", "plot_file", type=FOLDER, help="Folder for the pictures.")
@click.option("--report", "report_file", type=FILE, help="File for the whole result as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def ledger(
    selection: Selection, /, model: str, definition: int | None, folder: Path | None, threads: int, **given: Any
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
    from playbill_lab.studies.ledger.plot import plot_ledger, record_ledger
    from playbill_lab.studies.ledger.report import ledger_json, ledger_tables, run_ledger

    model = definition_reference(model, definition, "ledger")
    outputs = {name: given.pop(name) for name in ("plot_file", "report_file", "log", "as_json")}
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
    console = Console(stderr=outputs["as_json"])
    for table in ledger_tables(found):
        console.print(table)
    for canvas, reason in found.skipped.items():
        console.print(f"{canvas} is not in the table: {reason}", style="dim")
    record = partial(record_ledger, Tracking(workspace), found)
    publish(console, ledger_json(found), partial(plot_ledger, found), record, outputs)


def ledger_options(given: dict[str, Any]) -> LedgerOptions:
    """Return the options of a ledger from what was typed."""
    from playbill_lab.studies.ledger.data import PARTS, LedgerOptions

    parts = names(given.pop("parts"))
    return LedgerOptions(
        parts=PARTS if parts == ("all",) else parts,
        seeds=seed_numbers(given.pop("seeds")),
        canvases=names(given.pop("canvases")),
        **given,
    )
