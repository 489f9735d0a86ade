"""The key-by-key reference of the zoo, written from the specs so that it cannot go stale."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from playbill.schema import DERIVED_COLUMNS, INTERACTIONS
from playbill.specs import BASELINES, FALLBACKS, KINDS, LOSSES, TRUNKS
from playbill.zoo.explain import bare, inner_spec

BEGIN = "<!-- reference: begin (written by `playbill schema --guide`) -->"
END = "<!-- reference: end -->"


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
    parts = [part for kind in KINDS for part in _kind(kind)]
    return "\n".join([*parts, *_names(), *_columns()])


def _kind(kind: str) -> Iterator[str]:
    spec = KINDS[kind]
    yield from (f"### {kind}", "", _sentence(spec), "", "| key | default | what it says |", "|---|---|---|")
    yield from _rows(spec, "")
    yield ""


def _rows(spec: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in spec.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if key == "kind":
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
        return ""
    if value is None or value in ((), {}):
        return "none"
    plain = json.loads(json.dumps(value, default=_shown))
    return f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


def _shown(value: Any) -> str:
    from playbill.specs.base import format_duration

    return format_duration(value)


def _choices(field: FieldInfo) -> str:
    values = bare(field.annotation)
    choices = getattr(values, "__args__", ()) if getattr(values, "__origin__", None) is not None else ()
    names = [choice for choice in choices if isinstance(choice, str)]
    return f" One of {', '.join(f'`{name}`' for name in names)}." if len(names) > 1 else ""


def _names() -> Iterator[str]:
    yield from ("### Registered names", "", "| what | names | entry-point group |", "|---|---|---|")
    for registry in (TRUNKS, LOSSES, FALLBACKS, BASELINES):
        names = ", ".join(f"`{name}`" for name in registry.names())
        yield f"| {registry.kind} | {names} | `{registry.group}` |"
    yield from ("| label extractor | outside packages only | `playbill.labels` |", "")


def _columns() -> Iterator[str]:
    own = ", ".join(f"`{name}`" for name in INTERACTIONS.names())
    yield from ("### Columns of `where`", "", f"Of the event: {own}.", "", "| derived | meaning |", "|---|---|")
    yield from (f"| `{name}` | {_cell(meaning)} |" for name, meaning in DERIVED_COLUMNS.items())
