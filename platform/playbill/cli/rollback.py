"""`playbill rollback`: put the champion before the present one back."""

from __future__ import annotations

import click

from playbill.cli.main import Selection
from playbill.cli.promotion import show


@click.command("rollback")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def rollback(selection: Selection, model: str, as_json: bool) -> None:
    """Put the previous champion back. Quality gates are skipped, integrity checks are not.

    Example: playbill -w ml_100k rollback everycanvas
    """
    from playbill.versions.promotion import rollback as go_back

    version, decision = go_back(selection.workspace, model)
    show(version, decision, as_json)
