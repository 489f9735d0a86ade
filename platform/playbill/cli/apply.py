"""`playbill apply`: register feature_repo/ in the workspace's Feast registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.features import ApplyReport


@click.command("apply")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def apply(selection: Selection, as_json: bool) -> None:
    """Register feature_repo/ in this workspace's Feast registry.

    Writes HOME/NAME/feature_store.yaml, which plain `feast -f ... -c feature_repo` reads as well. What is no
    longer in feature_repo/ is removed from the registry.

    Example: playbill -w ml_100k apply
    """
    from rich.text import Text

    from playbill.cli.console import Console
    from playbill.features import FeatureDoor

    workspace = selection.workspace
    with Console(stderr=True).status(Text(f"registering {workspace.project.feature_repo} ...")):
        report = FeatureDoor(workspace).apply()
    if as_json:
        row = {name: getattr(report, name) for name in ("project", *_KINDS, "seconds")}
        click.echo(json.dumps({**row, "feature_store": str(workspace.feature_store_yaml)}))
        return
    _show(report)
    click.echo(f"feast -f {workspace.feature_store_yaml} -c {workspace.project.feature_repo} ui")


_KINDS = {
    "entities": "entities",
    "views": "feature views",
    "on_demand_views": "on-demand views",
    "services": "feature services",
}


def _show(report: ApplyReport) -> None:
    from rich.table import Table

    from playbill.cli.console import Console

    table = Table("", "registered", title=f"Feast project {report.project}, {report.seconds:.1f} s")
    for field, label in _KINDS.items():
        table.add_row(label, ", ".join(getattr(report, field)))
    Console().print(table)
