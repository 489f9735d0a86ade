"""`playbill materialize`: load the newest feature values into the online store."""

from __future__ import annotations

import json

import click

from playbill.cli.main import Selection


@click.command("materialize")
@click.option("--until", metavar="MOMENT", help="ISO 8601 with a zone (default: the workspace's clock).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def materialize(selection: Selection, until: str | None, as_json: bool) -> None:
    """Load the newest value of every entity and view into the online store.

    Example: playbill -w ml_100k materialize
    """
    from playbill.cli.console import Console
    from playbill.cli.features import show_views
    from playbill.clock import parse_moment
    from playbill.features import FeatureDoor

    moment = parse_moment(until) if until else None
    with Console(stderr=True).status("opening the feature store ...") as status:
        door = FeatureDoor(selection.workspace)
        report = door.materialize(moment, lambda view: status.update(f"writing {view} ..."))
    if as_json:
        views = [{"view": v.view, "rows": v.rows, "seconds": v.seconds} for v in report.views]
        click.echo(json.dumps({"project": report.project, "until": report.until.isoformat(), "views": views}))
        return
    show_views(f"Online store of {report.project} as of {report.until:%Y-%m-%d %H:%M:%S} UTC", report.views)
