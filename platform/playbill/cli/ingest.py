"""`playbill ingest`: bring outside data into the canonical tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.sources import IngestReport, Progress


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--url", help="SQLAlchemy URL of the database (source sql); ${NAME} comes from the environment.")
@click.option(
    "--mapping",
    type=click.Path(path_type=Path),
    help="YAML file that maps files or queries to tables (sources parquet and sql).",
)
@click.option("--dry-run", is_flag=True, help="Check everything, show what would be written, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def ingest(
    selection: Selection,
    source: str,
    path: Path | None,
    url: str | None,
    mapping: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Replace the workspace's tables by the data of SOURCE.

    SOURCE is movielens_100k, movielens_1m, movielens_20m, movielens_32m, parquet, sql, or one that an installed
    package adds. PATH is a downloaded archive or folder (MovieLens; without it, it is downloaded) or the folder
    of your own files (parquet). Data with mistakes is refused as a whole, and every mistake is named.

    Example: playbill -w ml_100k ingest movielens_100k
    """
    from playbill.sources import ingest as run

    given = {"path": path, "url": url, "mapping": mapping}
    options = {name: value for name, value in given.items() if value is not None}
    with _progress() as told:
        report = run(selection.workspace, source, options, dry_run=dry_run, progress=told)
    _show(report)
    if as_json:
        click.echo(json.dumps(report.to_dict()))


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show one bar per stage on stderr, so that stdout stays readable by scripts."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        stages: dict[str, Any] = {}

        def told(stage: str, done: int, total: int | None) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=total)
            bars.update(stages[stage], completed=done, total=total)

        yield told


def _show(report: IngestReport) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"Source: {report.source}, {report.route}.", highlight=False, soft_wrap=True)
    if report.terms:
        console.print(f"Terms: {report.terms}", highlight=False, soft_wrap=True)
    verb = "would write" if report.dry_run else "wrote"
    table = Table(title=f"Workspace {report.workspace}: {verb}", title_justify="left")
    table.add_column("table")
    table.add_column("rows", justify="right")
    for name, rows in report.rows.items():
        table.add_row(name, f"{rows:,}")
    for action, count in report.actions.items():
        table.add_row(f"  {action}", f"{count:,}")
    console.print(table)
    console.print(f"Events from {report.first_event:%Y-%m-%d %H:%M} to {report.last_event:%Y-%m-%d %H:%M} UTC.")
    if report.dry_run:
        for name, sample in report.samples.items():
            console.print(f"{name}, the first {sample.height} rows:", highlight=False)
            for row in sample.iter_rows(named=True):
                filled = {key: str(value) for key, value in row.items() if value is not None}
                console.print(f"  {filled}", highlight=False, soft_wrap=True, markup=False)
        console.print("Dry run: nothing was written.")
    else:
        console.print(f"Snapshot {report.snapshot_id}, {report.seconds:.1f} s.", highlight=False)
