"""What `playbill labels` prints: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table

from playbill.cli.console import Console
from playbill.definitions.specs.base import format_duration

_WIDE = 120
"""Columns of a terminal on which a label's window, age and days have room beside its counts."""

if TYPE_CHECKING:
    from playbill.features import PublishedLabel
    from playbill.labels import LabelDescription, LabelSummary


def show_descriptions(found: Sequence[tuple[LabelDescription, Sequence[str]]], as_json: bool) -> None:
    """Print what labels mean, and who uses each."""
    if as_json:
        click.echo(json.dumps({"labels": [{**asdict(label), "used_by": list(users)} for label, users in found]}))
        return
    for label, users in found:
        window = f", window {label.window}" if label.window else ""
        click.echo(f"{label.name} version {label.version}: of a {label.level}{window}")
        if label.about:
            click.echo(f"  {label.about}")
        one = f"{label.ones}; final {label.ones_told}"
        zero = f"{label.zeros}; final {label.zeros_told}" if label.zeros_told else label.zeros
        lines = {"1": one, "0": zero} if one != zero else {"value": one}
        for name, line in (lines | {"users": ", ".join(users) or "none"}).items():
            click.echo(f"  {name:<6} {line}")
        click.echo()


def show_summaries(
    workspace: str,
    as_of: datetime,
    events: int,
    seconds: float,
    found: Sequence[LabelSummary],
    silent: Sequence[str],
    impossible: Mapping[str, str],
    as_json: bool,
) -> None:
    """Print what labels say of a log, and why some say nothing of it; those it cannot have are only counted."""
    if as_json:
        head: dict[str, Any] = {
            "workspace": workspace,
            "as_of": as_of.isoformat(),
            "events": events,
            "seconds": round(seconds, 3),
        }
        head["notes"] = list(silent)
        head["left_out"] = dict(impossible)
        click.echo(json.dumps({**head, "labels": [_as_json(label) for label in found]}))
        return
    console = Console()
    wide = console.width >= _WIDE
    title = f"Labels of {workspace} as of {as_of:%Y-%m-%d %H:%M:%S} UTC, {events:,} events"
    table = Table("label", title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("of a", "window", "final after") if wide else ():
        table.add_column(column)
    for column in ("ones", "zeros", "rate", "too young", "no value"):
        table.add_column(column, justify="right")
    for column in ("first", "last") if wide else ():
        table.add_column(column)
    for label in (label for label in found if label.name not in impossible):
        meaning = (label.level, duration(label.window), _ages(label))
        days = (str(day or "") for day in (label.first, label.last))
        # The extractor's own version has no room; `labels explain` and --json have it.
        name = f"{label.name}:{label.version.split()[0]}"
        table.add_row(name, *(meaning if wide else ()), *_counts(label), *(days if wide else ()))
    console.print(table)
    _notes(silent)
    if impossible:
        counted = (
            f"{len(impossible)} of {len(found)} labels need an action, a column or a canvas that this log does not have"
        )
        click.echo(f"{counted} (`labels show --label NAME` says which): {', '.join(impossible)}")


def show_published(
    workspace: str, as_of: datetime, done: Sequence[PublishedLabel], silent: Sequence[str], as_json: bool
) -> None:
    """Print what was published, and how it is read."""
    if as_json:
        rows = {label.name: {"view": label.view, "labeler": label.labeler, "rows": label.rows} for label in done}
        head = {"workspace": workspace, "as_of": as_of.isoformat(), "labels": rows}
        click.echo(json.dumps(head | {"notes": list(silent)}))
        return
    title = f"Published as of {as_of:%Y-%m-%d %H:%M:%S} UTC"
    table = Table("label", "view", title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("values", justify="right")
    for label in done:
        table.add_row(label.labeler, label.view, f"{label.rows:,}")
    Console().print(table)
    _notes(silent)
    click.echo(str(done[0].path.parent))


def _notes(silent: Sequence[str]) -> None:
    for note in silent:
        click.echo(f"note: {note}")


def duration(value: timedelta | None) -> str:
    """Write a duration, nothing for none."""
    return "" if value is None else format_duration(value)


def _counts(label: LabelSummary) -> tuple[str, ...]:
    rate = "" if label.rate is None else f"{label.rate:.1%}"
    return (
        f"{label.positives:,}",
        f"{label.zeros:,}",
        rate,
        f"{label.too_young:,}",
        f"{label.unlabelled - label.too_young:,}",
    )


def _ages(label: LabelSummary) -> str:
    ones, zeros = (format_duration(age) if age else "none" for age in (label.matures_after, label.zeros_mature_after))
    return ones if ones == zeros else f"{ones}, zeros {zeros}"


def _as_json(label: LabelSummary) -> dict[str, Any]:
    spoken = {name: value for name, value in asdict(label).items() if name != "name"}
    for name in ("window", "matures_after", "zeros_mature_after"):
        spoken[name] = duration(spoken[name]) or None
    for name in ("first", "last"):
        spoken[name] = spoken[name].isoformat() if spoken[name] else None
    return {"label": label.name, **spoken, "rate": label.rate}
