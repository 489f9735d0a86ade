"""A mistake found by pydantic -> a sentence with its place and the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from playbill.definitions.zoo.yaml_tree import SourcePlace, YamlNode, problem
from playbill.errors import Problem, did_you_mean

_QUOTED = re.compile(r"'([^']*)'")
_KEY = "[key]"
_LONGEST_SHOWN = 40
_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number that a computer holds",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
}
"""Types of pydantic's errors -> what should be there."""


def explain(spec: type[BaseModel], root: YamlNode, item: Mapping[str, Any]) -> Problem:
    """Turn one error of `ValidationError.errors()` into a problem with its place."""
    loc: tuple[str | int, ...] = tuple(item["loc"])
    is_key = bool(loc) and loc[-1] == _KEY
    path = tuple(part for part in loc if part != _KEY)
    match item["type"]:
        case "extra_forbidden":
            return _unknown_key(spec, root, path)
        case "missing":
            return problem(root.find(path).place, path, "is missing")
        case "where":
            return _where(root, path, item["ctx"])
        case "literal_error":
            return _literal(root, path, item)
        case "list_type" | "tuple_type":
            what, hint = _not_a_list(item["input"])
        case "dict_type" | "model_type" | "model_attributes_type":
            what, hint = _not_a_mapping(item["input"], keys_at(spec, path))
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            what, hint = f"'{_short(item['input'])}' is out of range", _range(_limits(spec, path) | item["ctx"])
        case _:
            what, hint = _sentence(item)
    return problem(root.key_place(path) if is_key else root.find(path).place, path, what, hint)


def is_consequence(root: YamlNode, item: Mapping[str, Any]) -> bool:
    """Say whether an error only follows from another one: too few items because some had mistakes."""
    if item["type"] != "too_short":
        return False
    return root.find(item["loc"]).broken or len(item["input"]) >= item["ctx"]["min_length"]


def _sentence(item: Mapping[str, Any]) -> tuple[str, str]:
    context = item.get("ctx", {})
    if item["type"] == "too_short":
        return f"needs at least {context['min_length']} of them, has {context['actual_length']}", ""
    if item["type"] == "string_pattern_mismatch":
        what = f"'{item['input']}' is no name"
        return what, "Use lower-case letters, digits and '_', starting with a letter; a reference may end in ':2'."
    if (wanted := _WANTED.get(item["type"])) is not None:
        return f"{_shown(item['input'])} is not {wanted}", ""
    text = str(item["msg"]).removeprefix("Value error, ")
    text = text[:1].lower() + text[1:] if text.startswith("Input ") else text
    if text.startswith("input ") and not isinstance(item["input"], dict | list | tuple):
        text = text.replace("input", f"'{_short(item['input'])}'", 1)
    return text, str(context.get("hint", ""))


def _not_a_list(given: Any) -> tuple[str, str]:
    if isinstance(given, dict):
        return "must be a list, not a mapping", "Write [...], or lines that start with '- '."
    return f"must be a list, not {_shown(given)}", f"Write [{_short(_plain(given))}]."


def _not_a_mapping(given: Any, known: Sequence[str]) -> tuple[str, str]:
    hint = f"Its keys: {', '.join(known)}." if known else "Write {key: value}, or a line 'key: value' for each."
    return f"must be a mapping of keys to values, not {_shown(given)}", hint


def _shown(given: Any) -> str:
    if isinstance(given, dict | list | tuple):
        return "a mapping" if isinstance(given, dict) else "a list"
    return f"'{_short(_plain(given))}'"


def _plain(given: Any) -> str:
    """Write a scalar as YAML does."""
    return (
        {True: "true", False: "false", None: "null"}[given]
        if given is None or given is True or given is False
        else str(given)
    )


def _short(given: Any) -> str:
    text = str(given)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _limits(spec: type[BaseModel], path: Sequence[str | int]) -> dict[str, Any]:
    """Return the bounds of the number at `path`, by pydantic's names: gt, ge, lt, le."""
    found: dict[str, Any] = {}
    for item in _metadata(spec, path):
        for name in ("gt", "ge", "lt", "le"):
            if (bound := getattr(item, name, None)) is not None:
                found[name] = bound
    return found


def _range(limits: Mapping[str, Any]) -> str:
    named = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))
    text = " and ".join(f"{words} {_number(limits[name])}" for name, words in named if name in limits)
    return f"{text[:1].upper()}{text[1:]}."


def _number(value: float) -> str:
    return f"{value:,}".removesuffix(".0")


def _metadata(spec: type[BaseModel], path: Sequence[str | int]) -> Iterator[Any]:
    """Yield what the annotation at `path` says beside the type."""
    current: Any = spec
    for part in path[:-1]:
        current = _step(bare(current), part)
    owner, last = bare(current), path[-1] if path else ""
    if isinstance(owner, type) and issubclass(owner, BaseModel):
        for name, field in owner.model_fields.items():
            if last == (field.alias or name):
                yield from field.metadata
    yield from _of_annotation(_step(owner, last))


def _of_annotation(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        for item in get_args(annotation)[1:]:
            yield from getattr(item, "metadata", (item,))
        yield from _of_annotation(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for item in get_args(annotation):
            yield from _of_annotation(item)


def _unknown_key(spec: type[BaseModel], root: YamlNode, path: tuple[str | int, ...]) -> Problem:
    known = keys_at(spec, path[:-1])
    hint = did_you_mean(str(path[-1]), known, f"Known: {', '.join(known)}.")
    return problem(root.key_place(path), path, f"unknown key '{path[-1]}'", hint)


def _literal(root: YamlNode, path: tuple[str | int, ...], item: Mapping[str, Any]) -> Problem:
    expected = str(item["ctx"]["expected"])
    hint = did_you_mean(str(item["input"]), _QUOTED.findall(expected), f"Expected {expected}.")
    return problem(root.find(path).place, path, f"unknown value '{item['input']}'", hint)


def _where(root: YamlNode, path: tuple[str | int, ...], context: Mapping[str, Any]) -> Problem:
    node = root.find(path)
    place = node.place
    if node.verbatim is not None:
        place = SourcePlace(place.file, node.verbatim.line, node.verbatim.column + context["position"])
    hint = f"{context['hint']}\n{context['pointer']}" if context["hint"] else f"\n{context['pointer']}"
    return problem(place, path, context["message"], hint)


def keys_at(spec: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the keys that the mapping at `path` may have."""
    current: Any = spec
    for part in path:
        current = _step(bare(current), part)
    current = bare(current)
    if not (isinstance(current, type) and issubclass(current, BaseModel)):
        return []
    extends = ["extends"] if current is spec else []
    return sorted([*(field.alias or name for name, field in current.model_fields.items()), *extends])


def _step(current: Any, part: str | int) -> Any:
    if isinstance(current, type) and issubclass(current, BaseModel):
        for name, field in current.model_fields.items():
            if part == (field.alias or name):
                return field.annotation
        return None
    origin, arguments = get_origin(current), get_args(current)
    if origin is dict:
        return arguments[1]
    return arguments[0] if origin in (tuple, list) else None


def inner_spec(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """Return the spec inside an annotation and how a path steps into it: "", ".NAME" or ".0"."""
    annotation = bare(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict:
        return inner_spec(arguments[1])[0], ".NAME"
    if origin in (tuple, list):
        return inner_spec(arguments[0])[0], ".0"
    is_spec = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return (annotation, "") if is_spec else (None, "")


def bare(annotation: Any) -> Any:
    """Strip Annotated and None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return bare(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return bare(next(item for item in get_args(annotation) if item is not type(None)))
    return annotation
