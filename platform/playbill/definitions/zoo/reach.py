"""Which definitions a command needs, so that a mistake elsewhere does not stop it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from playbill.definitions.specs import ModelSpec, split_reference
from playbill.definitions.zoo.parsing import Checked, DefinitionIndex
from playbill.definitions.zoo.references import references
from playbill.definitions.zoo.resolve import rows_of_model
from playbill.errors import Problem


@dataclass(frozen=True)
class Mistakes:
    """Every mistake of a zoo: those of files, and those of definitions that do not fit others."""

    index: DefinitionIndex
    """Of all definitions."""
    in_files: dict[str, list[Problem]] = field(default_factory=dict)
    """Mistakes by the file they are in."""
    of_definitions: dict[str, list[Problem]] = field(default_factory=dict)
    """Mistakes across files by the definition whose check found them, such as `Model every:1`."""

    @cached_property
    def all(self) -> set[Problem]:
        """Every one of them."""
        lists = (*self.in_files.values(), *self.of_definitions.values())
        return {problem for problems in lists for problem in problems}

    def of(self, kind: str, reference: str) -> set[Problem]:
        """Return the mistakes of a definition and of all that it is made of."""
        if not self.all:
            return set()
        names, files = reach(self.index, kind, reference)
        found = [self.of_definitions.get(name, []) for name in names] + [self.in_files.get(file, []) for file in files]
        return {problem for problems in found for problem in problems}


def reach(index: DefinitionIndex, kind: str, reference: str) -> tuple[set[str], set[str]]:
    """Return what a definition is made of, itself included: names such as `Label play:1`, and files.

    A model that a definition starts from is none of it: its registered version is.
    """
    names: set[str] = set()
    files: set[str] = set()
    todo = [(kind, reference)]
    while todo:
        here = todo.pop()
        name, version = split_reference(here[1])
        files.update(one.file for one in index.unread_as(here[0], name))
        versions = index.written[here[0]].get(name, {})
        written = versions.get(version or max(versions, default=0))
        if written is None or written.label in names:
            continue
        names.add(written.label)
        files.add(written.node.place.file)
        if (base := written.node.child("extends")) is not None:
            todo.append((written.kind, str(base.plain())))
        if (checked := index.versions(here[0], name).get(written.version)) is not None:
            todo.extend(_parts(index, checked))
    return names, files


def _parts(index: DefinitionIndex, checked: Checked) -> Iterable[tuple[str, str]]:
    named = [(kind, reference) for kind, reference, path, _ in references(checked) if path[0] != "init_from"]
    if isinstance(checked.spec, ModelSpec):
        named += [("Row", row.spec.reference) for row in rows_of_model(index, checked.spec)]
    return named
