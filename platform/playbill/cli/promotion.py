"""`playbill promote`: point `champion` at a version and have its gates checked at once."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.versions.promotion import Decision
    from playbill.versions.tracking import ModelVersion


@click.command("promote")
@click.argument("reference")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def promote(selection: Selection, reference: str, as_json: bool) -> None:
    """Make a version the champion, if its gates pass. Exits with 1 when they do not.

    REFERENCE is model:3, model@challenger, or model for its newest version.

    Example: playbill -w ml_100k promote everycanvas:1
    """
    from playbill.versions.promotion import promote as set_champion

    version, decision = set_champion(selection.workspace, reference)
    show(version, decision, as_json)


def show(version: ModelVersion, decision: Decision | None, as_json: bool) -> None:
    """Print what was decided; a refusal ends the process with status 1."""
    verdict = "unchanged" if decision is None else decision.verdict
    reason = "it is the approved champion already" if decision is None else decision.reason
    gates = () if decision is None else decision.gates
    if as_json:
        row = {"model": version.model, "version": version.version, "verdict": verdict, "reason": reason}
        row |= {"kind": decision.kind if decision else None, "gates": [asdict(gate) for gate in gates]}
        click.echo(json.dumps(row))
    else:
        _print_gates(decision)
        click.echo(f"{version.reference} {verdict}: {reason}")
    if verdict == "rejected":
        sys.exit(1)


def _print_gates(decision: Decision | None) -> None:
    if decision is None or not decision.gates:
        return
    from rich.table import Table

    from playbill.cli.console import Console, mark

    table = Table("", "gate", "measured", "candidate", "reference", "limit", "", title="Gates")
    for gate in decision.gates:
        numbers = ("" if number is None else f"{number:.4f}" for number in (gate.value, gate.reference, gate.limit))
        table.add_row(mark(gate.passed), gate.gate, gate.metric, *numbers, gate.reason)
    Console().print(table)
