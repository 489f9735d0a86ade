"""`playbill ingest`: bring outside data into the canonical tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.cli.console import Console
    from playbill.sources import IngestReport, PushReport
    from playbill.sources.cleaning import RowsSetAside


class SourceOrPush(click.Group):
    """`ingest push ...` is a command of its own; everything else is `ingest SOURCE ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Send all but `push` to the command that reads a source."""
        return super().parse_args(ctx, args if args[:1] == ["push"] else ["source", *args])


class ReadSource(click.Command):
    """Says how it is used without the name that only tells it from `push`."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write `playbill ingest SOURCE`."""
        above = ctx.parent.command_path if ctx.parent else ctx.command_path
        formatter.write_usage(above, " ".join(self.collect_usage_pieces(ctx)))


@click.command("source", cls=ReadSource)
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
def ingest_source(
    selection: Selection,
    source: str,
    path: Path | None,
    url: str | None,
    mapping: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Replace the workspace's tables by the data of SOURCE.

    SOURCE is movielens_100k, movielens_1m, movielens_20m, movielens_32m, kuairand, kuairand_1k, kuairand_27k,
    parquet, sql, or one that an installed package adds. PATH is a downloaded archive or folder (MovieLens and
    KuaiRand; without it, it is downloaded) or the folder of your own files (parquet). Data with mistakes is refused
    as a whole, and every mistake is named. To add events to what is there: playbill ingest push --help

    Example: playbill -w ml_100k ingest movielens_100k
    """
    from playbill.cli.progress import Stages

    project, options = selection.project, {"url": url, "mapping": mapping}
    with Stages() as stages:
        report = project.ingest(source, path, dry_run=dry_run, progress=stages, **options)
    _show(report)
    if as_json:
        click.echo(json.dumps(report.to_dict()))


_SHOWN = 20
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("events", metavar="[FILE|-]", required=False, type=_FILE)
@click.option("--titles", type=_FILE, help="New titles, and new versions of titles.")
@click.option("--members", type=_FILE, help="New members, and new versions of members.")
@click.option("--availability", type=_FILE, help="New spans in which titles can be watched.")
@click.option("--mapping", type=click.Path(path_type=Path), help="YAML file that maps your columns to canonical ones.")
@click.option("--compact", is_flag=True, help="Write into the day partitions what else would wait in the journal.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def push(
    selection: Selection,
    events: Path | None,
    titles: Path | None,
    members: Path | None,
    availability: Path | None,
    mapping: Path | None,
    compact: bool,
    as_json: bool,
) -> None:
    """Append events of FILE to the workspace's log; `-` reads ndjson from standard input.

    Files are .ndjson, .jsonl, .json or .parquet with canonical columns, or yours through a mapping. Pushing an event
    again changes nothing. Rows with mistakes are refused together, and every mistake is named with its lines.

    Example: playbill -w ml_100k ingest push today.ndjson --compact
    """
    files: dict[str, Any] = {"titles": titles, "members": members, "availability": availability}
    if not compact and events is None and not any(files.values()):
        raise click.UsageError("nothing to push: give a FILE, --titles, --members or --availability, or --compact.")
    read = sys.stdin.buffer if str(events) == "-" else events
    report = selection.project.push(read, **files, mapping=mapping, compact=compact)
    _show_push(report)
    if as_json:
        click.echo(json.dumps(report.to_dict()))


@click.group(cls=SourceOrPush, help=ingest_source.help)
def ingest() -> None:
    """Hold both commands; the help is that of the first."""


ingest.add_command(ingest_source)
ingest.add_command(push)


def _show(report: IngestReport) -> None:
    from rich.table import Table

    from playbill.cli.console import Console

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
    for note in report.notes:
        console.print(f"Note: {note}.", highlight=False, soft_wrap=True, markup=False)
    if report.protocol:
        line = f"Models are held out by {report.protocol}, since {report.protocol_reason}."
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for aside in report.set_aside:
        _show_set_aside(console, aside, dry_run=report.dry_run)
    if report.dry_run:
        for name, sample in report.samples.items():
            console.print(f"{name}, the first {sample.height} rows:", highlight=False)
            for row in sample.iter_rows(named=True):
                filled = {key: str(value) for key, value in row.items() if value is not None}
                console.print(f"  {filled}", highlight=False, soft_wrap=True, markup=False)
        console.print("Dry run: nothing was written.")
    else:
        console.print(f"Snapshot {report.snapshot_id}, {report.seconds:.1f} s.", highlight=False)


def _show_set_aside(console: Console, aside: RowsSetAside, *, dry_run: bool) -> None:
    place = "would be set aside" if dry_run else f"set aside in {aside.file}"
    counted = f"{aside.table}: {aside.rows:,} of {aside.offered:,} rows {place}"
    console.print(counted, highlight=False, soft_wrap=True, markup=False)
    for reason, rows in aside.reasons.items():
        console.print(f"  {rows:,}  {reason}", highlight=False, soft_wrap=True, markup=False)


def _show_push(report: PushReport) -> None:
    from rich.table import Table

    from playbill.cli.console import Console

    console = Console()
    table = Table(title=f"Workspace {report.workspace}: pushed", title_justify="left")
    for heading in ("table", "added", "there already", "conflicting"):
        table.add_column(heading, justify="left" if heading == "table" else "right")
    for name, rows in report.rows.items():
        table.add_row(name, f"{rows:,}", f"{report.duplicates[name]:,}", f"{report.conflicting[name]:,}")
    console.print(table)
    for conflict in report.conflicts:
        console.print(f"  kept as it was: {conflict}", highlight=False, soft_wrap=True, markup=False)
    for event in report.set_aside[:_SHOWN]:
        console.print(f"  set aside: {event}", highlight=False, soft_wrap=True, markup=False)
    if report.set_aside:
        console.print(
            f"{len(report.set_aside):,} events of the journal cannot be stored; they are kept, with the reason, in the "
            "table event_journal_rejected of the workspace's database.",
            highlight=False,
        )
    console.print(
        f"{report.late:,} late, {report.journalled:,} new in the journal, "
        f"{report.compacted:,} moved into the day partitions, {report.seconds:.1f} s.",
        highlight=False,
    )
