"""Registered models, their versions, tags and aliases; references such as `everycanvas@champion`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from playbill.config import Workspace
from playbill.errors import ConfigError, StateError, UnknownNameError
from playbill.versions.tracking.connection import ALREADY_THERE, NOT_FOUND, Connection, error_code
from playbill.versions.tracking.lineage import DIGEST

TAG_LENGTH = 5000
_REFERENCE = re.compile(r"(?P<model>[a-z][a-z0-9_]*)(?:@(?P<alias>[\w-]+)|:(?P<version>\d+))?")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model.

    `digest` is None when the version was not registered by Playbill. `source` is where MLflow found it,
    such as `models:/m-...`.
    """

    model: str
    version: int
    digest: str | None
    run_id: str | None
    source: str
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    description: str = ""

    @property
    def reference(self) -> str:
        """The reference that always means this version, `model:version`."""
        return f"{self.model}:{self.version}"


class ModelRegistry:
    """The registered models of one workspace. Models are named without the workspace's prefix."""

    def __init__(self, workspace: Workspace, connection: Connection) -> None:
        self.workspace, self.connection = workspace, connection

    def models(self) -> tuple[str, ...]:
        """Return the names of the workspace's registered models, sorted."""
        prefix = self.workspace.registered_name("")
        names: list[str] = []
        token: str | None = None
        with self.connection.guarded("listing registered models"):
            while True:
                page = self.connection.client.search_registered_models(
                    filter_string=f"name LIKE '{prefix}%'", max_results=200, page_token=token
                )
                # `_` in LIKE stands for any letter, so a neighbour workspace may slip in.
                names += [found.name.removeprefix(prefix) for found in page if found.name.startswith(prefix)]
                token = page.token
                if not token:
                    return tuple(sorted(names))

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Return every version of a model, newest first; none when it is not registered."""
        name = self.workspace.registered_name(model)
        rows: list[Any] = []
        token: str | None = None
        with self.connection.guarded(f"versions of '{model}'"):
            while True:
                page = self.connection.client.search_model_versions(
                    filter_string=f"name = '{name}'", max_results=200, page_token=token
                )
                rows += page
                token = page.token
                if not token:
                    break
        aliases = self.aliases(model)
        found = (self._version(model, row, aliases) for row in rows)
        return tuple(sorted(found, key=lambda item: -item.version))

    def version(self, model: str, version: int) -> ModelVersion:
        """Return one version.

        Raises:
            UnknownNameError: There is no such version, or it was deleted.
        """
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"version {version} of '{model}'"):
            try:
                row = self.connection.client.get_model_version(name, str(version))
            except Exception as error:
                if error_code(error) not in NOT_FOUND:
                    raise
                row = None
        if row is None:
            known = [str(item.version) for item in self.versions(model)]
            raise UnknownNameError(f"version of model '{model}'", str(version), known)
        return self._version(model, row, self.aliases(model))

    def _version(self, model: str, row: Any, aliases: Mapping[str, int]) -> ModelVersion:
        number = int(row.version)
        names = tuple(sorted(alias for alias, target in aliases.items() if target == number))
        tags = dict(row.tags)
        return ModelVersion(
            model=model,
            version=number,
            digest=tags.get(DIGEST),
            run_id=row.run_id or None,
            source=row.source or "",
            tags=tags,
            aliases=names,
            description=row.description or "",
        )

    def aliases(self, model: str) -> dict[str, int]:
        """Return alias -> version of a model; empty when the model is not registered."""
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"aliases of '{model}'"):
            try:
                found = self.connection.client.get_registered_model(name)
            except Exception as error:
                if error_code(error) not in NOT_FOUND:
                    raise
                return {}
        return {alias: int(version) for alias, version in found.aliases.items()}

    def set_alias(self, model: str, alias: str, version: int) -> None:
        """Point an alias at a version, moving it when it is elsewhere.

        Raises:
            UnknownNameError: There is no such version.
        """
        name = self.workspace.registered_name(model)
        self.version(model, version)
        with self.connection.guarded(f"alias '{alias}' of '{model}'"):
            self.connection.client.set_registered_model_alias(name, alias, str(version))

    def delete_alias(self, model: str, alias: str) -> None:
        """Remove an alias; nothing happens when there is none."""
        if alias not in self.aliases(model):
            return
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"alias '{alias}' of '{model}'"):
            self.connection.client.delete_registered_model_alias(name, alias)

    def set_tag(self, model: str, version: int, tag: str, value: str) -> None:
        """Set a tag of a version; long values are cut at 5,000 letters."""
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"tag '{tag}' of '{model}:{version}'"):
            self.connection.client.set_model_version_tag(name, str(version), tag, value[:TAG_LENGTH])

    def delete_tag(self, model: str, version: int, tag: str) -> None:
        """Remove a tag of a version; nothing happens when there is none."""
        if tag not in self.version(model, version).tags:
            return
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"tag '{tag}' of '{model}:{version}'"):
            self.connection.client.delete_model_version_tag(name, str(version), tag)

    def describe(self, model: str, version: int, text: str) -> None:
        """Replace a version's description, which the MLflow UI shows at its top."""
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"description of '{model}:{version}'"):
            self.connection.client.update_model_version(name, str(version), description=text[:TAG_LENGTH])

    def description(self, model: str) -> str:
        """Return what stands at the top of a model's page; empty when it is not registered."""
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"description of '{model}'"):
            try:
                return self.connection.client.get_registered_model(name).description or ""
            except Exception as error:
                if error_code(error) not in NOT_FOUND:
                    raise
                return ""

    def describe_model(self, model: str, text: str) -> None:
        """Replace what stands at the top of a model's page."""
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"description of '{model}'"):
            self.connection.client.update_registered_model(name, description=text[:TAG_LENGTH])

    def ensure_model(self, model: str) -> str:
        """Register the model's name when it is new, and return it as MLflow knows it."""
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"registering '{name}'"):
            try:
                self.connection.client.create_registered_model(name)
            except Exception as error:
                if error_code(error) not in ALREADY_THERE:
                    raise
        return name

    def resolve(self, reference: str) -> ModelVersion:
        """Return the version a reference means now: `model@alias`, `model:3`, or `model` for the newest.

        Raises:
            ConfigError: The text is no reference.
            UnknownNameError: No such model, alias or version; the nearest name is suggested.
            StateError: The workspace has no registered model, or the model has no version.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise ConfigError(f"'{reference}' is no model reference, write model, model:3 or model@champion")
        model = match["model"]
        self._require_model(model)
        if match["version"]:
            return self.version(model, int(match["version"]))
        if match["alias"]:
            aliases = self.aliases(model)
            if match["alias"] not in aliases:
                raise UnknownNameError(f"alias of model '{model}'", match["alias"], aliases)
            return self.version(model, aliases[match["alias"]])
        versions = self.versions(model)
        if not versions:
            raise StateError(f"model '{model}' has no version, run: playbill train {model}")
        return versions[0]

    def _require_model(self, model: str) -> None:
        known = self.models()
        if not known:
            name = self.workspace.name
            raise StateError(f"workspace '{name}' has no registered model, run: playbill -w {name} train {model}")
        if model not in known:
            raise UnknownNameError("registered model", model, known)
