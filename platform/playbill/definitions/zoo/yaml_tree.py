"""YAML as a tree in which everything knows where it was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from playbill.errors import Problem

_MOST_NODES = 100_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")
_TAGS = {f"tag:yaml.org,2002:{name}" for name in _PLAIN}
_REMOVED = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True, order=True)
class SourcePlace:
    """A position in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(slots=True)
class YamlNode:
    """A value with its place. `value` is a dict of nodes, a list of nodes, or a scalar."""

    place: SourcePlace
    value: Any
    keys: dict[str, SourcePlace] = field(default_factory=dict)
    """Places of a mapping's keys."""
    verbatim: SourcePlace | None = None
    """Where a text's first character is, when it is written on one line without escapes."""
    broken: bool = False
    """Something under it could not be read, and was reported."""

    def child(self, part: str | int) -> YamlNode | None:
        """Return the node under a key or index, or None."""
        if isinstance(self.value, dict):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and part < len(self.value):
            node: YamlNode = self.value[part]
            return node
        return None

    def find(self, path: Sequence[str | int]) -> YamlNode:
        """Return the node at `path`, or the deepest one on the way to it."""
        node = self
        for part in path:
            child = node.child(part)
            if child is None:
                break
            node = child
        return node

    def key_place(self, path: Sequence[str | int]) -> SourcePlace:
        """Return where the last key of `path` is written, or where its value is."""
        parent = self.find(path[:-1])
        return parent.keys.get(str(path[-1]), self.find(path).place) if path else self.place

    def rename_key(self, key: str, name: str) -> None:
        """Give a key of this mapping another name, in its place; a key that has the name already stays."""
        self.value = {name if one == key else one: child for one, child in self.value.items()}
        self.keys = {name if one == key else one: place for one, place in self.keys.items()}

    def plain(self) -> Any:
        """Return the value as plain dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def problem(place: SourcePlace, path: Sequence[str | int], what: str, hint: str = "") -> Problem:
    """Build a problem that reads `file:line:column: yaml.path: what. hint`."""
    dotted = ".".join(map(str, path))
    stop = "" if what.endswith((".", "?", "^")) or "\n" in what else "."
    return Problem(f"{place}: {dotted}" if dotted else str(place), what + stop, hint)


def read_yaml(path: Path, shown: str, problems: list[Problem]) -> YamlNode | None:
    """Read one file. Mistakes are appended to `problems`; None means nothing could be read."""
    start, text = SourcePlace(shown, 1, 1), ""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=_LOADER)
    except UnicodeDecodeError as error:
        problems.append(problem(start, (), f"is not UTF-8 text (byte {error.start})"))
        return None
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax_problem(shown, text, error))
        return None
    except (yaml.YAMLError, RecursionError) as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        problems.append(problem(start, (), what))
        return None
    except OSError as error:
        problems.append(problem(start, (), f"cannot be read: {error.strerror}"))
        return None
    if root is None:
        problems.append(problem(start, (), "is empty", "Delete it, or write a definition."))
        return None
    return _Builder(shown, problems).build(root, ())


def _syntax_problem(shown: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = SourcePlace(shown, mark.line + 1, mark.column + 1) if mark else SourcePlace(shown, 1, 1)
    if mark and (tab := _tab(text, mark.line)) is not None:
        what = "YAML syntax: a tab, and YAML indents with spaces"
        return problem(SourcePlace(shown, *tab), (), what, "Replace it with spaces.")
    context = f" {error.context}" if error.context else ""
    return problem(place, (), f"YAML syntax: {error.problem or 'mistake'}{context}")


def _tab(text: str, line: int) -> tuple[int, int] | None:
    """Return line and column of a tab in the indentation of a line, or of the one before it."""
    lines = text.splitlines()
    for number in (line, line - 1):
        start = lines[number][: -len(lines[number].lstrip()) or None] if 0 <= number < len(lines) else ""
        if "\t" in start:
            return number + 1, start.index("\t") + 1
    return None


class _Builder:
    def __init__(self, shown: str, problems: list[Problem]) -> None:
        self._shown, self._problems = shown, problems
        self._scalars = yaml.constructor.SafeConstructor()
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node, path: tuple[str | int, ...]) -> YamlNode | None:
        self._count += 1
        place = self._place(node)
        if id(node) in self._open or self._count > _MOST_NODES:
            if self._count <= _MOST_NODES + 1:
                self._problems.append(problem(place, path, "aliases make this endless"))
            return None
        if node.tag not in _TAGS:
            self._problems.append(problem(place, path, f"tag '{node.tag}' is not allowed"))
            return None
        self._open.add(id(node))
        try:
            match node:
                case yaml.MappingNode():
                    return self._mapping(node, place, path)
                case yaml.SequenceNode():
                    items = [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
                    return YamlNode(place, [item for item in items if item is not None], broken=None in items)
                case _:
                    return self._scalar(node, place, path)
        finally:
            self._open.discard(id(node))

    def _place(self, node: yaml.Node) -> SourcePlace:
        return SourcePlace(self._shown, node.start_mark.line + 1, node.start_mark.column + 1)

    def _mapping(self, node: yaml.MappingNode, place: SourcePlace, path: tuple[str | int, ...]) -> YamlNode:
        made = YamlNode(place, {})
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                made.broken = True
                continue
            key_place = self._place(key_node)
            if key in made.keys:
                first = made.keys[key]
                what = f"key '{key}' is given twice, first at line {first.line}"
                self._problems.append(problem(key_place, (*path, key), what))
                continue
            made.keys[key] = key_place
            child = self.build(value_node, (*path, key))
            if child is None:
                made.broken = True
            else:
                made.value[key] = child
        return made

    def _key(self, node: yaml.Node, path: tuple[str | int, ...]) -> str | None:
        if node.tag == _REMOVED:
            self._problems.append(problem(self._place(node), path, "'<<' is not used here", "Use 'extends: name'."))
            return None
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            shown = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
            what = f"a key must be text, '{shown}' is not"
            self._problems.append(problem(self._place(node), path, what, "Put it in quotes."))
            return None
        return str(node.value)

    def _scalar(self, node: yaml.Node, place: SourcePlace, path: tuple[str | int, ...]) -> YamlNode | None:
        try:
            value = self._scalars.construct_object(node)
        except ValueError as error:
            self._problems.append(problem(place, path, f"'{node.value[:40]}' cannot be read: {error}"))
            return None
        return YamlNode(place, value, verbatim=self._verbatim(node, place))

    def _verbatim(self, node: Any, place: SourcePlace) -> SourcePlace | None:
        start, end = node.start_mark, node.end_mark
        quotes = 1 if node.style in ("'", '"') else 0
        if start.line != end.line or end.column - start.column != len(node.value) + 2 * quotes:
            return None
        return SourcePlace(place.file, place.line, place.column + quotes)
