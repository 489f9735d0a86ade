"""Values that definitions name against those that a workspace's data has: genres, languages, canvases and the like.

A value that the data does not have, and that is nearly one that it has, is a mistake; any other is only not there yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from playbill.definitions.specs import CanvasSpec, LabelSpec, RowSpec, parse_where
from playbill.definitions.specs.where import Either, Every, Expression, Membership, Not, WhereComparison
from playbill.definitions.zoo.parsing import Checked, DefinitionIndex, place_of
from playbill.definitions.zoo.yaml_tree import problem
from playbill.errors import Problem, nearest

Path = tuple[str | int, ...]
RULES = ("kind", "genres", "original_language", "origin", "characters")
"""Candidate rules whose values are those of the data."""
COLUMNS = ("action", "canvas", "country", "device", "language", "row_id")
"""Columns of a `where` whose values are, beside actions of labels."""


def check_values(index: DefinitionIndex, known: Mapping[str, Collection[str]]) -> tuple[list[Problem], list[Problem]]:
    """Look up every value that definitions name among those that the data has, by rule or column.

    Nothing is checked of a rule or column that is not in `known`. Returns mistakes, each with the nearest value that
    the data has, and notes of values that it does not have.
    """
    mistakes, notes = [], []
    for checked in index.all_checked():
        for path, name, value in _values(checked):
            there = known.get(name)
            if there is None or value in there:
                continue
            place, close = place_of(checked, path), nearest(value, there)
            what = f"the data has no {name} '{value}'"
            if close is not None:
                mistakes.append(problem(place, path, what, f"Did you mean '{close}'?"))
            else:
                notes.append(problem(place, path, what))
    return mistakes, notes


def _values(checked: Checked) -> Iterator[tuple[Path, str, str]]:
    match checked.spec:
        case CanvasSpec(candidates=rules) | RowSpec(candidates=rules):
            yield from _of_rules(rules, ("candidates",))
            for place, hours in enumerate(rules.hours):
                yield from _of_rules(hours, ("candidates", "hours", place))
        case LabelSpec() as label:
            yield from _of_label(label)


def _of_rules(rules: Any, path: Path) -> Iterator[tuple[Path, str, str]]:
    for name in RULES:
        for place, value in enumerate(getattr(rules, name) or ()):
            yield (*path, name, place), name, value


def _of_label(label: LabelSpec) -> Iterator[tuple[Path, str, str]]:
    if label.events is not None:
        for place, action in enumerate(label.events.action):
            yield ("from", "action", place), "action", action
    for place, action in enumerate(label.negatives.actions):
        yield ("negatives", "actions", place), "action", action
    for key, where in (("from", label.events and label.events.where), ("negatives", label.negatives.where)):
        for column, value in _of_where(parse_where(where)) if where else ():
            if column in COLUMNS:
                yield (key, "where"), column, value


def _of_where(expression: Expression) -> Iterator[tuple[str, str]]:
    match expression:
        case WhereComparison(column, _, str(value)):
            yield column, value
        case Membership(column, values):
            yield from ((column, value) for value in values if isinstance(value, str))
        case Not(item):
            yield from _of_where(item)
        case Every(items) | Either(items):
            for item in items:
                yield from _of_where(item)
