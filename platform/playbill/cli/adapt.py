"""`playbill adapt`: weights of countries beside a registered version."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection
from playbill.cli.train import end_as_interrupted

if TYPE_CHECKING:
    from playbill.continual.countries.country_table import AdaptOutcome, CountryRow


@click.command("adapt")
@click.argument("model")
@click.option("--countries", metavar="AA,BB", help="Countries to adapt (default: all that the version knows).")
@click.option(
    "--arm",
    type=click.Choice(["low_rank", "fine_tune"]),
    default="low_rank",
    show_default=True,
    help="A matrix of low rank beside the projection of the state, or a whole projection.",
)
@click.option("--rank", type=click.IntRange(1, 4096), help="Of the matrix of low_rank (default: 4).")
@click.option("--workers", type=click.IntRange(min=0), help="0 = this process; N = tasks side by side on Ray.")
@click.option("--again", is_flag=True, help="Learn anew, also where nothing has changed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def adapt(selection: Selection, /, model: str, countries: str | None, as_json: bool, **options: Any) -> None:
    """Give countries weights of their own beside MODEL's champion, and register the result as a new version.

    The champion stands still. Each country learns what it adds from its own members. Where that is significantly ahead
    over all countries on the validation fold, each that is likely to gain gets it, else those that are significantly
    ahead by themselves. The others, and requests from unknown countries, keep the champion's answers.
    Where a version came of the same champion, data and options before, there is nothing to do.

    Example: playbill -w simulated adapt everycanvas --countries NO,SE
    """
    from playbill.cli.progress import Stages
    from playbill.continual.countries.country_table import AlreadyAdapted

    signal.signal(signal.SIGTERM, end_as_interrupted)
    named = None if countries is None else [code.strip() for code in countries.split(",") if code.strip()]
    with Stages() as stages:
        outcome = selection.project.adapt(model, countries=named, progress=stages, **options)
    if isinstance(outcome, AlreadyAdapted):
        click.echo(f"nothing to do: {outcome.reason}")
        if as_json:
            click.echo(json.dumps({"status": "nothing to do", **asdict(outcome)}))
        return
    _show(outcome)
    if as_json:
        click.echo(json.dumps(_as_json(outcome)))


def _show(outcome: AdaptOutcome) -> None:
    from rich.table import Table

    from playbill.cli.console import Console

    table = Table(title=f"{outcome.canvas}, NDCG@10 on the test fold, {outcome.parent} and after")
    for name in ("country", "members", "requests", "before", "after", "change", "own weights"):
        table.add_column(name, justify="left" if name in ("country", "own weights") else "right")
    for row in outcome.countries:
        table.add_row(*_cells(row))
    low, value, high = outcome.change.low, outcome.change.value, outcome.change.high
    Console().print(table)
    click.echo(f"all: {outcome.before:.4f} -> {outcome.after:.4f}, {value:+.4f} ({low:+.4f} to {high:+.4f})")
    if outcome.version is None:
        click.echo(f"no country is significantly ahead, so {outcome.parent} stays as it is and nothing was registered")
    else:
        click.echo(
            f"registered {outcome.model}:{outcome.version}; next: playbill promote {outcome.model}:{outcome.version}"
        )


def _cells(row: CountryRow) -> tuple[str, ...]:
    change = "" if row.change is None else f"{row.change.value:+.4f} ({row.change.low:+.4f} to {row.change.high:+.4f})"
    before, after = ("" if value is None else f"{value:.4f}" for value in (row.before, row.after))
    own = f"after {row.chosen} pass{'es' if row.chosen > 1 else ''}" if row.chosen else f"none: {row.reason}"
    return row.country, f"{row.members:,}", f"{row.requests:,}", before, after, change, own


def _as_json(outcome: AdaptOutcome) -> dict[str, Any]:
    change = {"value": outcome.change.value, "low": outcome.change.low, "high": outcome.change.high}
    return {
        "model": outcome.model,
        "parent": outcome.parent,
        "version": outcome.version,
        "arm": outcome.arm,
        "canvas": outcome.canvas,
        "kept": [row.country for row in outcome.countries if row.chosen],
        "before": outcome.before,
        "after": outcome.after,
        "change": change,
        "learn_seconds": outcome.learn_seconds,
        "seconds": outcome.seconds,
        "countries": [row.as_dict() for row in outcome.countries],
    }
