"""What is right in a definition with mistakes, so that its references are checked in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from playbill.definitions.specs import Definition
from playbill.definitions.zoo.yaml_tree import Node

_ROUNDS = 8
_STAND_INS: dict[str, Any] = {
    "name": "absent",
    "version": 1,
    "features": "absent",
    "canvases": ["absent"],
    "heads": {"absent": {"label": "absent", "loss": "softmax"}},
    "blend": {"absent": 1.0},
    "metric": "absent",
    "canvas": "absent",
    "title": {"en": "{genre} {title}"},
    "terms": {"absent": 1.0},
    "members": {"first": "absent", "second": "absent"},
    "gate": ["country"],
}
"""Right values for required keys, so that the rest can be read. Nothing is ever said about them."""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A definition without its mistakes, and the top-level keys these were under."""

    spec: Definition
    mistaken: frozenset[str]
    absent: frozenset[str]


def salvage(spec: type[Definition], node: Node, error: ValidationError) -> Salvaged | None:
    """Leave out what has mistakes until the rest follows the spec, or return None when it never does."""
    data = node.plain()
    mistaken: set[str] = set()
    absent: set[str] = set()
    for _ in range(_ROUNDS):
        paths = [item["loc"] for item in error.errors(include_url=False)]
        if any(not path for path in paths):
            return None
        for path in sorted(paths, key=len, reverse=True):
            _drop(data, [part for part in path if part != "[key]"])
        touched = {str(path[0]) for path in paths}
        mistaken |= touched
        for key in touched - data.keys():
            if key in _STAND_INS and spec.model_fields.get(key, None) is not None:
                data[key] = _STAND_INS[key]
                absent.add(key)
        try:
            return Salvaged(spec.model_validate(data), frozenset(mistaken), frozenset(absent))
        except ValidationError as next_error:
            error = next_error
    return None


def _drop(data: Any, path: Sequence[Any]) -> None:
    """Remove the value at `path`, or the deepest thing on the way to it that exists."""
    parent, last = data, None
    for part in path:
        here = data if last is None else parent[last]
        exists = part in here if isinstance(here, dict) else isinstance(here, list) and part in range(len(here))
        if not exists:
            break
        parent, last = here, part
    if last is None:
        return
    if isinstance(parent, list):
        parent[last] = None
        parent[:] = [item for item in parent if item is not None]
    else:
        del parent[last]
