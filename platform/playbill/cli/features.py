"""`playbill features`: compute feature values from the event log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.features import BuildReport, MaterializedView

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
