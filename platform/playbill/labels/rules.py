"""Labels by rule (`from:`): the columns they read, and their values for a block of members' events."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, reduce
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any

import numpy as np
import polars as pl

from playbill.arrays import Bools
from playbill.definitions.specs import LabelSpec, parse_where
from playbill.definitions.specs.label import EventRule
from playbill.definitions.specs.where import (
    ColumnName,
    Either,
    Every,
    Expression,
    Membership,
    Not,
    WhereComparison,
    column_names,
)
from playbill.labels.blocks import Block, spans
from playbill.labels.future_columns import needed_columns, outcome_column
from playbill.labels.history_columns import before_column
from playbill.schema import BEFORE_COLUMNS, DERIVED_COLUMNS, OUTCOME_COLUMNS

LEVEL_COLUMNS = {"title": (), "row": ("request_id", "row_id"), "page": ("request_id",)}
"""Level of a label -> columns that name what it is about."""

IMPRESSION = "impression"
EVER = timedelta(days=36_500)


@dataclass(frozen=True)
class Rule:
    """A label by rule, taken apart."""

    label: LabelSpec

    @property
    def events(self) -> EventRule:
        """The events with value 1."""
        assert self.label.events is not None
        return self.label.events

    @cached_property
    def wheres(self) -> tuple[str, ...]:
        """Its conditions: of the ones, and of the zeros."""
        return tuple(text for text in (self.events.where, self.label.negatives.where) if text)

    @cached_property
    def columns(self) -> frozenset[str]:
        """Every column its conditions name."""
        return frozenset().union(*(column_names(parse_where(text)) for text in self.wheres))

    @cached_property
    def reads(self) -> frozenset[str]:
        """Columns of `interactions` it cannot do without, beside those every label reads."""
        derived = self.columns & DERIVED_COLUMNS.keys()
        behind = [column for name in derived & OUTCOME_COLUMNS.keys() for column in needed_columns(name)]
        behind += ["country"] if "title_age_days" in derived else []
        return (self.columns - derived).union(behind, LEVEL_COLUMNS[self.label.level])

    @property
    def shown_window(self) -> timedelta:
        """How long after an impression a play of it counts against `shown_not_played`."""
        return self.label.negatives.window or self.label.window or EVER

    @cached_property
    def actions(self) -> tuple[str, ...]:
        """Actions of the events it speaks of."""
        negatives = self.label.negatives
        shown = (IMPRESSION,) if negatives.shown_not_played else ()
        return tuple(dict.fromkeys((*self.events.action, *negatives.actions, *shown)))


def rule_values(rules: Sequence[Rule], block: Block, tables: Mapping[str, pl.DataFrame | None]) -> dict[str, pl.Series]:
    """Return label -> [n] float32 for n events, whatever their age; null where the label does not speak of the event.

    Derived columns are made once for all labels that read them.

    Raises:
        StateError: A derived column needs a table that was not given.
    """
    derived, shown = _derived(rules, block, tables), _shown_not_played(rules, block)
    frame = block.frame.with_columns(derived.values())
    found = frame.select(_value(rule, block, frame.schema, derived, shown).alias(rule.label.name) for rule in rules)
    return {rule.label.name: _first_of_each(rule, block, found[rule.label.name]) for rule in rules}


_Key = tuple[str, timedelta | None]


def _key(name: str, label: LabelSpec) -> _Key:
    return name, label.window if name in OUTCOME_COLUMNS else None


def _derived(rules: Sequence[Rule], block: Block, tables: Mapping[str, pl.DataFrame | None]) -> dict[_Key, pl.Series]:
    """Make each derived column once for each window, for the events of the labels that read it."""
    requested: dict[_Key, Bools] = {}
    for rule in rules:
        events = block.are_actions(rule.actions)
        for name in sorted(rule.columns & DERIVED_COLUMNS.keys()):
            key = _key(name, rule.label)
            requested[key] = requested[key] | events if key in requested else events
    return {key: _column(key, block, events, tables) for key, events in requested.items()}


def _column(key: _Key, block: Block, requested: Bools, tables: Mapping[str, pl.DataFrame | None]) -> pl.Series:
    name, window = key
    if name in BEFORE_COLUMNS:
        return before_column(name, block, requested, tables)
    assert window is not None
    return outcome_column(name, block, window, requested)


def _value(
    rule: Rule,
    block: Block,
    schema: pl.Schema,
    derived: Mapping[_Key, pl.Series],
    shown: Mapping[timedelta, pl.Series],
) -> pl.Expr:
    """Give 1 where the rule holds, 0 where the negatives hold, and null elsewhere."""
    called = {name: derived[key].name for name in rule.columns if (key := _key(name, rule.label)) in derived}

    def holds(where: str | None) -> pl.Expr:
        return pl.lit(True) if where is None else compile_where(parse_where(where), schema, called)

    one, negatives = holds(rule.events.where), rule.label.negatives
    positive = pl.lit(pl.Series(block.are_actions(rule.events.action))) & one
    own = tuple(action for action in negatives.actions if action in rule.events.action)
    others = tuple(action for action in negatives.actions if action not in rule.events.action)
    zero = pl.lit(pl.Series(block.are_actions(others)))
    if own:
        zero |= pl.lit(pl.Series(block.are_actions(own))) & ~one
    if negatives.shown_not_played and shown:
        zero |= pl.lit(shown[rule.shown_window])
    zero &= holds(negatives.where)
    return pl.when(positive).then(1.0).when(zero).then(0.0).cast(pl.Float32)


def _shown_not_played(rules: Sequence[Rule], block: Block) -> dict[timedelta, pl.Series]:
    """Say which events are impressions of a known request whose title was not played from it, for each window.

    A log without requests has none.
    """
    windows = {rule.shown_window for rule in rules if rule.label.negatives.shown_not_played}
    if not windows or "request_id" not in block.frame.columns:
        return {}
    shown = block.is_action(IMPRESSION) & block.known("request_id") & block.known("title_id")
    requested = np.nonzero(shown)[0]
    groups = block.groups("request_id", "title_id")
    values = {}
    for window in windows:
        found = spans(block, groups, block.is_action("play"), window, requested)
        unplayed = shown.copy()
        unplayed[requested] = found.end <= found.begin
        values[window] = pl.Series(unplayed)
    return values


def _first_of_each(rule: Rule, block: Block, values: pl.Series) -> pl.Series:
    """Keep the value of the first event of each row or page that the label speaks of."""
    columns = LEVEL_COLUMNS[rule.label.level]
    if not columns:
        return values
    spoken = block.are_actions(rule.actions)
    again = block.groups(*columns).before(spoken) > 0
    named = np.logical_and.reduce([block.known(column) for column in columns])
    return pl.select(pl.when(pl.Series(~(again & named))).then(values)).to_series()


def reads_of(rules: Collection[Rule]) -> frozenset[str]:
    """Return every column of `interactions` that some rules cannot do without."""
    return frozenset().union(*(rule.reads for rule in rules))


_OPERATORS: dict[str, Any] = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def compile_where(expression: Expression, schema: pl.Schema, names: Mapping[str, str] | None = None) -> pl.Expr:
    """Turn a parsed `where` into a boolean polars expression of three values: true, false and null.

    A comparison with a null or NaN stays null, so it never matches. `names` are what the frame calls a column that the
    expression names otherwise.
    """
    called = names or {}

    def column(name: str) -> pl.Expr:
        return _where_column(called.get(name, name), schema)

    match expression:
        case WhereComparison(name, operator, value):
            other = column(value.name) if isinstance(value, ColumnName) else pl.lit(value)
            compared: pl.Expr = _OPERATORS[operator](column(name), other)
            return compared
        case Membership(name, values, excluded):
            either = reduce(or_, (column(name) == pl.lit(value) for value in values))
            return ~either if excluded else either
        case Not(item):
            return ~compile_where(item, schema, names)
        case Every(items):
            return reduce(and_, (compile_where(item, schema, names) for item in items))
        case Either(items):
            return reduce(or_, (compile_where(item, schema, names) for item in items))


def _where_column(name: str, schema: pl.Schema) -> pl.Expr:
    dtype = schema[name]
    if dtype.is_float():
        return pl.col(name).fill_nan(None)
    return pl.col(name).cast(pl.String) if isinstance(dtype, pl.Categorical | pl.Enum) else pl.col(name)
