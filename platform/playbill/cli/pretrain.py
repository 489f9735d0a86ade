"""`playbill pretrain`: train a foundation model, and publish what it knows of members and titles."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection
from playbill.cli.protocols import protocol_list
from playbill.cli.train import end_as_interrupted, outcome_json, show_outcome, training_options
from playbill.cli.vectors import described, member_count, show_report

if TYPE_CHECKING:
    from playbill.foundation.pretrain import PretrainOutcome


@click.command("pretrain", epilog=protocol_list(auto=True))
@click.argument("model", default="foundation")
@training_options
@click.option("--members", default="all", metavar="all|N", show_default=True, help="Publish the N active last.")
@click.option("--again", is_flag=True, help="Train anew, also where the same run has finished.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def pretrain(selection: Selection, /, model: str, members: str, again: bool, as_json: bool, **options: Any) -> None:
    """Train MODEL on everything that members did, register it in MLflow, and publish its vectors in Feast.

    Other models start from it by `init_from: foundation@champion`, or read its vectors as features. What is done is not
    repeated: a run that was killed is resumed by the same command, and one that has finished is only brought up to date
    in its vectors.

    Example: playbill -w ml_100k pretrain
    """
    from playbill.cli.progress import Stages

    signal.signal(signal.SIGTERM, end_as_interrupted)
    with Stages() as stages:
        outcome = selection.project.pretrain(
            model, members=member_count(members), again=again, progress=stages, **options
        )
    _show(outcome)
    if as_json:
        trained = None if outcome.trained is None else outcome_json(outcome.trained)
        vectors = described(outcome.vectors.record) | {"how": outcome.vectors.how}
        found = {"model": outcome.model, "version": outcome.version, "trained": trained, "vectors": vectors}
        click.echo(json.dumps(found))


def _show(outcome: PretrainOutcome) -> None:
    if outcome.trained is not None:
        show_outcome(outcome.trained)
    else:
        click.echo(f"{outcome.model}:{outcome.version} was trained by the same run before (--again trains anew)")
    show_report(outcome.vectors)
