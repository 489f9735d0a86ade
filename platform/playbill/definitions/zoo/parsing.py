"""Files -> named definitions: their identity, what they extend, and their check against the specs.

Of a definition with mistakes what is right is kept, so that its references are checked in the same run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from playbill.definitions.specs import KINDS, Definition, split_reference
from playbill.definitions.specs.base import CANVAS_NAME_PATTERN
from playbill.definitions.zoo.messages import explain, is_consequence
from playbill.definitions.zoo.yaml_tree import SourcePlace, YamlNode, problem, read_yaml
from playbill.errors import Problem, did_you_mean

_IDENTITY = ("kind", "name", "version")
_NAME_LINE = re.compile(r"^name:\s*['\"]?([^'\"#\s]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class WrittenDefinition:
    """A definition as written in one file, before it is checked."""

    kind: str
    name: str
    version: int
    node: YamlNode

    @property
    def label(self) -> str:
        """What messages call it, such as `Canvas home:1`."""
        return f"{self.kind} {self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class Checked:
    """A definition that follows its spec, with the tree it came from."""

    spec: Definition
    node: YamlNode
    mistaken: frozenset[str] = frozenset()
    """Top-level keys with mistakes in them; the spec says less about these than the file does."""
    absent: frozenset[str] = frozenset()
    """Top-level keys of which nothing could be kept: the spec has a stand-in there."""

    def knows(self, *keys: str) -> bool:
        """Say whether everything under these top-level keys is right."""
        return not self.mistaken.intersection(keys)


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that defines nothing because of a mistake in it; what refers to it is not wrong because of that."""

    file: str
    """As messages call it."""
    kind: str | None
    """Of what it would define, None where that cannot be read."""
    name: str
    """Of what it would define; the file's own where that cannot be read."""
    guessed: bool = False
    """Whether the name is the file's, which often leaves a prefix out."""

    def may_be(self, kind: str, name: str | None) -> bool:
        """Say whether it may define this name, or with None anything of this kind."""
        named = name in (None, self.name) or (self.guessed and str(name).endswith(self.name))
        return self.kind in (None, kind) and named


@dataclass(slots=True)
class DefinitionIndex:
    """Every definition of the zoo by kind, name and version, also those with mistakes in them."""

    written: dict[str, dict[str, dict[int, WrittenDefinition]]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )
    checked: dict[str, dict[str, dict[int, Checked]]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    unread: list[Unread] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    """What was not inherited, and why."""

    def unread_as(self, kind: str, name: str | None = None) -> list[Unread]:
        """Return the files with mistakes that may define this name, or anything of this kind."""
        return [one for one in self.unread if one.may_be(kind, name)]

    def versions(self, kind: str, name: str) -> dict[int, Checked]:
        """Return the checked versions of a name."""
        return self.checked[kind].get(name, {})

    def find(self, kind: str, reference: str) -> Checked | None:
        """Return what a reference means, or None when that is missing or has mistakes."""
        name, version = split_reference(reference)
        if version is None:
            known = self.written[kind].get(name)
            version = max(known) if known else None
        return self.versions(kind, name).get(version) if version is not None else None

    def missing(self, kind: str, reference: str) -> tuple[str, str] | None:
        """Return what is wrong with a reference and the nearest right one, or None when it exists."""
        name, version = split_reference(reference)
        known = self.written[kind]
        if self.unread_as(kind, name):
            return None
        if name not in known:
            hint = did_you_mean(name, known, f"Known: {', '.join(sorted(known)) or 'none'}.")
            return f"unknown {kind.lower()} '{name}'", hint
        if version is not None and version not in known[name]:
            versions = ", ".join(map(str, sorted(known[name])))
            return f"{kind.lower()} '{name}' has no version {version}", f"Versions: {versions}."
        return None

    def all_checked(self) -> Iterator[Checked]:
        """Return every checked definition, kind by kind, newest versions last."""
        for names in self.checked.values():
            for name in sorted(names):
                for version in sorted(names[name]):
                    yield names[name][version]


def yaml_files(folder: Path) -> list[Path]:
    """Return the YAML files below `folder`, hidden ones left out, sorted."""
    found = (path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_definitions(folder: Path, problems: list[Problem]) -> DefinitionIndex:
    """Read and check every file below `folder` by itself. Mistakes are appended to `problems`."""
    index = DefinitionIndex()
    for path in yaml_files(folder):
        shown = f"{folder.name}/{path.relative_to(folder).as_posix()}"
        node = read_yaml(path, shown, problems)
        written = _identify(node, problems) if node is not None else None
        if written is not None:
            _accept_earlier_keys(written, index.notes)
            _register(index, written, problems)
        if written is None or not re.fullmatch(CANVAS_NAME_PATTERN, written.name):
            index.unread.append(_unread(path, shown, node))
    every = [one for names in index.written.values() for versions in names.values() for one in versions.values()]
    for written in every:
        if (merged := _extended(index, written, (), problems)) is not None:
            if written.kind == "Model" and merged is not written.node:
                merged = fitting(written, merged, index.notes)
            _check(index, written, merged, problems)
    return index


def _accept_earlier_keys(written: WrittenDefinition, notes: list[Problem]) -> None:
    """Rename keys that are written as they were called before, and note each.

    A key that stands beside its new name stays, and is then reported as unknown.
    """
    for path, name in EARLIER_KEYS.get(written.kind, {}).items():
        parent = written.node.find(path[:-1]) if len(path) > 1 else written.node
        if not isinstance(parent.value, dict) or path[-1] not in parent.value or name in parent.value:
            continue
        what = f"'{path[-1]}' is called '{name}' now; the earlier key is read for one more release"
        notes.append(problem(written.node.key_place(path), path, what))
        parent.rename_key(path[-1], name)


def _unread(path: Path, shown: str, node: YamlNode | None) -> Unread:
    """Return what a file would define, as far as its text says."""
    kind, name = (node.child(key) if node is not None else None for key in ("kind", "name"))
    if name is not None and isinstance(name.value, str):
        called: str | None = name.value
    else:
        line = _NAME_LINE.search(path.read_text(encoding="utf-8", errors="replace"))
        called = line[1] if line else None
    known = kind.value if kind is not None and kind.value in list(KINDS) else None
    return Unread(shown, known, re.sub(r"[^a-z0-9.]+", "_", (called or path.stem).lower()), guessed=called is None)


def _identify(node: YamlNode, problems: list[Problem]) -> WrittenDefinition | None:
    if not isinstance(node.value, dict):
        problems.append(problem(node.place, (), "a definition is a mapping", "Start with 'kind: Label' or another."))
        return None
    kind = node.child("kind")
    if kind is None or str(kind.plain()) not in KINDS:
        if kind is None:
            problems.append(problem(node.place, ("kind",), "is missing", f"Kinds: {', '.join(KINDS)}."))
        else:
            hint = did_you_mean(str(kind.plain()), KINDS, f"Kinds: {', '.join(KINDS)}.")
            problems.append(problem(kind.place, ("kind",), f"unknown kind '{kind.plain()}'", hint))
        return None
    name, version = node.child("name"), node.child("version")
    if name is None or version is None or not isinstance(name.value, str) or type(version.value) is not int:
        problems.extend(_identity_problems(node))
        return None
    return WrittenDefinition(kind.value, name.value, version.value, node)


def _identity_problems(node: YamlNode) -> Iterator[Problem]:
    for key, wanted in (("name", "text"), ("version", "a whole number")):
        child = node.child(key)
        if child is None:
            yield problem(node.place, (key,), "is missing")
        elif type(child.value) is not (str if key == "name" else int):
            yield problem(child.place, (key,), f"must be {wanted}")


def _register(index: DefinitionIndex, written: WrittenDefinition, problems: list[Problem]) -> None:
    versions = index.written[written.kind].setdefault(written.name, {})
    if written.version in versions:
        first = versions[written.version].node.place
        what = f"{written.label} is defined twice, first in {first.file}"
        problems.append(problem(written.node.key_place(("name",)), ("name",), what))
        return
    versions[written.version] = written


def _extended(
    index: DefinitionIndex, written: WrittenDefinition, below: tuple[str, ...], problems: list[Problem]
) -> YamlNode | None:
    """Return the tree with everything it extends merged in, without the key itself."""
    link = written.node.child("extends")
    if link is None:
        return written.node
    if written.label in below:
        if written.label == below[0]:
            chain = " -> ".join([*below, written.label])
            problems.append(problem(link.place, ("extends",), f"goes round in a circle: {chain}"))
        return None
    wrong = index.missing(written.kind, str(link.plain()))
    if wrong is not None:
        if not below:
            problems.append(problem(link.place, ("extends",), *wrong))
        return None
    name, version = split_reference(str(link.plain()))
    versions = index.written[written.kind].get(name, {})
    base = versions.get(version or max(versions, default=0))
    if base is None:  # its file has mistakes, which are reported there
        return None
    merged = _extended(index, base, (*below, written.label), problems)
    return None if merged is None else _merge(_without(merged, _IDENTITY), _without(written.node, ("extends",)))


def fitting(written: WrittenDefinition, merged: YamlNode, notes: list[Problem]) -> YamlNode:
    """Return a model without the tasks and gates that it inherits for canvases it does not have."""
    canvases = merged.child("canvases")
    if canvases is None or not isinstance(canvases.value, list):
        return merged
    own = {split_reference(str(node.plain()))[0] for node in canvases.value}

    def stays(part: str, canvas: Any, place: SourcePlace) -> bool:
        if place.file == written.node.place.file or not isinstance(canvas, str) or canvas in {"all", *own}:
            return True
        what = f"{written.label} does not inherit the {part} of canvas '{canvas}', which it does not have"
        notes.append(problem(written.node.key_place(("extends",)), ("extends",), what))
        return False

    value = dict(merged.value)
    tasks, gates = value.get("tasks"), value.get("gates")
    if tasks is not None and isinstance(tasks.value, dict):
        names = [name for name in tasks.value if stays("task", name, tasks.keys[name])]
        value["tasks"] = YamlNode(tasks.place, {name: tasks.value[name] for name in names}, tasks.keys)
    if gates is not None and isinstance(gates.value, list):
        held = [gate for gate in gates.value if stays("gate", gate.find(("canvas",)).plain(), gate.place)]
        value["gates"] = YamlNode(gates.place, held)
    return YamlNode(merged.place, value, merged.keys)


def _without(node: YamlNode, keys: tuple[str, ...]) -> YamlNode:
    kept = {key: child for key, child in node.value.items() if key not in keys}
    return YamlNode(node.place, kept, {key: place for key, place in node.keys.items() if key in kept})


def _merge(base: YamlNode, over: YamlNode) -> YamlNode:
    """Merge mappings key by key; anything else is replaced, and null takes a key away."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged, keys = dict(base.value), dict(base.keys)
    for key, child in over.value.items():
        if child.value is None:
            merged.pop(key, None)
            continue
        merged[key] = _merge(merged[key], child) if key in merged else child
        keys[key] = over.keys[key]
    return YamlNode(over.place, merged, keys)


def _check(index: DefinitionIndex, written: WrittenDefinition, merged: YamlNode, problems: list[Problem]) -> None:
    spec = KINDS[written.kind]
    try:
        checked: Checked | None = Checked(spec.model_validate(merged.plain()), merged)
    except ValidationError as error:
        errors = [item for item in error.errors(include_url=False) if not is_consequence(merged, item)]
        problems.extend(explain(spec, merged, item) for item in errors)
        checked = partial_parse(spec, merged, error)
    if checked is not None:
        index.checked[written.kind].setdefault(written.name, {})[written.version] = checked


def place_of(checked: Checked, path: tuple[str | int, ...], *, key: bool = False) -> SourcePlace:
    """Return where the value at `path` is written, or its key."""
    return checked.node.key_place(path) if key else checked.node.find(path).place


EARLIER_KEYS: dict[str, dict[tuple[str, ...], str]] = {
    "Canvas": {("page", "arm"): "strategy", ("page", "expected", "look"): "examination_prob"},
}
"""Kind -> path of a key as it was called before -> its name now. The spec reads both from stored definitions, and
hashes the earlier one, so that published versions stay what they are."""

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


def partial_parse(spec: type[Definition], node: YamlNode, error: ValidationError) -> Checked | None:
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
            return Checked(spec.model_validate(data), node, frozenset(mistaken), frozenset(absent))
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
