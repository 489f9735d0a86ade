"""JSON schemas of the kinds, for editors, and the key-by-key reference of the zoo, both written from the specs."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, WithJsonSchema
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
from playbill.definitions.specs.base import CANVAS_REFERENCE_PATTERN, REFERENCE_PATTERN, UNFINISHED, format_duration
from playbill.definitions.specs.head import NEGATIVES
from playbill.definitions.specs.model import TEXT_ENCODERS
from playbill.definitions.zoo.messages import bare, inner_spec
from playbill.files import write_text
from playbill.schema import DERIVED_COLUMNS, INTERACTIONS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
UMBRELLA = "definition.schema.json"
FOLDER = "schemas"
"""Where a zoo keeps its schemas, so that its files can name them."""

_CHOICES = {
    "fallback": FALLBACKS,
    "policy": FALLBACKS,
    "loss": LOSSES,
    "baselines": BASELINES,
    "context": CONTEXTS,
}
_OPTIONS = {
    "TrunkOptions": ("type", TRUNKS),
    "TextOptions": ("type", TEXT_ENCODERS),
    "SharingOptions": ("type", SHARINGS),
    "BalanceOptions": ("type", BALANCERS),
    "NegativesOptions": ("policy", NEGATIVES),
}
"""Specs whose options depend on a registered name: the key of the name, and where it is registered."""
EXTENDS = {
    "type": "string",
    "pattern": REFERENCE_PATTERN,
    "description": "A definition of the same kind this one starts from: mappings merge, all else is replaced, "
    "null takes a key away.",
}


def file_name(kind: str) -> str:
    """Return the file of one kind's schema."""
    return f"{kind.lower()}.schema.json"


def first_line(kind: str, file: Path, model_zoo: Path) -> str:
    """Return the comment from which editors learn the schema of a definition's YAML file."""
    way = os.path.relpath(model_zoo / FOLDER / file_name(kind), file.parent).replace(os.sep, "/")
    return f"# yaml-language-server: $schema={way}"


def kind_schema(kind: str) -> dict[str, Any]:
    """Return the JSON schema of one kind, `extends` and registered names included."""
    schema = KINDS[kind].model_json_schema(by_alias=True)
    for name, part in [("", schema), *schema.get("$defs", {}).items()]:
        if name in _OPTIONS:
            key, registry = _OPTIONS[name]
            part["properties"][key]["enum"] = list(registry.names())
            part["additionalProperties"] = True
        else:
            _offer_names(part.get("properties", {}))
    extends = EXTENDS | ({"pattern": CANVAS_REFERENCE_PATTERN} if kind == "Canvas" else {})
    properties = {"kind": {"const": kind, "description": "What this file defines."}, "extends": extends}
    schema["properties"] = schema["properties"] | properties
    identity = ["kind", "name", "version"]
    rest = [key for key in schema.pop("required", []) if key not in identity]
    schema["required"] = identity
    if rest:
        schema["anyOf"] = [{"required": rest}, {"required": ["extends"]}]
    return {"$schema": DRAFT, "$id": file_name(kind), **schema}


def _offer_names(properties: dict[str, Any]) -> None:
    for key, registry in _CHOICES.items():
        if key not in properties:
            continue
        part = properties[key].get("items", properties[key])
        for choice in part.get("anyOf", [part]):
            if choice.get("type") == "string":
                choice["enum"] = list(registry.names())


def umbrella_schema() -> dict[str, Any]:
    """Return the schema of any definition: its `kind` picks the schema that counts."""
    branches = [{"if": {"properties": {"kind": {"const": kind}}}, "then": {"$ref": file_name(kind)}} for kind in KINDS]
    return {
        "$schema": DRAFT,
        "$id": UMBRELLA,
        "title": "Playbill definition",
        "type": "object",
        "required": ["kind", "name", "version"],
        "properties": {"kind": {"enum": list(KINDS), "description": "What this file defines."}},
        "allOf": branches,
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write one schema per kind and the umbrella over them, and return the files."""
    schemas = {file_name(kind): kind_schema(kind) for kind in KINDS} | {UMBRELLA: umbrella_schema()}
    for name, schema in schemas.items():
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        write_text(folder / name, text, "the schema")
    return [folder / name for name in schemas]


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
        if key in ("kind", *_COMMON) or UNFINISHED in field.metadata:
            continue
        inner, step = inner_spec(field.annotation)
        description = field.description or (_sentence(inner) if inner else "")
        yield f"| `{key}` | {_default(field)} | {_cell(description)}{_choices(field)} |"
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
    if any(isinstance(item, WithJsonSchema) for item in field.metadata):
        return ""
    values = bare(field.annotation)
    several = get_origin(values) is tuple
    if several:
        values = bare(get_args(values)[0])
    names = [choice for choice in get_args(values) if isinstance(choice, str)]
    lead = "Any of" if several else "One of"
    return f" {lead} {', '.join(f'`{name}`' for name in names)}." if len(names) > 1 else ""


def _names() -> Iterator[str]:
    yield from ("### Registered names", "", "| what | names | entry-point group |", "|---|---|---|")
    for registry in (TRUNKS, TEXT_ENCODERS, SHARINGS, LOSSES, BALANCERS, CONTEXTS, FALLBACKS, BASELINES, EXTRACTORS):
        names = ", ".join(f"`{name}`" for name in registry.names())
        yield f"| {registry.kind} | {names} | `{registry.group}` |"
    yield ""


def _columns() -> Iterator[str]:
    own = ", ".join(f"`{name}`" for name in INTERACTIONS.names())
    yield from ("### Columns of `where`", "", f"Of the event: {own}.", "", "| derived | meaning |", "|---|---|")
    yield from (f"| `{name}` | {_cell(meaning)} |" for name, meaning in DERIVED_COLUMNS.items())
