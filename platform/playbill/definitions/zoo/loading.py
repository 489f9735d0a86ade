"""The whole zoo: every file read, every mistake found at once, every definition at hand.

`zoo.lock` says what published versions said, so that a changed one is noticed: a sorted line per definition such as
`Canvas home:1 sha256:...`. Comments, layout and defaults written out do not change a content's hash. A line stays when
its definition goes, so that a version is never used twice.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from playbill.definitions.specs import (
    CanvasSpec,
    Definition,
    EnsembleSpec,
    LabelSpec,
    ModelSpec,
    ResolvedModel,
    RewardSpec,
    RowSpec,
    content_hash,
    split_reference,
)
from playbill.definitions.zoo.feature_repo import FeatureNames, scan_feature_repo
from playbill.definitions.zoo.parsing import Checked, DefinitionIndex, read_definitions
from playbill.definitions.zoo.references import check_references, notes, references
from playbill.definitions.zoo.resolve import resolve, resolve_reward, rows_of_model
from playbill.definitions.zoo.yaml_tree import SourcePlace, problem
from playbill.errors import DefinitionError, Problem, UnknownNameError
from playbill.files import write_text

logger = logging.getLogger(__name__)

_PLACE = re.compile(r"(.*?):(\d+):(\d+)(?:: (.*))?", re.DOTALL)


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


@dataclass(frozen=True)
class Zoo:
    """Checked definitions. The mappings hold the newest version of each name.

    A zoo of `load_zoo` has no mistakes. One of `open_zoo` may: what is made of something with a mistake is not in the
    mappings, and an error when it is asked for by name.
    """

    folder: Path
    index: DefinitionIndex
    features: FeatureNames | None
    """What feature_repo/ defines, or None when it was not asked."""
    notes: tuple[Problem, ...]
    """What is no mistake but will not do what it seems to say."""
    mistakes: Mistakes

    @cached_property
    def labels(self) -> Mapping[str, LabelSpec]:
        """Labels by name."""
        return self._newest("Label")

    @cached_property
    def rewards(self) -> Mapping[str, RewardSpec]:
        """Rewards by name."""
        return self._newest("Reward")

    @cached_property
    def canvases(self) -> Mapping[str, CanvasSpec]:
        """Canvases by name."""
        return self._newest("Canvas")

    @cached_property
    def rows(self) -> Mapping[str, RowSpec]:
        """Rows by name."""
        return self._newest("Row")

    @cached_property
    def models(self) -> Mapping[str, ModelSpec]:
        """Models by name, as written; `model` returns one with everything it uses."""
        return self._newest("Model")

    @cached_property
    def ensembles(self) -> Mapping[str, EnsembleSpec]:
        """Ensembles by name."""
        return self._newest("Ensemble")

    def find(self, kind: str, reference: str) -> Definition:
        """Return a definition of a kind such as `Label` by `name` (its newest version) or `name:version`.

        Raises:
            UnknownNameError: There is none.
            DefinitionError: It, or something that it is made of, has mistakes.
        """
        if wrong := self.mistakes.of(kind, reference):
            raise DefinitionError(f"{kind.lower()} {reference} in {self.folder}", _sorted(wrong, self.index))
        self._count_others()
        found = self.index.find(kind, reference)
        if found is None:
            names = self.index.checked[kind]
            known = [f"{name}:{version}" for name in names for version in names[name]] if ":" in reference else names
            raise UnknownNameError(kind.lower(), reference, known)
        return found.spec

    def model(self, reference: str) -> ResolvedModel:
        """Return a model with every label, reward, canvas and row it uses.

        Raises:
            UnknownNameError: There is no such model.
        """
        model = self.find("Model", reference)
        assert isinstance(model, ModelSpec)
        return resolve(self.index, model)

    def reward(self, reference: str) -> tuple[RewardSpec, dict[str, LabelSpec]]:
        """Return a reward in plain names, and its labels by plain name, each in the version that the reward names.

        What `specs.reward_version` makes of them is the id that a model with this reward carries.

        Raises:
            UnknownNameError: There is no such reward.
        """
        reward = self.find("Reward", reference)
        assert isinstance(reward, RewardSpec)
        return resolve_reward(self.index, reward)

    def names(self) -> dict[str, list[str]]:
        """Return every checked `name:version` by kind."""
        checked = self.index.checked.items()
        return {
            kind: [f"{name}:{version}" for name in sorted(names) for version in sorted(names[name])]
            for kind, names in checked
        }

    def counts(self) -> dict[str, int]:
        """Return the number of checked definitions by kind, as `labels`, `canvases` and so on."""
        plural = {"Canvas": "canvases"}
        return {plural.get(kind, f"{kind.lower()}s"): len(names) for kind, names in self.names().items()}

    def publish(self) -> list[str]:
        """Record every definition in zoo.lock and return those that were new to it."""
        return write_lock(self.folder, self.index, read_lock(self.folder, []))

    def _newest(self, kind: str) -> dict[str, Any]:
        self._count_others()
        newest = {name: versions[max(versions)] for name, versions in sorted(self.index.checked[kind].items())}
        return {name: one.spec for name, one in newest.items() if not self.mistakes.of(kind, one.spec.reference)}

    def _count_others(self) -> None:
        """Say once how many mistakes there are in what is not asked for."""
        if not self.mistakes.all or "_counted" in vars(self):
            return
        vars(self)["_counted"] = True
        files = {placed(problem)["file"] for problem in self.mistakes.all}
        count, named = len(self.mistakes.all), ", ".join(sorted(files)[:3]) + (", ..." if len(files) > 3 else "")
        many = f"{count} mistakes" if count > 1 else "1 mistake"
        logger.warning("left out: definitions with %s, in %s; `playbill check` lists them", many, named)


def load_zoo(model_zoo: Path, feature_repo: Path | None = None) -> Zoo:
    """Read every definition, check each by itself and all together.

    Args:
        model_zoo: Folder of the YAML files and of zoo.lock.
        feature_repo: Folder of the Feast definitions; None leaves feature services unchecked. Nothing is imported.

    Raises:
        DefinitionError: With every mistake of every file, in the order of files and lines.
    """
    zoo, problems = _read(model_zoo, feature_repo)
    if problems or zoo.mistakes.all:
        raise DefinitionError(str(model_zoo), _sorted({*problems, *zoo.mistakes.all}, zoo.index))
    return zoo


def open_zoo(model_zoo: Path, feature_repo: Path | None = None) -> Zoo:
    """Read every definition for a command that needs some of them; only mistakes in those are errors.

    Mistakes in feature_repo always are, as every feature service may depend on them.

    Raises:
        DefinitionError: There is no zoo or no feature_repo, or the latter has mistakes.
    """
    zoo, problems = _read(model_zoo, feature_repo)
    if problems:
        raise DefinitionError(str(model_zoo), _sorted(problems, zoo.index))
    return zoo


def _read(model_zoo: Path, feature_repo: Path | None) -> tuple[Zoo, list[Problem]]:
    """Return the zoo with its mistakes, and what is wrong with the folders or in feature_repo."""
    problems: list[Problem] = []
    features = _features(feature_repo, problems)
    if not model_zoo.is_dir():
        raise DefinitionError(str(model_zoo), [*problems, Problem(str(model_zoo), "there is no such folder.")])
    in_files: list[Problem] = []
    index = read_definitions(model_zoo, in_files)
    if not problems and not in_files and not any(index.checked.values()):
        problems.append(Problem(str(model_zoo), "there is no definition in it.", "Run `playbill init` for a start."))
    in_files.extend(changed(index, read_lock(model_zoo, in_files)))
    mistakes = Mistakes(index)
    for found in in_files:
        mistakes.in_files.setdefault(placed(found)["file"], []).append(found)
    for checked, found in check_references(index, features):
        mistakes.of_definitions.setdefault(lock_key(checked), []).append(found)
    return Zoo(model_zoo, index, features, tuple(notes(index)), mistakes), problems


def _sorted(problems: Collection[Problem], index: DefinitionIndex) -> list[Problem]:
    """Sort by place. What could not be read at all comes first: the rest may follow from it."""
    first = {one.file for one in index.unread}
    return sorted(problems, key=lambda found: _order(found, first))


def _features(folder: Path | None, problems: list[Problem]) -> FeatureNames | None:
    if folder is None:
        return None
    if not folder.is_dir():
        problems.append(Problem(str(folder), "there is no such folder."))
        return None
    return scan_feature_repo(folder, problems)


def placed(problem: Problem) -> dict[str, Any]:
    """Return a problem as a JSON-ready mapping with file, line, column and YAML path apart."""
    match = _PLACE.fullmatch(problem.where)
    if match is None:
        return {"file": problem.where, "what": problem.what, "hint": problem.hint}
    place = {"file": match[1], "line": int(match[2]), "column": int(match[3]), "path": match[4] or ""}
    return place | {"what": problem.what, "hint": problem.hint}


def _order(problem: Problem, first: Collection[str]) -> tuple[bool, str, int, int, str]:
    place = placed(problem)
    return place["file"] not in first, place["file"], place.get("line", 0), place.get("column", 0), problem.what


FILE_NAME = "zoo.lock"

_LINE = re.compile(r"([A-Z][a-z]+ [a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)?:[1-9][0-9]*) sha256:([0-9a-f]{64})")


def definition_hash(checked: Checked) -> str:
    """Return the hash of what a definition says beyond the defaults that the first locks were written with."""
    content = checked.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if isinstance(checked.spec, ModelSpec):
        # Protocol was leave_one_out where none was written: who had written it has changed nothing, who had not has.
        evaluate = content.pop("evaluate", {}) | {"protocol": checked.spec.evaluate.protocol}
        written = {key: value for key, value in evaluate.items() if (key, value) != ("protocol", "leave_one_out")}
        content |= {"evaluate": written} if written else {}
    return content_hash(content)


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
            place = SourcePlace(f"{folder.name}/{FILE_NAME}", number, 1)
            problems.append(problem(place, (), "is no line of a lock", "Expected 'Canvas home:1 sha256:...'."))
            continue
        locked[match[1]] = match[2]
    return locked


def changed(index: DefinitionIndex, locked: dict[str, str]) -> Iterator[Problem]:
    """Return a problem for every published version whose content is not what it was."""
    for checked in index.all_checked():
        key = lock_key(checked)
        if key in locked and not checked.mistaken and locked[key] != definition_hash(checked):
            newest = max(index.written[key.split()[0]][checked.spec.name])
            what = f"{key} is published and its content has changed"
            hint = f"Undo the change, or give it version {newest + 1}."
            yield problem(checked.node.key_place(("version",)), ("version",), what, hint)


def write_lock(folder: Path, index: DefinitionIndex, locked: dict[str, str]) -> list[str]:
    """Publish every definition that is not yet, and return their keys."""
    current = {lock_key(checked): definition_hash(checked) for checked in index.all_checked()}
    lines = [f"{key} sha256:{digest}" for key, digest in sorted((current | locked).items())]
    header = "# Published versions. Written by `playbill check --lock`; a changed version fails the check."
    path = folder / FILE_NAME
    write_text(path, "\n".join([header, *lines, ""]), "the lock")
    return sorted(current.keys() - locked.keys())
