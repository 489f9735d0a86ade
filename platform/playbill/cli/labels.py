"""`playbill labels`: what labels mean, what they say of the event log, and their values for Feast."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    import polars as pl

    from playbill.definitions.specs import LabelSpec
    from playbill.definitions.zoo import Zoo

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
    from playbill.cli.label_tables import show_descriptions
    from playbill.definitions.zoo import open_zoo
    from playbill.labels import describe

    zoo = open_zoo(selection.project.model_zoo)
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
    from playbill.cli.label_tables import show_summaries
    from playbill.definitions.zoo import open_zoo
    from playbill.labels import summarise

    wanted = _wanted(open_zoo(selection.project.model_zoo), names)
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
    from playbill.cli.label_tables import show_published
    from playbill.definitions.zoo import open_zoo
    from playbill.features import FeatureDoor, LabelValues
    from playbill.labels import labeler, published_rows

    project = selection.project
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
    project = selection.project
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
