"""Values that definitions name against those that a workspace's data has: genres, languages, canvases and the like.

A value that the data does not have, and that is nearly one that it has, is a mistake; any other is only not there yet.
What that means for a model is said canvas by canvas: which labels have no events, and what ranks it without them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from playbill.definitions.specs import CanvasSpec, LabelSpec, ResolvedModel, RowSpec, parse_where, prune_heads
from playbill.definitions.specs.where import Either, Every, Expression, Membership, Not, WhereComparison
from playbill.definitions.zoo.parsing import Checked, DefinitionIndex, place_of
from playbill.definitions.zoo.yaml_tree import problem
from playbill.errors import Problem, StateError, nearest

Path = tuple[str | int, ...]
Known = Mapping[str, Collection[str]]
RULES = ("kind", "genres", "original_language", "origin", "characters")
"""Candidate rules whose values are those of the data."""
COLUMNS = ("action", "canvas", "country", "device", "language", "row_id")
"""Columns of a `where` whose values are, beside actions of labels."""
UNFILLED = "unfilled"
"""Under which columns of the log without a single value are known."""


class ValueCheck(NamedTuple):
    """What was found of the values that definitions name."""

    mistakes: list[Problem]
    """Values that are nearly one of the data's."""
    notes: list[Problem]
    """Values that the data does not have, in candidate rules of rows and canvases."""
    of_labels: list[Problem]
    """Likewise, in labels."""


def check_values(index: DefinitionIndex, known: Known) -> ValueCheck:
    """Look up every value that definitions name among those that the data has, by rule or column.

    Nothing is checked of a rule or column that is not in `known`.
    """
    found = ValueCheck([], [], [])
    for checked in index.all_checked():
        others = found.of_labels if isinstance(checked.spec, LabelSpec) else found.notes
        for path, name, value in _values(checked):
            place = place_of(checked, path)
            there = known.get(name)
            if name == UNFILLED:
                if value in (there or ()):
                    others.append(problem(place, path, f"no event has a value of '{value}'"))
                continue
            if there is None or value in there:
                continue
            what = f"the data has no {name} '{value}'"
            if (close := nearest(value, there)) is not None:
                found.mistakes.append(problem(place, path, what, f"Did you mean '{close}'?"))
            else:
                others.append(problem(place, path, what))
    return found


@dataclass(frozen=True, slots=True)
class CanvasData:
    """What the data lets a model learn for one of its canvases."""

    model: str
    canvas: str
    labels: tuple[str, ...]
    """Labels of the canvas's heads, of those of its rows, and of its metric."""
    without_events: tuple[str, ...]
    """Those that the data has no event of."""
    ranked_by: tuple[str, ...]
    """Heads and terms that are left to rank it; none where training drops the canvas, or fails."""
    untrainable: str = ""
    """Why the whole model cannot be trained; empty where it can."""

    def outcome(self) -> str:
        """Say what has no events and what follows, for this canvas and all that are like it."""
        count, silent = len(self.without_events), ", ".join(self.without_events)
        what = f"{count} label{' has' if count == 1 else 's have'} no events ({silent})"
        if self.untrainable:
            return f"{what}; {self.model} cannot be trained"
        if not self.ranked_by:
            return f"{what}; {self.model} is trained without this canvas"
        return f"{what}; {self.model} ranks by {', '.join(self.ranked_by)}"


def canvas_data(resolved: ResolvedModel, known: Known) -> list[CanvasData]:
    """Return, canvas by canvas, which labels the data has no events of and what is left, as training would find it.

    A label by an extractor counts as having events: what it finds is known once it has run.
    """
    silent = {name: why for name, label in resolved.labels.items() if (why := _without_events(label, known))}
    gone = {name: f"label {head.label}" for name, head in resolved.model.heads.items() if head.label in silent}
    needed = next((name for name in gone if not resolved.model.heads[name].optional), None)
    left, untrainable = resolved, ""
    if needed is not None:
        untrainable = f"its head '{needed}' is not optional, and {silent[resolved.model.heads[needed].label or '']}"
    elif gone:
        try:
            left = prune_heads(resolved, gone)
        except StateError:
            untrainable = "no head or canvas would be left"
    found = []
    for name in resolved.canvases:
        labels = _labels_of(resolved, name)
        ranked = () if untrainable or name not in left.canvases else tuple(left.canvases[name].blend)
        without = tuple(label for label in labels if label in silent)
        found.append(CanvasData(resolved.model.name, name, labels, without, ranked, untrainable if without else ""))
    return found


def canvas_lines(found: list[CanvasData]) -> list[str]:
    """Return a line for each canvas with a label without events, and one for each model that cannot be trained.

    Canvases of which the same is to say share a line.
    """
    names: dict[str, list[str]] = {}
    for one in found:
        if one.without_events:
            names.setdefault(one.outcome(), []).append(one.canvas)
    models = {one.model: one.untrainable for one in found if one.untrainable}
    return [
        *(f"{', '.join(canvases)}: {outcome}" for outcome, canvases in names.items()),
        *(f"{model} cannot be trained on this log: {why}" for model, why in models.items()),
    ]


def _labels_of(resolved: ResolvedModel, canvas: str) -> tuple[str, ...]:
    spec = resolved.canvases[canvas]
    blends = [spec.blend, *(row.blend or {} for row in resolved.rows.values() if row.canvas == canvas)]
    heads = [resolved.model.heads.get(name) for blend in blends for name in blend]
    labels = [spec.metric, *(head.label for head in heads if head is not None and head.label is not None)]
    return tuple(dict.fromkeys(labels))


def _without_events(label: LabelSpec, known: Known) -> str:
    """Say why the data has no event of a label; nothing where it may have some."""
    if label.events is None:
        return ""
    actions, where = known.get("action"), label.events.where
    if actions is not None and not set(label.events.action) & set(actions):
        return f"the data has no action {' or '.join(map(repr, label.events.action))}"
    if where is None or _possible(parse_where(where), known):
        return ""
    unfilled = [
        name for name, value in _of_where(parse_where(where)) if value is None and name in known.get(UNFILLED, ())
    ]
    return f"no event has a value of '{unfilled[0]}'" if unfilled else f"no event matches `{where}`"


def _possible(expression: Expression, known: Known) -> bool:
    """Say whether an event of the data can match; a null never does."""
    match expression:
        case WhereComparison(column) | Membership(column) if column in known.get(UNFILLED, ()):
            return False
        case WhereComparison(column, "=", str(value)) if column in COLUMNS and column in known:
            return value in known[column]
        case Membership(column, values, False) if column in COLUMNS and column in known:
            return any(value in known[column] for value in values)
        case Every(items):
            return all(_possible(item, known) for item in items)
        case Either(items):
            return any(_possible(item, known) for item in items)
        case _:
            return True


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
            if value is None:
                yield (key, "where"), UNFILLED, column
            elif column in COLUMNS:
                yield (key, "where"), column, value


def _of_where(expression: Expression) -> Iterator[tuple[str, str | None]]:
    """Yield each column that is compared, with None, and then each text that it is compared with."""
    match expression:
        case WhereComparison(column, _, value):
            yield column, None
            if isinstance(value, str):
                yield column, value
        case Membership(column, values):
            yield column, None
            yield from ((column, value) for value in values if isinstance(value, str))
        case Not(item):
            yield from _of_where(item)
        case Every(items) | Either(items):
            for item in items:
                yield from _of_where(item)
