"""JSON schemas of the kinds, for editors: completion, and the specs' docstrings as help."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from playbill.definitions.specs import BALANCERS, BASELINES, CONTEXTS, FALLBACKS, KINDS, LOSSES, SHARINGS, TRUNKS
from playbill.definitions.specs.base import CANVAS_REFERENCE_PATTERN, REFERENCE_PATTERN
from playbill.definitions.specs.plugins import NEGATIVES
from playbill.files import write_text

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
    """Return the comment from which editors learn a file's schema.

    Args:
        kind: Of the definition in it.
        file: The YAML file.
        model_zoo: The folder of the zoo, which holds `schemas/`.
    """
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
