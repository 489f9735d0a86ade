"""`playbill labels`: what labels mean, what they say of the event log, and their values for Feast.

What `playbill labels` prints: tables for people, one JSON object for programs.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table

from playbill.cli.console import Console
from playbill.cli.main import Selection
from playbill.definitions.specs.base import format_duration

if TYPE_CHECKING:
    import polars as pl

    from playbill.definitions.specs import LabelSpec
    from playbill.definitions.zoo import Zoo
    from playbill.features import PublishedLabel
    from playbill.labels import LabelDescription, LabelSummary


_LABEL = click.option(
    "--label", "names", multiple=True, metavar="LABEL", help="Which labels (default: all). Repeatable."
)
_AS_OF = click.option("--as-of", metavar="MOMENT", help="What is known then (default: the workspace's clock).")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")


@click.group("labels")
def labels() -> None:
    """Say what labels mean, label the event log, and publish the values.

    Example: playbill -w ml_100k labels show
    """


@labels.command("explain")
@_LABEL
@_JSON
@click.pass_obj
def explain(selection: Selection, names: Sequence[str], as_json: bool) -> None:
    """Say in words what each label means, how long it waits, and which models and rewards use it.

    Example: playbill labels explain --label completion
    """
    from playbill.cli.labels import show_descriptions
    from playbill.definitions.zoo import open_zoo
    from playbill.labels import describe

    zoo = open_zoo(selection.folder.model_zoo)
    show_descriptions([(describe(label), _users(zoo, label)) for label in _wanted(zoo, names)], as_json)


@labels.command("show")
@_LABEL
@_AS_OF
@_JSON
@click.pass_obj
def show(selection: Selection, names: Sequence[str], as_of: str | None, as_json: bool) -> None:
    """Count what every label says of the event log: ones, zeros, events too young, and events without a value.

    Labels that need an action, a column or a canvas that this log does not have are only counted; --label shows them.

    Example: playbill -w ml_100k labels show --label discovery_play
    """
    from playbill.cli.labels import show_summaries
    from playbill.definitions.zoo import open_zoo
    from playbill.labels import summarise

    wanted = _wanted(open_zoo(selection.folder.model_zoo), names)
    telling = _Telling.of(selection, wanted, as_of)
    started = perf_counter()
    found = summarise(wanted, telling.parts(), telling.as_of)
    seconds = perf_counter() - started
    without = {label.name for label in found if not label.positives}
    # A label that is named is shown whatever the log has.
    impossible = {} if names else telling.impossible(without)
    silent = telling.silent(without - impossible.keys())
    show_summaries(selection.workspace.name, telling.as_of, telling.seen, seconds, found, silent, impossible, as_json)


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
    from playbill.cli.labels import show_published
    from playbill.definitions.zoo import open_zoo
    from playbill.features import FeatureDoor, LabelValues
    from playbill.labels import labeler, published_rows

    project = selection.folder
    zoo = open_zoo(project.model_zoo, project.feature_repo)
    wanted = _wanted(zoo, names or _declared(selection, zoo))
    telling = _Telling.of(selection, wanted, as_of)
    values = [LabelValues(label.name, labeler(label), partial(published_rows, label)) for label in wanted]
    door = FeatureDoor(selection.workspace)
    done = door.publish_labels(values, telling.parts(), telling.as_of, keep=bool(names))
    silent = telling.silent({label.name for label in done if not label.rows})
    show_published(selection.workspace.name, telling.as_of, done, silent, as_json)


def _wanted(zoo: Zoo, names: Sequence[str]) -> list[LabelSpec]:
    """Return the labels called `name` or `name:version`, or the newest version of every label.

    Raises:
        UnknownNameError: There is no such label.
        DataError: Two versions of one label are asked for.
    """
    from playbill.definitions.specs import LabelSpec
    from playbill.errors import DataError, Problem

    if not names:
        return list(zoo.labels.values())
    found = [zoo.find("Label", name) for name in dict.fromkeys(names)]
    wanted = {spec.name: spec for spec in found if isinstance(spec, LabelSpec)}
    if twice := sorted({spec.name for spec in found if wanted[spec.name] != spec}):
        raise DataError("--label", [Problem(name, "is given in two versions") for name in twice])
    return list(wanted.values())


def _users(zoo: Zoo, label: LabelSpec) -> list[str]:
    """Return the heads and rewards that name a label."""
    found = []
    for model in zoo.models.values():
        heads = [name for name, head in model.heads.items() if head.label and _is(zoo, head.label, label)]
        found += [f"head {name} of {model.name}" for name in heads]
    rewards = [reward.name for reward in zoo.rewards.values() if any(_is(zoo, term, label) for term in reward.terms)]
    return found + [f"reward {name}" for name in rewards]


def _is(zoo: Zoo, reference: str, label: LabelSpec) -> bool:
    return zoo.find("Label", reference) == label


def _declared(selection: Selection, zoo: Zoo) -> tuple[str, ...]:
    """Return the labels that have a LabelView, as far as feature_repo/ can be read without Feast."""
    from playbill.errors import StateError

    views = zoo.features.views if zoo.features else frozenset()
    if found := tuple(name for name in zoo.labels if f"label_{name}" in views):
        return found
    project = selection.folder
    raise StateError(f"{project.feature_repo} declares no LabelView `label_NAME` of a label in {project.model_zoo}")


@dataclass
class _Telling:
    """Labels told of a workspace's whole log, with a bar."""

    labels: list[LabelSpec]
    log: pl.LazyFrame
    as_of: datetime
    total: int
    availability: pl.DataFrame
    titles: pl.DataFrame
    seen: int = 0

    @classmethod
    def of(cls, selection: Selection, wanted: list[LabelSpec], as_of: str | None) -> _Telling:
        """Open the log; nothing of it is read yet."""
        from playbill.clock import parse_moment
        from playbill.tables import Tables, workspace_clock

        tables = Tables(selection.workspace).require()
        moment = parse_moment(as_of) if as_of else workspace_clock(selection.workspace).now()
        log = tables.published().log(None, None, None)
        total = tables.row_counts()["interactions"]
        return cls(wanted, log, moment, total, tables.availability(), tables.titles())

    def parts(self) -> Iterator[pl.DataFrame]:
        """Yield the labelled log, part after part."""
        from playbill.cli.progress import Stages
        from playbill.labels import label_parts

        with Stages() as stages:
            stages.stage("labelling")
            for part in label_parts(self.labels, self.log, self.as_of, self.availability, self.titles):
                self.seen += part.height
                stages.advance(self.seen, self.total, f"{self.seen:,} of {self.total:,} events")
                yield part

    def impossible(self, names: Container[str]) -> dict[str, str]:
        """Say of some labels what the log does not have and they need, where that is so."""
        from playbill.labels import not_in_log

        return not_in_log([label for label in self.labels if label.name in names], self.log)

    def silent(self, names: Container[str]) -> list[str]:
        """Say of some labels why the log has no positive event of them."""
        from playbill.labels import why_none_positive

        labels = [label for label in self.labels if label.name in names]
        return [str(why) for why in why_none_positive(labels, self.log, self.as_of)] if labels else []


_WIDE = 120
"""Columns of a terminal on which a label's window, age and days have room beside its counts."""


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
        one = f"{label.ones}; final {label.ones_known}"
        zero = f"{label.zeros}; final {label.zeros_known}" if label.zeros_known else label.zeros
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
