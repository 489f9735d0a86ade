"""`playbill parity`: were the features that requests were answered with those that training sees?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.features import ParityReport


@click.command("parity")
@click.option("--since", metavar="MOMENT", help="Requests from this moment on; ISO 8601 with a zone.")
@click.option("--until", metavar="MOMENT", help="Requests before this moment; ISO 8601 with a zone.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Compare N requests drawn at random.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def parity(
    selection: Selection, since: str | None, until: str | None, sample: int | None, seed: int, as_json: bool
) -> None:
    """Compare the features of logged requests with what they are now computed to have been.

    Numbers are compared as float32 to the bit, missing with missing. The exit status is 1 when anything differs.

    Example: playbill -w ml_100k parity --since 1998-04-01T00:00:00Z --sample 1000
    """
    from playbill.cli.console import Console
    from playbill.clock import parse_moment
    from playbill.features import FeatureDoor

    start, end = (parse_moment(text) if text else None for text in (since, until))
    with Console(stderr=True).status("looking the features of every request up again ..."):
        report = FeatureDoor(selection.workspace).parity(since=start, until=end, sample=sample, seed=seed)
    if as_json:
        click.echo(json.dumps(_record(report), default=str))
    else:
        _show(report)
    if report.different:
        sys.exit(1)


def _record(report: ParityReport) -> dict[str, Any]:
    views = [{**asdict(view), "equal": view.equal} for view in report.views]
    totals = {"compared": report.compared, "different": report.different, "equal": report.compared - report.different}
    return {**asdict(report), **totals, "views": views}


def _show(report: ParityReport) -> None:
    from rich.table import Table

    from playbill.cli.console import Console

    console = Console()
    table = Table("view", title=f"{report.requests:,} logged requests of {report.workspace}, features compared")
    for name in ("compared", "equal", "different"):
        table.add_column(name, justify="right")
    table.add_column("why")
    for view in report.views:
        why = ", ".join(f"{count:,} {cause}" for cause, count in view.causes.items())
        table.add_row(view.view, f"{view.compared:,}", f"{view.equal:,}", f"{view.different:,}", why)
    console.print(table)
    examples = Table("request", "member", "at", "feature", "served", "regenerated", "why", title="First differences")
    for view in report.views:
        for found in view.examples:
            feature, values = f"{found.view}.{found.feature}", (str(found.served), str(found.regenerated))
            examples.add_row(found.request_id, found.member_id, found.at.isoformat(), feature, *values, found.cause)
    if examples.row_count:
        console.print(examples)
    notes = {
        "answered without features": report.unanswered or None,
        "no longer in a service": ", ".join(report.only_logged),
        "added to a service since": ", ".join(report.only_registered),
    }
    for what, found_text in notes.items():
        if found_text:
            console.print(f"{what}: {found_text}")
