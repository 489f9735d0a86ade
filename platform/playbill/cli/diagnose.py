"""`playbill diagnose`: where a model fails, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from playbill.cli.main import Selection
from playbill.cli.protocols import protocol_list, protocol_option


@click.command(epilog=protocol_list(auto=False))
@click.argument("reference")
@click.option("--by", default="country", show_default=True, help="country, tenure, language, device or canvas.")
@click.option("--canvas", help="Canvas to ask (default: home, or the model's first one).")
@protocol_option("the one it was trained under; all but replay")
@click.option("--minimum-members", type=click.IntRange(1), help="Members a slice needs (default: the model's).")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="File for a picture: .svg or .png.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def diagnose(selection: Selection, /, reference: str, plot: Path | None, as_json: bool, **options: Any) -> None:
    """Find the slices in which a version does worse than their size lets one expect, and why.

    REFERENCE is model@champion, model:3, or model for its newest version. Each slice is compared with the other
    slices' requests at the same lengths of history. The gap is taken apart over what its members play, and what sets
    the slice apart from others is listed: data, catalogue, language, popularity, new titles, drift, calibration.

    Example: playbill -w ml_100k diagnose everycanvas@champion --by tenure
    """
    from playbill.cli.console import Console
    from playbill.cli.progress import Stages
    from playbill.continual.diagnosis.diagnosis import check_plot, diagnosis_grids, draw
    from playbill.evaluation.rendering.grids import grid_table

    if plot is not None:
        check_plot(plot)
    with Stages() as stages:
        found = selection.project.diagnose(reference, progress=stages, **options)
    console = Console(stderr=as_json)
    for grid in diagnosis_grids(found):
        console.print(grid_table(grid))
    for note in found.notes:
        console.print(note)
    if plot is not None:
        console.print(f"wrote {draw(found, plot)}")
    if as_json:
        click.echo(json.dumps(found.to_dict()))
