"""`playbill simulate`: fill a workspace with the log of a streaming service whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection, earlier_option
from playbill_lab.cli.experiment import FILE

if TYPE_CHECKING:
    from rich.table import Table

    from playbill_lab.simulator.workspace import Simulated, StageProgress
    from playbill_lab.simulator.world.spec import WorldSpec

MEMBERS, DAYS = 5000, 28


@click.command("simulate")
@click.option("--members", type=click.IntRange(1), help=f"Members in all (default: {MEMBERS:,}, or the world's).")
@click.option("--days", type=click.IntRange(1), help=f"Length of the run (default: {DAYS}, or the world's).")
@click.option("--seed", type=click.IntRange(0), help="Every random stream starts from it (default: 7).")
@click.option("--titles", type=int, help="Titles to generate (default: 600).")
@click.option(
    "--catalogue", metavar="TITLES", help="Real titles instead: a parquet file, a MovieLens folder, or a workspace."
)
@click.option("--keep-availability", is_flag=True, help="Keep the availability of the catalogue's workspace.")
@earlier_option("--own-windows", "--keep-availability", is_flag=True)
@click.option("--countries", metavar="CODES", help="Only these of the default countries, such as US,GB,IN.")
@click.option(
    "--world",
    "world_file",
    type=FILE,
    help="YAML file that says all of it, or a world by name: rich. Options replace its fields.",
)
@click.option("--policy", help="Who fills the pages: a registered name, or module:attribute (default: plackett_luce).")
@click.option("--processes", type=click.IntRange(1), help="Processes (default: one for each core); same events.")
@click.option("--replace", is_flag=True, help="Replace a log that was not simulated.")
@click.option("--plot", "plot_file", type=FILE, help="Picture of the fit to MovieLens, .svg or .png.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def simulate(
    selection: Selection,
    /,
    catalogue: str | None,
    keep_availability: bool,
    processes: int | None,
    replace: bool,
    plot_file: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Simulate a streaming service, and replace the workspace's tables by its log.

    Equal options give equal events, to the bit. What is true in that world is kept beside its log.

    Example: playbill -w simulated simulate --members 2000 --days 28 --seed 7
    """
    from playbill.cli.console import Console
    from playbill.cli.progress import Stages
    from playbill_lab.simulator.fit import fit_table, plot_fit
    from playbill_lab.simulator.workspace import find_catalogue, simulate_workspace

    spec = wanted_world(**given)
    real = (
        None
        if catalogue is None
        else find_catalogue(selection.folder, catalogue, spec.seed, keep_availability=keep_availability)
    )
    with Stages() as stages:
        found = simulate_workspace(
            selection.workspace, spec, real, processes=processes, replace=replace, progress=_progress(stages)
        )
    console = Console()
    console.print(counts_table(found))
    console.print(fit_table(found.fit))
    if plot_file is not None:
        plot_fit(found.fit, plot_file)
        console.print(f"wrote {plot_file}")
    if as_json:
        click.echo(json.dumps(found.as_json()))


def wanted_world(world_file: Path | None, countries: str | None, **given: Any) -> WorldSpec:
    """Return the world that options and a file describe.

    Raises:
        ConfigError: There is no such file.
        DefinitionError: Anything is wrong with it; all is named.
    """
    from playbill_lab.simulator.world.spec import chosen_countries, read_spec, read_world_file

    fields = {name: value for name, value in given.items() if value is not None}
    if world_file is None:
        fields = {"members": MEMBERS, "days": DAYS, **fields}
    if countries is not None:
        fields["countries"] = chosen_countries(countries, fields.get("days", DAYS))
    return read_spec(fields) if world_file is None else read_world_file(world_file, fields)


def counts_table(found: Simulated) -> Table:
    """Return events by canvas as a table for the terminal."""
    from rich.table import Table

    title = f"{found.outcome.events:,} events in {found.seconds:.1f} s, {found.peak_gib:.2f} GiB at most"
    table = Table("canvas", "impressions", "plays", "all else", title=title)
    for canvas, row in found.outcome.counts.items():
        shown, plays = row.get("impression", 0), row.get("play", 0)
        table.add_row(canvas, f"{shown:,}", f"{plays:,}", f"{sum(row.values()) - shown - plays:,}")
    return table


def _progress(stages: Any) -> StageProgress:
    names: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in names:
            names.append(stage)
            stages.stage(stage)
        if total:
            stages.advance(done, total, f"day {done}")

    return progress
