"""`playbill ensemble`: learn which member to trust where, and register what comes of it as one version."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

    from playbill.continual.ensembles.ensemble import EnsembleOutcome


@click.command("ensemble")
@click.argument("name")
@click.option("--definition", type=click.IntRange(1), help="Version of its definition (default: the newest).")
@click.option("--again", is_flag=True, help="Learn it anew, also where nothing has changed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.pass_obj
def ensemble(selection: Selection, /, name: str, definition: int | None, again: bool, as_json: bool) -> None:
    """Fold the members of ensemble NAME into one network, learn its gate, measure it, and register it in MLflow.

    The gate learns what each member is worth on each canvas and in each country, on a later window than the members
    were trained on. What is registered is a version like any other: evaluate, promote, serve and recommend take it.
    Where one was learnt from the same definition, members and data before, there is nothing to do.

    Example: playbill -w ml_100k ensemble everywhere
    """
    from playbill.cli.progress import Stages
    from playbill.continual.ensembles.members import UnchangedEnsemble

    with Stages() as stages:
        outcome = selection.project.ensemble(name, definition=definition, again=again, progress=stages)
    if isinstance(outcome, UnchangedEnsemble):
        click.echo(f"nothing to do: {outcome.reason}")
        if as_json:
            click.echo(json.dumps({"status": "nothing to do", **asdict(outcome)}))
        return
    _show(outcome)
    if as_json:
        click.echo(json.dumps(outcome_json(outcome)))


def _show(outcome: EnsembleOutcome) -> None:
    from playbill.cli.console import Console
    from playbill.evaluation.rendering.grids import summary_table

    console = Console()
    console.print(summary_table(list(outcome.evaluation.reports.values())))
    console.print(gains_table(outcome))
    if not outcome.gate.weights.is_empty():
        for canvas in outcome.gate.weights["canvas"].unique(maintain_order=True).to_list():
            console.print(shares_table(outcome, canvas))
    for one in outcome.folded:
        console.print(f"{one.role} ({one.version}): {one.explained:.0%} of its scores are explained when folded")
    for note in outcome.notes:
        console.print(f"note: {note}")
    cost = outcome.cost
    console.print(
        f"One request is scored in {cost.ensemble_ms:.1f} ms, by {outcome.base} alone in {cost.base_ms:.1f} ms"
    )
    console.print(f"{outcome.model} version {outcome.version}, {outcome.seconds:.0f} s in all")
    console.print(f"Next: playbill promote {outcome.model}:{outcome.version}, or set the alias champion in MLflow")


def gains_table(outcome: EnsembleOutcome) -> Table:
    """Return what the ensemble adds on each canvas and in each country, on members that did not choose its weights."""
    from rich.table import Table

    table = Table("where", title=f"What the ensemble adds to {outcome.base} on the window it was learnt from")
    for column in ("requests", f"{outcome.base}, ndcg@10", "added", "95 % interval", "answers there", "best alone"):
        table.add_column(column, justify="right")
    for one in outcome.gate.gains:
        who = outcome.model if one.kept else outcome.base
        best = outcome.base if one.best == "base" else one.best
        interval = f"{one.gain.low:+.4f} to {one.gain.high:+.4f}"
        values = (f"{one.requests:,}", f"{one.base:.4f}", f"{one.gain.value:+.4f}", interval)
        table.add_row(
            f"{one.slice} {one.group}", *values, "" if one.group == "all" else who, f"{best} {one.best_value:.4f}"
        )
    return table


def shares_table(outcome: EnsembleOutcome, canvas: str) -> Table:
    """Return each member's share of the score in each country, the largest country first."""
    import polars as pl
    from rich.table import Table

    own = outcome.gate.weights.filter(pl.col("canvas") == canvas)
    members = own["member"].unique(maintain_order=True).to_list()
    table = Table("country", title=f"Shares of the score on {canvas}")
    for name in ("requests", *members):
        table.add_column(outcome.base if name == "base" else name, justify="right")
    for country, requests in _countries(own):
        shares = dict(own.filter(pl.col("country") == country).select("member", "share").iter_rows())
        table.add_row(country, f"{requests:,}", *(f"{shares[name]:.0%}" for name in members))
    return table


def _countries(weights: pl.DataFrame) -> list[tuple[str, int]]:
    sizes = weights.unique("country").sort("requests", "country", descending=[True, False])
    return list(sizes.select("country", "requests").iter_rows())


def outcome_json(outcome: EnsembleOutcome) -> dict[str, Any]:
    """Return what a script would read."""
    return {
        "model": outcome.model,
        "version": outcome.version,
        "run_id": outcome.run_id,
        "digest": outcome.digest,
        "protocol": outcome.protocol,
        "base": outcome.base,
        "members": outcome.members,
        "folded": [asdict(one) for one in outcome.folded],
        "gains": [asdict(one) | {"gain": one.gain._asdict()} for one in outcome.gate.gains],
        "weights": outcome.gate.weights.to_dicts(),
        "base_request_ms": outcome.cost.base_ms,
        "request_ms": outcome.cost.ensemble_ms,
        "request_ratio": outcome.cost.ratio,
        "notes": list(outcome.notes),
        "total_seconds": round(outcome.seconds, 2),
        "canvases": {
            canvas: {name: interval.value for name, interval in report.result.metrics.items()}
            for canvas, report in outcome.evaluation.reports.items()
        },
    }
