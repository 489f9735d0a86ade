"""The whole zoo: every file read, every mistake found at once, every definition at hand."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
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
)
from playbill.definitions.zoo.feature_repo import FeatureNames, scan_feature_repo
from playbill.definitions.zoo.lock import changed, lock_key, read_lock, write_lock
from playbill.definitions.zoo.parsing import Shelf, read_shelf
from playbill.definitions.zoo.reach import Mistakes
from playbill.definitions.zoo.references import check_references, notes
from playbill.definitions.zoo.resolve import resolve, resolve_reward
from playbill.errors import DefinitionError, Problem, UnknownNameError

logger = logging.getLogger(__name__)

_PLACE = re.compile(r"(.*?):(\d+):(\d+)(?:: (.*))?", re.DOTALL)


@dataclass(frozen=True)
class Zoo:
    """Checked definitions. The mappings hold the newest version of each name.

    A zoo of `load_zoo` has no mistakes. One of `open_zoo` may: what is made of something with a mistake is not in the
    mappings, and an error when it is asked for by name.
    """

    folder: Path
    shelf: Shelf
    features: FeatureNames | None
    """What feature_repo/ defines, or None when it was not asked."""
    notes: tuple[Problem, ...]
    """What is no mistake but will not do what it seems to say."""
    mistakes: Mistakes

    @cached_property
    def labels(self) -> Mapping[str, LabelSpec]:
        """Labels by name."""
        return self._newest("Label", LabelSpec)

    @cached_property
    def rewards(self) -> Mapping[str, RewardSpec]:
        """Rewards by name."""
        return self._newest("Reward", RewardSpec)

    @cached_property
    def canvases(self) -> Mapping[str, CanvasSpec]:
        """Canvases by name."""
        return self._newest("Canvas", CanvasSpec)

    @cached_property
    def rows(self) -> Mapping[str, RowSpec]:
        """Rows by name."""
        return self._newest("Row", RowSpec)

    @cached_property
    def models(self) -> Mapping[str, ModelSpec]:
        """Models by name, as written; `model` returns one with everything it uses."""
        return self._newest("Model", ModelSpec)

    @cached_property
    def ensembles(self) -> Mapping[str, EnsembleSpec]:
        """Ensembles by name."""
        return self._newest("Ensemble", EnsembleSpec)

    def find(self, kind: str, reference: str) -> Definition:
        """Return a definition by `name` (its newest version) or `name:version`.

        Args:
            kind: `Label`, `Reward`, `Canvas`, `Row`, `Model` or `Ensemble`.
            reference: The name, with or without a version.

        Raises:
            UnknownNameError: There is none.
            DefinitionError: It, or something that it is made of, has mistakes.
        """
        if wrong := self.mistakes.of(kind, reference):
            raise DefinitionError(f"{kind.lower()} {reference} in {self.folder}", _sorted(wrong, self.shelf))
        self._count_others()
        found = self.shelf.find(kind, reference)
        if found is None:
            names = self.shelf.checked[kind]
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
        return resolve(self.shelf, model)

    def reward(self, reference: str) -> tuple[RewardSpec, dict[str, LabelSpec]]:
        """Return a reward in plain names, and its labels by plain name, each in the version that the reward names.

        What `specs.reward_version` makes of them is the id that a model with this reward carries.

        Raises:
            UnknownNameError: There is no such reward.
        """
        reward = self.find("Reward", reference)
        assert isinstance(reward, RewardSpec)
        return resolve_reward(self.shelf, reward)

    def names(self) -> dict[str, list[str]]:
        """Return every checked `name:version` by kind."""
        checked = self.shelf.checked.items()
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
        return write_lock(self.folder, self.shelf, read_lock(self.folder, []))

    def _newest(self, kind: str, spec: type[Any]) -> dict[str, Any]:
        self._count_others()
        newest = {name: versions[max(versions)] for name, versions in sorted(self.shelf.checked[kind].items())}
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
        feature_repo: Folder of the Feast definitions, or None to leave feature services unchecked. Nothing in
            it is imported.

    Raises:
        DefinitionError: With every mistake of every file, in the order of files and lines.
    """
    zoo, problems = _read(model_zoo, feature_repo)
    if problems or zoo.mistakes.all:
        raise DefinitionError(str(model_zoo), _sorted({*problems, *zoo.mistakes.all}, zoo.shelf))
    return zoo


def open_zoo(model_zoo: Path, feature_repo: Path | None = None) -> Zoo:
    """Read every definition for a command that needs some of them; only mistakes in those are errors.

    Args:
        model_zoo: As for `load_zoo`.
        feature_repo: As for `load_zoo`; mistakes in it are errors, as every feature service may depend on them.

    Raises:
        DefinitionError: There is no zoo or no feature_repo, or the latter has mistakes.
    """
    zoo, problems = _read(model_zoo, feature_repo)
    if problems:
        raise DefinitionError(str(model_zoo), _sorted(problems, zoo.shelf))
    return zoo


def _read(model_zoo: Path, feature_repo: Path | None) -> tuple[Zoo, list[Problem]]:
    """Return the zoo with its mistakes, and what is wrong with the folders or in feature_repo."""
    problems: list[Problem] = []
    features = _features(feature_repo, problems)
    if not model_zoo.is_dir():
        raise DefinitionError(str(model_zoo), [*problems, Problem(str(model_zoo), "there is no such folder.")])
    in_files: list[Problem] = []
    shelf = read_shelf(model_zoo, in_files)
    if not problems and not in_files and not any(shelf.checked.values()):
        problems.append(Problem(str(model_zoo), "there is no definition in it.", "Run `playbill init` for a start."))
    in_files.extend(changed(shelf, read_lock(model_zoo, in_files)))
    mistakes = Mistakes(shelf)
    for problem in in_files:
        mistakes.in_files.setdefault(placed(problem)["file"], []).append(problem)
    for checked, problem in check_references(shelf, features):
        mistakes.of_definitions.setdefault(lock_key(checked), []).append(problem)
    return Zoo(model_zoo, shelf, features, tuple(notes(shelf)), mistakes), problems


def _sorted(problems: Collection[Problem], shelf: Shelf) -> list[Problem]:
    """Sort by place. What could not be read at all comes first: the rest may follow from it."""
    first = {one.file for one in shelf.unread}
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
