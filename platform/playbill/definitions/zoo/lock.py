"""`zoo.lock`: what published versions said, so that a changed one is noticed.

One line per definition, `Canvas home:1 sha256:...`, sorted. Comments, layout and defaults written out do not
change a content's hash. A line stays when its definition goes, so that a version is never used twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from playbill.definitions.specs import content_hash
from playbill.definitions.zoo.parsing import Checked, Shelf
from playbill.definitions.zoo.yaml_tree import Place, problem
from playbill.errors import Problem
from playbill.files import write_text

FILE_NAME = "zoo.lock"

_LINE = re.compile(r"([A-Z][a-z]+ [a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)?:[1-9][0-9]*) sha256:([0-9a-f]{64})")


def definition_hash(checked: Checked) -> str:
    """Return the hash of what a definition says beyond the defaults."""
    return content_hash(checked.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True))


def lock_key(checked: Checked) -> str:
    """Return what the lock calls a definition, such as `Canvas home:1`."""
    return f"{checked.spec.kind} {checked.spec.reference}"  # type: ignore[attr-defined]


def read_lock(folder: Path, problems: list[Problem]) -> dict[str, str]:
    """Read the lock of a zoo; no file means that nothing is published yet."""
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    locked: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            place = Place(f"{folder.name}/{FILE_NAME}", number, 1)
            problems.append(problem(place, (), "is no line of a lock", "Expected 'Canvas home:1 sha256:...'."))
            continue
        locked[match[1]] = match[2]
    return locked


def changed(shelf: Shelf, locked: dict[str, str]) -> Iterator[Problem]:
    """Return a problem for every published version whose content is not what it was."""
    for checked in shelf.all_checked():
        key = lock_key(checked)
        if key in locked and not checked.mistaken and locked[key] != definition_hash(checked):
            newest = max(shelf.written[key.split()[0]][checked.spec.name])
            what = f"{key} is published and its content has changed"
            hint = f"Undo the change, or give it version {newest + 1}."
            yield problem(checked.node.key_place(("version",)), ("version",), what, hint)


def write_lock(folder: Path, shelf: Shelf, locked: dict[str, str]) -> list[str]:
    """Publish every definition that is not yet, and return their keys."""
    current = {lock_key(checked): definition_hash(checked) for checked in shelf.all_checked()}
    lines = [f"{key} sha256:{digest}" for key, digest in sorted((current | locked).items())]
    header = "# Published versions. Written by `playbill check --lock`; a changed version fails the check."
    path = folder / FILE_NAME
    write_text(path, "\n".join([header, *lines, ""]), "the lock")
    return sorted(current.keys() - locked.keys())
