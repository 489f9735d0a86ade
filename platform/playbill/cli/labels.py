"""`playbill labels`: what labels say of the event log, and their values for Feast."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    import polars as pl

    from playbill.features import PublishedLabel
    from playbill.labels import LabelSummary
    from playbill.specs import LabelSpec

_LABEL = click.option(
    "--label", "names", multiple=True, metavar="LABEL", help="Which labels (default: all). Repeatable."
)
_AS_OF = click.option("--as-of", metavar="MOMENT", help="What is known then (default: the workspace's clock).")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")


@click.group("labels")
def labels() -> None:
    """Label the event log, look at what labels say, and publish their values.

    Example: playbill -w ml_100k labels show
    """


@labels.command("show")
@_LABEL
@_AS_OF
@_JSON
@click.pass_obj
def show(selection: Selection, names: Sequence[str], as_of: str | None, as_json: bool) -> None:
    """Count what every label says of the event log: ones, zeros, and events it leaves unlabelled.

    Example: playbill -w ml_100k labels show --label discovery_play
    """
    from playbill.labels import summarise

    told = _tell(selection, names, as_of)
    found = summarise(told.labels, told.log, told.values)
    if as_json:
        head = {"workspace": selection.workspace.name, "as_of": told.as_of.isoformat(), "events": told.log.height}
        click.echo(json.dumps({**head, "seconds": told.seconds, "labels": [_as_json(label) for label in found]}))
        return
    _show(selection, told, found)


@labels.command("publish")
@_LABEL
@_AS_OF
@_JSON
@click.pass_obj
def publish(selection: Selection, names: Sequence[str], as_of: str | None, as_json: bool) -> None:
    """Register feature_repo/ and write labels' values where its LabelViews read them: all labels, or none.

    Labels are those with a LabelView in feature_repo/. With --label the others stay as they were published.

    Example: playbill -w ml_100k labels publish
    """
    from rich.console import Console

    from playbill.features import FeatureDoor, LabelValues
    from playbill.labels import labeler, published_rows

    told = _tell(selection, names or _declared(selection), as_of)
    values = [
        LabelValues(label.name, labeler(label), partial(published_rows, label, told.log, told.values[label.name]))
        for label in told.labels
    ]
    with Console(stderr=True).status("publishing ..."):
        done = FeatureDoor(selection.workspace).publish_labels(values, told.as_of, keep=bool(names))
    _show_published(selection, told, done, as_json)


def _declared(selection: Selection) -> tuple[str, ...]:
    """Return the labels that have a LabelView, as far as feature_repo/ can be read without Feast."""
    from playbill.errors import StateError
    from playbill.zoo import load_zoo

    project = selection.project
    zoo = load_zoo(project.model_zoo, project.feature_repo)
    views = zoo.features.views if zoo.features else frozenset()
    if found := tuple(name for name in zoo.labels if f"label_{name}" in views):
        return found
    raise StateError(f"{project.feature_repo} declares no LabelView `label_NAME` of a label in {project.model_zoo}")


@dataclass(frozen=True)
class _Told:
    labels: list[LabelSpec]
    log: pl.DataFrame
    values: pl.DataFrame
    as_of: datetime
    seconds: float


def _tell(selection: Selection, names: Sequence[str], as_of: str | None) -> _Told:
    """Label the workspace's whole log."""
    from rich.console import Console

    from playbill.clock import parse_moment
    from playbill.errors import UnknownNameError
    from playbill.labels import label_columns
    from playbill.tables import Tables, workspace_clock
    from playbill.zoo import load_zoo

    known = load_zoo(selection.project.model_zoo).labels
    for name in names:
        if name not in known:
            raise UnknownNameError("label", name, known)
    wanted = [known[name] for name in names or known]
    moment = parse_moment(as_of) if as_of else workspace_clock(selection.workspace).now()
    tables = Tables(selection.workspace).require()
    with Console(stderr=True).status("labelling ..."):
        log = tables.interactions()
        started = perf_counter()
        values = label_columns(wanted, log, moment, tables.availability(), tables.titles())
        return _Told(wanted, log, values, moment, perf_counter() - started)


def _as_json(label: LabelSummary) -> dict[str, Any]:
    return {
        "label": label.name,
        "version": label.version,
        "level": label.level,
        "window": _duration(label.window),
        "matures_after": _duration(label.matures_after),
        "positives": label.positives,
        "zeros": label.zeros,
        "unlabelled": label.unlabelled,
        "rate": label.rate,
        "first": label.first.isoformat() if label.first else None,
        "last": label.last.isoformat() if label.last else None,
    }


def _duration(value: timedelta | None) -> str | None:
    from playbill.specs.base import format_duration

    return None if value is None else format_duration(value)


def _show(selection: Selection, told: _Told, found: Sequence[LabelSummary]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"Labels of {selection.workspace.name} as of {told.as_of:%Y-%m-%d %H:%M:%S} UTC, {told.log.height:,} events"
    table = Table("label", "version", "level", "window", "matures", title=title)
    for column in ("ones", "zeros", "unlabelled", "rate"):
        table.add_column(column, justify="right")
    table.add_column("first")
    table.add_column("last")
    for label in found:
        rate = "" if label.rate is None else f"{label.rate:.1%}"
        counts = (f"{count:,}" for count in (label.positives, label.zeros, label.unlabelled))
        ages = (_duration(label.window) or "", _duration(label.matures_after) or "")
        days = (str(day or "") for day in (label.first, label.last))
        table.add_row(label.name, label.version, label.level, *ages, *counts, rate, *days)
    Console().print(table)


def _show_published(selection: Selection, told: _Told, done: Sequence[PublishedLabel], as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    if as_json:
        rows = {label.name: {"view": label.view, "labeler": label.labeler, "rows": label.rows} for label in done}
        found = {"workspace": selection.workspace.name, "as_of": told.as_of.isoformat(), "labels": rows}
        click.echo(json.dumps(found))
        return
    table = Table("label", "view", "labeler", title=f"Published as of {told.as_of:%Y-%m-%d %H:%M:%S} UTC")
    table.add_column("values", justify="right")
    for label in done:
        table.add_row(label.name, label.view, label.labeler, f"{label.rows:,}")
    Console().print(table)
    click.echo(str(done[0].path.parent))
