"""`playbill promote`: point `champion` at a version and have its gates checked at once.

`playbill rollback`: put the champion before the present one back.

`playbill controller`: watch aliases, check gates, approve versions.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.versions.promotion import Decision, GateResult, Promotion


@click.command("promote")
@click.argument("reference")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def promote(selection: Selection, reference: str, as_json: bool) -> None:
    """Make a version the champion, if its gates pass. Exits with 1 when they do not.

    REFERENCE is model:3, model@challenger, or model for its newest version.

    Example: playbill -w ml_100k promote everycanvas:1
    """
    show(selection.project.promote(reference), as_json)


def show(promotion: Promotion, as_json: bool) -> None:
    """Print what was decided; a refusal ends the process with status 1."""
    version, decision = promotion
    if as_json:
        row = {"model": version.model, "version": version.version}
        row |= {"verdict": promotion.verdict, "reason": promotion.reason}
        row |= {"kind": decision.kind if decision else None, "gates": [asdict(gate) for gate in promotion.gates]}
        click.echo(json.dumps(row))
    else:
        print_gates(promotion.gates)
        click.echo(f"{version.reference} {promotion.verdict}: {promotion.reason}")
    if promotion.verdict == "rejected":
        sys.exit(1)


def print_gates(gates: tuple[GateResult, ...]) -> None:
    """Print a table of gates; nothing without any."""
    if not gates:
        return
    from rich.table import Table

    from playbill.cli.console import Console, mark

    table = Table("", "gate", "measured", "candidate", "reference", "limit", "", title="Gates")
    for gate in gates:
        numbers = ("" if number is None else f"{number:.4f}" for number in (gate.value, gate.reference, gate.limit))
        table.add_row(mark(gate.passed), gate.gate, gate.metric, *numbers, gate.reason)
    Console().print(table)


@click.command("rollback")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def rollback(selection: Selection, model: str, as_json: bool) -> None:
    """Put the previous champion back. Quality gates are skipped, integrity checks are not.

    Example: playbill -w ml_100k rollback everycanvas
    """
    show(selection.project.rollback(model), as_json)


@click.command("controller")
@click.option("--once", is_flag=True, help="Look once and end.")
@click.option("--poll-seconds", type=click.FloatRange(min=0.1), help="Time between looks.")
@click.option("--json", "as_json", is_flag=True, help="With --once: print one JSON object as the last line.")
@click.pass_obj
def controller(selection: Selection, once: bool, poll_seconds: float | None, as_json: bool) -> None:
    """Watch the alias 'champion' of every model, check gates, and approve versions for the servers.

    Several may run; one of them decides, another takes over when it ends. `playbill serve` runs one too.

    Example: playbill -w ml_100k controller --once
    """
    from playbill.versions.promotion import Controller
    from playbill.versions.tracking import Tracking

    workspace = selection.workspace
    watcher = Controller(workspace, Tracking(workspace))
    if once:
        try:
            decisions = watcher.poll_once()
        finally:
            watcher.lease.release()
        _show(decisions, as_json)
        return
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("playbill.versions.promotion").setLevel(logging.INFO)
    seconds = poll_seconds or workspace.project.settings.serving.poll_seconds
    click.echo(f"watching the models of {workspace.name} every {seconds:g} s as {watcher.holder}, Ctrl-C ends it")
    watcher.run(_stopped_by_signals(), seconds)


def _show(decisions: tuple[Decision, ...], as_json: bool) -> None:
    if as_json:
        rows = [
            {"model": row.model, "version": row.version, "verdict": row.verdict, "reason": row.reason}
            for row in decisions
        ]
        click.echo(json.dumps({"decisions": rows}))
        return
    for row in decisions:
        click.echo(f"{row.model}:{row.version} {row.verdict}: {row.reason}")
    if not decisions:
        click.echo("nothing to decide")


def _stopped_by_signals() -> threading.Event:
    stop = threading.Event()

    def end(_signal: int, _frame: Any) -> None:
        stop.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    return stop
