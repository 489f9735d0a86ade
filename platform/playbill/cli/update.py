"""`playbill update`: the champion goes on learning from the events that came since."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection
from playbill.cli.promotion import print_gates
from playbill.cli.train import end_as_interrupted, worker_options

if TYPE_CHECKING:
    from playbill.continual.incremental.update import UpdateOutcome


@click.command("update")
@click.argument("model")
@worker_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def update(selection: Selection, /, model: str, as_json: bool, **options: Any) -> None:
    """Train MODEL's champion on with the events that came since, and register the result as a candidate.

    New titles get vectors of their own, some older examples are learnt from again, and the newest events are held out
    for the gates. With `promote: auto` in the definition the candidate becomes champion where its gates pass. An update
    that was killed is resumed by the same command; without new events it says so.

    Example: playbill -w ml_100k update everycanvas
    """
    from playbill.cli.progress import Stages

    signal.signal(signal.SIGTERM, end_as_interrupted)
    with Stages() as stages:
        outcome = selection.project.update(model, **options, progress=stages)
    _show(outcome)
    if as_json:
        click.echo(json.dumps(_json(outcome)))


def _show(outcome: UpdateOutcome) -> None:
    if outcome.status == "nothing to do":
        click.echo(f"nothing to do for {outcome.parent}: {outcome.reason}")
        return
    taken = outcome.taken
    late = f", {taken.late_events:,} of them late" if taken.late_events else ""
    click.echo(
        f"{outcome.model}:{outcome.version} goes on from {outcome.parent} with {taken.events:,} new events{late}, "
        f"{taken.replayed:,} older ones and {outcome.new_titles:,} new titles; {taken.held_out:,} events are held "
        f"out for its gates ({outcome.seconds:.0f} s)"
    )
    if not outcome.optimizer_carried:
        click.echo(
            f"the optimizer starts anew: the checkpoints of {outcome.parent} are not in this workspace; "
            "update where it was trained to go on with it"
        )
    print_gates(outcome.gates)
    click.echo(outcome.reason)


def _json(outcome: UpdateOutcome) -> dict[str, Any]:
    found = asdict(outcome)
    counts: dict[str, int] = found.pop("taken") | {"new_titles": outcome.new_titles}
    return {**found, **counts, "seconds": round(outcome.seconds, 2)}
