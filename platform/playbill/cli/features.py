"""`playbill features`: compute feature values from the event log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.features import BuiltView, MaterializedView


@click.group("features")
def features() -> None:
    """Compute feature values from the event log.

    Example: playbill -w ml_100k features build
    """


@features.command("build")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def build(selection: Selection, as_json: bool) -> None:
    """Compute the shipped views as of every moment they change, into HOME/NAME/features.

    Example: playbill -w ml_100k features build
    """
    from rich.console import Console

    from playbill.features import build_features

    with Console(stderr=True).status("reading tables ...") as status:
        report = build_features(selection.workspace, lambda view: status.update(f"computing {view} ..."))
    if as_json:
        views = [{"view": v.view, "rows": v.rows, "seconds": v.seconds, "path": str(v.path)} for v in report.views]
        click.echo(json.dumps({"workspace": report.workspace, "snapshot_id": report.snapshot_id, "views": views}))
        return
    show_views(f"Feature files of {report.workspace}", report.views)
    click.echo(str(selection.workspace.features))


def show_views(title: str, views: Sequence[BuiltView | MaterializedView]) -> None:
    """Print a table of views with their rows and seconds."""
    from rich.console import Console
    from rich.table import Table

    table = Table("view", title=title)
    table.add_column("rows", justify="right")
    table.add_column("seconds", justify="right")
    for view in views:
        table.add_row(view.view, f"{view.rows:,}", f"{view.seconds:.2f}")
    Console().print(table)
