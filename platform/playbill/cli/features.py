"""`playbill features`: compute feature values from the event log.

`playbill apply`: register feature_repo/ in the workspace's Feast registry.

`playbill materialize`: load the newest feature values into the online store.

`playbill parity`: were the features that requests were answered with those that training sees?
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.features import ApplyReport, BuildReport, MaterializedView, ParityReport


_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")


@click.group("features")
def features() -> None:
    """Compute feature values from the event log.

    Example: playbill -w ml_100k features build
    """


@features.command("build")
@click.option("--full", is_flag=True, help="Build every view anew, also where an increment would do.")
@click.option("--until", metavar="MOMENT", help="Values up to this moment (default: the workspace's clock).")
@_JSON
@click.pass_obj
def build(selection: Selection, full: bool, until: str | None, as_json: bool) -> None:
    """Bring the views over the log up to date, as of every moment they change, in HOME/NAME/features.

    What is new since the last build is appended. A view is built anew where that is not enough, which is said. Views of
    your own are built like the shipped ones, and refused where a value knows the event it would be joined to.

    Example: playbill -w ml_100k features build
    """
    from playbill.clock import parse_moment
    from playbill.features import build_features

    moment = parse_moment(until) if until else None
    with _bar() as progress:
        report = build_features(selection.workspace, progress, full=full, until=moment)
    _show(selection, report, as_json)


@features.command("backfill")
@click.option("--weeks", type=click.IntRange(min=1), required=True, help="How many weeks of values, to the end.")
@click.option("--views", multiple=True, metavar="VIEW", help="Which views (default: new and changed ones). Repeatable.")
@click.option("--until", metavar="MOMENT", help="End of the weeks (default: the workspace's clock).")
@_JSON
@click.pass_obj
def backfill(selection: Selection, weeks: int, views: Sequence[str], until: str | None, as_json: bool) -> None:
    """Build views over the last weeks of the log only: a new view has past values without new logging.

    Example: playbill -w ml_100k features backfill --weeks 12 --views member_genres
    """
    from playbill.clock import parse_moment
    from playbill.features import backfill_features

    moment = parse_moment(until) if until else None
    with _bar() as progress:
        report = backfill_features(selection.workspace, weeks, views or None, progress, moment)
    _show(selection, report, as_json)


@features.command("push")
@click.option("--member", "members", multiple=True, required=True, metavar="MEMBER", help="Whose values. Repeatable.")
@click.option("--at", metavar="MOMENT", help="Events before this moment count (default: the workspace's clock).")
@_JSON
@click.pass_obj
def push(selection: Selection, members: Sequence[str], at: str | None, as_json: bool) -> None:
    """Encode some members anew, journal included, and write their values to the online store.

    Example: playbill -w ml_100k features push --member 42
    """
    from rich.table import Table

    from playbill.cli.console import Console
    from playbill.clock import parse_moment
    from playbill.features import FeatureDoor

    moment = parse_moment(at) if at else None
    with Console(stderr=True).status("encoding ..."):
        report = FeatureDoor(selection.workspace).push(members, moment)
    if as_json:
        found = {"project": report.project, "at": report.at.isoformat(), "rows": dict(report.rows)}
        click.echo(json.dumps({**found, "unknown": list(report.unknown)}))
        return
    table = Table("view", title=f"Online store of {report.project} as of {report.at:%Y-%m-%d %H:%M:%S} UTC")
    table.add_column("members", justify="right")
    for view, rows in report.rows.items():
        table.add_row(view, f"{rows:,}")
    Console().print(table)
    if report.unknown:
        click.echo(f"without events before that: {', '.join(report.unknown)}")


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show progress over views: told a view's name, its place and their number before it is computed."""
    from playbill.cli.progress import Stages

    with Stages() as stages:
        stages.stage("build features")
        yield lambda view, done, total: stages.advance(done, total, view)


def _show(selection: Selection, report: BuildReport, as_json: bool) -> None:
    from rich.table import Table

    from playbill.cli.console import Console

    if as_json:
        click.echo(json.dumps(_as_json(report)))
        return
    table = Table("view", title=f"Features of {report.workspace} up to {report.until:%Y-%m-%d %H:%M:%S} UTC")
    for column in ("rows", "written", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("how")
    for view in report.views:
        how = f"{view.how}: {view.why}" if view.why else view.how
        table.add_row(view.view, f"{view.rows:,}", f"{view.written:,}", f"{view.seconds:.2f}", how)
    Console().print(table)
    for note in report.notes:
        click.echo(f"note: {note}")
    click.echo(str(selection.workspace.features))


def _as_json(report: BuildReport) -> dict[str, object]:
    views = [
        {
            "view": view.view,
            "rows": view.rows,
            "written": view.written,
            "seconds": view.seconds,
            "path": str(view.path),
            "how": view.how,
            "why": view.why,
        }
        for view in report.views
    ]
    return {
        "workspace": report.workspace,
        "snapshot_id": report.snapshot_id,
        "until": report.until.isoformat(),
        "seconds": sum(view.seconds for view in report.views),
        "views": views,
        "notes": list(report.notes),
    }


def show_views(title: str, views: Sequence[MaterializedView]) -> None:
    """Print a table of views with their rows and seconds."""
    from rich.table import Table

    from playbill.cli.console import Console

    table = Table("view", title=title)
    table.add_column("rows", justify="right")
    table.add_column("seconds", justify="right")
    for view in views:
        table.add_row(view.view, f"{view.rows:,}", f"{view.seconds:.2f}")
    Console().print(table)


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
    _show_applied(report)
    click.echo(f"feast -f {workspace.feature_store_yaml} -c {workspace.project.feature_repo} ui")


_KINDS = {
    "entities": "entities",
    "views": "feature views",
    "on_demand_views": "on-demand views",
    "services": "feature services",
}


def _show_applied(report: ApplyReport) -> None:
    from rich.table import Table

    from playbill.cli.console import Console

    table = Table("", "registered", title=f"Feast project {report.project}, {report.seconds:.1f} s")
    for field, label in _KINDS.items():
        table.add_row(label, ", ".join(getattr(report, field)))
    Console().print(table)


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
        _show_parity(report)
    if report.different:
        sys.exit(1)


def _record(report: ParityReport) -> dict[str, Any]:
    views = [{**asdict(view), "equal": view.equal} for view in report.views]
    totals = {"compared": report.compared, "different": report.different, "equal": report.compared - report.different}
    return {**asdict(report), **totals, "views": views}


def _show_parity(report: ParityReport) -> None:
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
