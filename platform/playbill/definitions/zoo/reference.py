"""The key-by-key reference of the zoo, written from the specs so that it cannot go stale."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from playbill.definitions.specs import (
    BALANCERS,
    BASELINES,
    CONTEXTS,
    EXTRACTORS,
    FALLBACKS,
    KINDS,
    LOSSES,
    SHARINGS,
    TRUNKS,
    Definition,
)
from playbill.definitions.specs.base import format_duration
from playbill.definitions.zoo.json_schema import EXTENDS
from playbill.definitions.zoo.messages import bare, inner_spec
from playbill.schema import DERIVED_COLUMNS, INTERACTIONS

BEGIN = "<!-- reference: begin (written by `playbill schema --guide`) -->"
END = "<!-- reference: end -->"

_HEADER = ("| key | default | what it says |", "|---|---|---|")
_COMMON = ("name", "version", "description")


def replace_reference(text: str) -> str:
    """Return a guide with the part between its markers written anew.

    Raises:
        ValueError: The markers are not there.
    """
    pattern = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the markers {BEGIN} and {END} are missing")
    body = f"{BEGIN}\n\n{render_reference()}\n{END}"
    return pattern.sub(lambda _: body, text)


def render_reference() -> str:
    """Return the Markdown of every kind and key, registered name and column."""
    parts = [*_common(), *(part for kind in KINDS for part in _kind(kind))]
    return "\n".join([*parts, *_names(), *_columns()])


def _common() -> Iterator[str]:
    kinds = ", ".join(f"`{kind}`" for kind in KINDS)
    yield from ("### Every file", "", *_HEADER, f"| `kind` | required | What the file defines. One of {kinds}. |")
    for name in _COMMON:
        field = Definition.model_fields[name]
        yield f"| `{name}` | {_default(field)} | {_cell(field.description or '')} |"
    yield from (f"| `extends` | none | {_cell(EXTENDS['description'])} |", "")


def _kind(kind: str) -> Iterator[str]:
    spec = KINDS[kind]
    yield from (f"### {kind}", "", _sentence(spec), "", *_HEADER)
    yield from _rows(spec, "")
    yield ""


def _rows(spec: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in spec.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if key in ("kind", *_COMMON):
            continue
        inner, step = inner_spec(field.annotation)
        said = field.description or (_sentence(inner) if inner else "")
        yield f"| `{key}` | {_default(field)} | {_cell(said)}{_choices(field)} |"
        if inner is not None:
            yield from _rows(inner, f"{key}{step}.")


def _sentence(spec: type[BaseModel]) -> str:
    return inspect.cleandoc(spec.__doc__ or "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    if value is None or value in ((), {}):
        return "none"
    plain = json.loads(json.dumps(value, default=format_duration))
    return f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


def _choices(field: FieldInfo) -> str:
    values = bare(field.annotation)
    several = get_origin(values) is tuple
    if several:
        values = bare(get_args(values)[0])
    names = [choice for choice in get_args(values) if isinstance(choice, str)]
    lead = "Any of" if several else "One of"
    return f" {lead} {', '.join(f'`{name}`' for name in names)}." if len(names) > 1 else ""


def _names() -> Iterator[str]:
    yield from ("### Registered names", "", "| what | names | entry-point group |", "|---|---|---|")
    for registry in (TRUNKS, SHARINGS, LOSSES, BALANCERS, CONTEXTS, FALLBACKS, BASELINES, EXTRACTORS):
        names = ", ".join(f"`{name}`" for name in registry.names())
        yield f"| {registry.kind} | {names} | `{registry.group}` |"
    yield ""


def _columns() -> Iterator[str]:
    own = ", ".join(f"`{name}`" for name in INTERACTIONS.names())
    yield from ("### Columns of `where`", "", f"Of the event: {own}.", "", "| derived | meaning |", "|---|---|")
    yield from (f"| `{name}` | {_cell(meaning)} |" for name, meaning in DERIVED_COLUMNS.items())
