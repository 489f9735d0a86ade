"""What is wrong with a log for the labels asked of it: columns it lacks, events it has twice, nothing positive."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

import polars as pl

from playbill.definitions.specs import LabelSpec
from playbill.definitions.specs.base import format_duration
from playbill.definitions.specs.where import (
    Either,
    Every,
    Expression,
    Membership,
    WhereComparison,
    column_names,
    parse_where,
)
from playbill.errors import DataError, Problem
from playbill.labels.rules import LEVEL_COLUMNS, Rule
from playbill.tables.frames import utc_literal


def require_columns(
    labels: Sequence[LabelSpec], rules: Sequence[Rule], always: Collection[str], present: Collection[str]
) -> None:
    """Check that a log has every column that labels read.

    Raises:
        DataError: It has not, or a label's name is given twice; all mistakes are named.
    """
    missing = {name: [] for name in sorted(set(always) - set(present))}  # type: dict[str, list[str]]
    for rule in rules:
        for name in sorted(rule.reads - set(present)):
            missing.setdefault(name, []).append(f"label '{rule.label.name}'")
    for label in (label for label in labels if label.plugin):
        for name in sorted(extractor_inputs(label) - set(present)):
            missing.setdefault(name, []).append(f"label '{label.name}'")
    problems = [
        Problem("interactions", f"column '{name}' is missing", _readers(missing[name])) for name in sorted(missing)
    ]
    names = [label.name for label in labels]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [Problem(f"label {name}", "is given twice") for name in twice]
    if problems:
        raise DataError(_subject(labels), problems)


def require_each_once(events: pl.DataFrame) -> None:
    """Check that no event is there twice: the second would be told as what came after the first.

    Raises:
        DataError: Some are; the first is named.
    """
    ids = events["event_id"]
    if ids.n_unique() == len(ids):
        return
    again = events.filter(ids.is_duplicated())
    first, member = again.row(0, named=True)["event_id"], again["member_id"][0]
    what = f"{again['event_id'].n_unique():,} events are there more than once, first '{first}' of member '{member}'."
    raise DataError("interactions", [Problem("event_id", what, "Keep one row of each.")])


def extractor_inputs(label: LabelSpec) -> set[str]:
    """Return the columns of `interactions` a label's extractor reads beside those every label reads."""
    return {*(label.plugin.inputs if label.plugin else ()), *LEVEL_COLUMNS[label.level]}


def require_positives(
    labels: Sequence[LabelSpec], found: pl.DataFrame, interactions: pl.DataFrame | pl.LazyFrame, as_of: datetime
) -> None:
    """Check that every label has an event with a value over zero.

    Raises:
        DataError: A label has none; each is named with the reason.
    """
    positive = found.select((pl.col(label.name) > 0).any() for label in labels).row(0)
    empty = [label for label, some in zip(labels, positive, strict=True) if not some]
    if empty:
        raise DataError(_subject(labels), why_none_positive(empty, interactions, as_of))


def why_none_positive(
    labels: Sequence[LabelSpec], interactions: pl.DataFrame | pl.LazyFrame, as_of: datetime
) -> list[Problem]:
    """Say of each label without a positive event why that may be: none of its actions, all too young, or no match."""
    moment = utc_literal(as_of)
    log = interactions.lazy().filter(pl.col("event_at") < moment)
    counts = dict(log.group_by("action").len().collect().iter_rows())
    first = log.select(pl.col("event_at").min()).collect().item()
    span = as_of - first if isinstance(first, datetime) else timedelta(0)
    filled = _filled(log)
    return [Problem(f"label {label.name}", *_why(label, counts, span, filled)) for label in labels]


def not_in_log(labels: Sequence[LabelSpec], interactions: pl.DataFrame | pl.LazyFrame) -> dict[str, str]:
    """Return label -> what this log does not have and the label needs: an action, a column, or a canvas.

    The labels have no positive event in the log; what one of several alternatives needs counts as needed.
    """
    log = interactions.lazy()
    actions = set(log.select(pl.col("action").unique()).collect().to_series())
    canvases = set(log.select(pl.col("canvas").unique()).collect().to_series())
    filled = _filled(log)
    return {label.name: what for label in labels if (what := _not_there(label, actions, canvases, filled))}


def _filled(log: pl.LazyFrame) -> dict[str, bool]:
    """Return whether each column of a log has a value."""
    return log.select(pl.all().is_not_null().any()).collect().row(0, named=True)


def _not_there(
    label: LabelSpec, actions: Collection[str], canvases: Collection[str], filled: Mapping[str, bool]
) -> str:
    if missing := [names for names in _actions(label) if not set(names) & set(actions)]:
        return f"no event {' or '.join(missing[0])}"
    if empty := _empty_columns(label, filled):
        return f"column {empty[0]} is empty"
    where = _condition(label)
    wanted = _canvases(where) if where else set()
    return f"no event on canvas {' or '.join(sorted(wanted))}" if wanted and not wanted & set(canvases) else ""


def _condition(label: LabelSpec) -> Expression | None:
    return parse_where(label.events.where) if label.events and label.events.where else None


def _empty_columns(label: LabelSpec, filled: Mapping[str, bool]) -> list[str]:
    """Return the columns that a label reads and that have no value in the log."""
    where = _condition(label)
    columns = {*(column_names(where) if where else ()), *LEVEL_COLUMNS[label.level]} & filled.keys()
    return sorted(name for name in columns if not filled[name])


def _actions(label: LabelSpec) -> list[tuple[str, ...]]:
    """Return groups of actions; a log without any action of one of them has no positive event of the label."""
    if label.events is not None:
        return [label.events.action]
    plugin, options = label.plugin, label.extractor_options()
    groups = [plugin.actions if plugin else (), getattr(options, "actions", ())]
    return [tuple(group) for group in groups if group]


def _canvases(where: Expression) -> set[str]:
    """Return the canvases that a condition asks for, where it does."""
    match where:
        case WhereComparison("canvas", "=", str(value)):
            return {value}
        case Membership("canvas", values, False):
            return {str(value) for value in values}
        case Every(items) | Either(items):
            return set().union(*map(_canvases, items))
        case _:
            return set()


def _why(label: LabelSpec, counts: dict[str, int], span: timedelta, filled: Mapping[str, bool]) -> tuple[str, str]:
    """Say why no event is positive: no such action, all too young, an empty column, or none that matches."""
    if label.matures_after > span and counts:
        what = f"the log spans {_rounded(span)}, so no event is old enough (matures_after: {_age(label)})."
        return what, "Take a longer log, or give the label a shorter window."
    if label.events is None:
        return f"its extractor '{label.extractor}' found no positive event.", ""
    actions = " or ".join(f"'{action}'" for action in label.events.action)
    total = sum(counts.get(action, 0) for action in label.events.action)
    if total == 0:
        return f"the log has no {actions} event.", f"Actions in it: {', '.join(sorted(counts)) or 'none'}."
    if empty := _empty_columns(label, filled):
        what = f"column '{empty[0]}' of the log is empty, so 'where: {label.events.where}' matches no event."
        return what, f"Map '{empty[0]}' at the ingest, to a constant where one value is true of every event."
    where = f" where: {label.events.where}" if label.events.where else ""
    what = f"none of {total} {actions} events matches and is mature."
    return what, f"Check{where} matures_after: {_age(label)}."


def _age(label: LabelSpec) -> str:
    return format_duration(label.matures_after)


def _rounded(span: timedelta) -> str:
    return f"{span / timedelta(days=1):.1f} days"


def _readers(readers: Sequence[str]) -> str:
    return f"(read by {', '.join(readers)})" if readers else ""


def _subject(labels: Sequence[LabelSpec]) -> str:
    return f"label {labels[0].name}" if len(labels) == 1 else "labels"
