"""`playbill freshness`: what a model loses while it waits, and what keeping it fresh costs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection
from playbill_lab.cli.experiment import FILE, FOLDER, names, publish

if TYPE_CHECKING:
    from playbill_lab.studies.freshness.study import FreshnessOptions


@click.command("freshness")
@click.argument("model")
@click.option("--definition", type=click.IntRange(min=1), help="Version of the definition (default: the newest).")
@click.option("--parts", default="cadences,retrain", show_default=True, help="Comma-separated parts, or all.")
@click.option("--canvas", default="home", show_default=True, help="Whose requests are answered.")
@click.option("--days", type=click.IntRange(2), default=21, show_default=True, help="The log's last days, replayed.")
@click.option("--cadences", default="never,7d,1d", show_default=True, help="Comma-separated: never, or durations.")
@click.option("--replays", default="0,0.2,0.5", show_default=True, help="Comma-separated shares, for forgetting.")
@click.option("--updates", type=click.IntRange(1), default=30, show_default=True, help="Daily ones, for forgetting.")
@click.option("--seed", type=click.IntRange(0), default=17, show_default=True, help="Of weights, order and requests.")
@click.option("--requests", type=click.IntRange(1), default=6000, show_default=True, help="At most, drawn at random.")
@click.option("--dim", type=click.IntRange(1), help="Width of the network (default: the definition's).")
@click.option("--epochs", type=click.IntRange(1), help="Passes of the first training (default: the definition's).")
@click.option("--min-steps", type=click.IntRange(0), help="Steps of it at least (default: the definition's).")
@click.option("--resamples", default=1000, show_default=True, help="Draws of members behind intervals.")
@click.option("--threads", default=2, show_default=True, help="Of torch.")
@click.option("--folder", type=FOLDER, help="Keeps finished versions (default: in the workspace's runs).")
@click.option("--log/--no-log", default=True, show_default=True, help="Keep the result in MLflow.")
@click.option("--plots", "plot_file", type=FOLDER, help="Folder for the pictures.")
@click.option("--report", "report_file", type=FILE, help="File for the whole result as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def freshness(
    selection: Selection, /, model: str, definition: int | None, folder: Path | None, threads: int, **given: Any
) -> None:
    """Train MODEL up to a moment of the log, and replay the days after it: score a day, then learn from it.

    Parts: `cadences` updates never, weekly, daily or as often as is wanted, and draws the metric against the age of the
    weights; `retrain` puts training anew beside daily updates; `forgetting` looks at the long tail after many updates;
    `launches` at coming titles against what members then played; `surge` at a title that is suddenly played. Finished
    versions are kept, so that a killed study goes on.

    Example: playbill -w simulated freshness everycanvas --days 14 --cadences never,7d,1d --json
    """
    import torch

    from playbill.cli.console import Console
    from playbill.cli.progress import Stages
    from playbill.definitions.zoo import open_zoo
    from playbill.project.references import definition_reference
    from playbill.versions.tracking import Tracking
    from playbill_lab.studies.freshness.report import (
        freshness_json,
        freshness_tables,
        plot_freshness,
        record_freshness,
    )
    from playbill_lab.studies.freshness.study import FreshnessStudy
    from playbill_lab.studies.ledger.models import with_recipe, with_trunk

    model = definition_reference(model, definition, "freshness")
    outputs = {name: given.pop(name) for name in ("plot_file", "report_file", "log", "as_json")}
    options, workspace = freshness_options(given), selection.workspace
    options.check()
    torch.set_num_threads(threads)
    resolved = open_zoo(workspace.project.model_zoo, workspace.project.feature_repo).model(model)
    resolved = with_recipe(resolved, options.seed, epochs=options.epochs, min_steps=options.min_steps)
    with Stages() as stages:
        stages.stage("freshness")

        def tell(name: str) -> None:
            stages.console.print(f"  {name}", style="dim", highlight=False, markup=False, emoji=False)

        place = folder or workspace.runs / "freshness"
        study = FreshnessStudy.of_workspace(workspace, with_trunk(resolved, options.dim), options, place, tell)
        found = study.run()
    console = Console(stderr=outputs["as_json"])
    for table in freshness_tables(found):
        console.print(table)
    for reason in found.skipped:
        console.print(f"left out: {reason}", style="dim")
    record = partial(record_freshness, Tracking(workspace), found)
    publish(console, freshness_json(found), partial(plot_freshness, found), record, outputs)


def freshness_options(given: dict[str, Any]) -> FreshnessOptions:
    """Return the options of a study from what was typed.

    Raises:
        click.BadParameter: A share of replay is no number.
    """
    from playbill_lab.studies.freshness.study import PARTS, FreshnessOptions

    parts, cadences = names(given.pop("parts")), names(given.pop("cadences"))
    shares = names(given.pop("replays"))
    try:
        replays = tuple(float(share) for share in shares)
    except ValueError:
        raise click.BadParameter(f"{', '.join(shares)}: each must be a number.", param_hint="'--replays'") from None
    return FreshnessOptions(parts=PARTS if parts == ("all",) else parts, cadences=cadences, replays=replays, **given)
