"""Registered models, their versions, tags and aliases; references such as `everycanvas@champion`.

A version's lineage, what it was made from, is in tags that can be searched in the MLflow UI.
"""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from playbill.config import Workspace
from playbill.datasets.splits import REQUESTS
from playbill.errors import ConfigError, StateError, UnknownNameError
from playbill.versions.tracking.connection import ALREADY_THERE, NOT_FOUND, Connection, error_code

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
        with self.connection.guarded("listing registered models"):
            rows = _all_pages(self.connection.client.search_registered_models, f"name LIKE '{prefix}%'")
        # `_` in LIKE stands for any letter, so a neighbour workspace may slip in.
        return tuple(sorted(row.name.removeprefix(prefix) for row in rows if row.name.startswith(prefix)))

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Return every version of a model, newest first; none when it is not registered."""
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"versions of '{model}'"):
            rows = _all_pages(self.connection.client.search_model_versions, f"name = '{name}'")
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
        found = self._registered(model, f"aliases of '{model}'")
        return {} if found is None else {alias: int(version) for alias, version in found.aliases.items()}

    def _registered(self, model: str, action: str) -> Any | None:
        with self.connection.guarded(action):
            try:
                return self.connection.client.get_registered_model(self.workspace.registered_name(model))
            except Exception as error:
                if error_code(error) not in NOT_FOUND:
                    raise
                return None

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

    def set_version_tag(self, model: str, version: int, tag: str, value: str) -> None:
        """Set a tag of a version; long values are cut at 5,000 letters."""
        name = self.workspace.registered_name(model)
        with self.connection.guarded(f"tag '{tag}' of '{model}:{version}'"):
            self.connection.client.set_model_version_tag(name, str(version), tag, value[:TAG_LENGTH])

    def delete_version_tag(self, model: str, version: int, tag: str) -> None:
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
        found = self._registered(model, f"description of '{model}'")
        return "" if found is None else found.description or ""

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


PREFIX = "playbill."
DIGEST = PREFIX + "digest"
PROMOTION = PREFIX + "promotion"
REASON = PREFIX + "promotion_reason"
PROTOCOL = PREFIX + "protocol"
SPLIT_DIGEST = PREFIX + "split_digest"
REQUESTS_VERSION = PREFIX + "requests"
"""Tag with the version of what held-out requests carried when a run was measured, see `datasets.splits.REQUESTS`."""

OTHER_FILES = PREFIX + "other_feature_files"
"""Tag of an evaluation: views that were read from other files than the version was trained on."""
MEASURED_ON_OTHERS = "measured on other feature files than it was trained on"

_GIT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Lineage:
    """Everything a version can be rebuilt from.

    `labels` maps names to versions, `rewards` names to version ids (`specs.reward_version`), which evaluations,
    off-policy estimates and gates carry too. `watermark` is the last moment of data the version has seen.
    `protocol_reason` says why the log chose the protocol; empty where the definition or the command named it.
    `parent_version` (`model:3`) is the version whose weights it started from, with the digest of its bundle.
    `feature_views` maps each view behind the feature service to the hash of what feature_repo said of it, `vectors`
    each view of published vectors to their version and digest, `members` each role of an ensemble likewise.
    """

    spec_hash: str
    data_snapshot: str
    feature_service: str
    feature_service_version: str
    protocol: str
    split_digest: str
    watermark: datetime
    labels: Mapping[str, int] = field(default_factory=dict)
    rewards: Mapping[str, str] = field(default_factory=dict)
    parent_version: str | None = None
    parent_digest: str | None = None
    protocol_reason: str = ""
    git_revision: str | None = None
    feature_views: Mapping[str, str] = field(default_factory=dict)
    vectors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        """Return the tags, all under `playbill.`; what is not known is left out.

        Views and their hashes are too many for a tag: they stand in the bundle's manifest and in `rows`.
        """
        values = {
            "spec_hash": self.spec_hash,
            "data_snapshot": self.data_snapshot,
            "feature_service": self.feature_service,
            "feature_service_version": self.feature_service_version,
            "protocol": self.protocol,
            "protocol_reason": self.protocol_reason,
            "split_digest": self.split_digest,
            "requests": REQUESTS,
            "watermark": self.watermark.isoformat(),
            "labels": _named_versions(self.labels),
            "rewards": ",".join(sorted(self.rewards.values())),
            "parent_version": self.parent_version,
            "parent_digest": self.parent_digest,
            "git_revision": self.git_revision,
            "vectors": ",".join(sorted({pin["version"] for pin in self.vectors.values()})),
            "members": ",".join(f"{role}={one['version']}" for role, one in self.members.items()),
        }
        return {PREFIX + name: value for name, value in values.items() if value}

    def rows(self) -> list[dict[str, str]]:
        """Return a row for each thing that was learnt from: its kind, name and version, for the run's table."""
        kinds: dict[str, Mapping[str, object]] = {
            "label": self.labels,
            "reward": self.rewards,
            "feature service": {self.feature_service: self.feature_service_version},
            "feature view": self.feature_views,
            "published vectors": {view: f"{pin['version']} {pin['digest']}" for view, pin in self.vectors.items()},
            "parent": {self.parent_version: self.parent_digest} if self.parent_version else {},
            "member": {role: f"{one['version']} {one['digest']}" for role, one in self.members.items()},
        }
        return [
            {"kind": kind, "name": name, "version": str(version)}
            for kind, named in kinds.items()
            for name, version in sorted(named.items())
        ]


def _all_pages(search: Callable[..., Any], wanted: str) -> list[Any]:
    rows: list[Any] = []
    token: str | None = None
    while True:
        page = search(filter_string=wanted, max_results=200, page_token=token)
        rows += page
        token = page.token
        if not token:
            return rows


def _named_versions(versions: Mapping[str, int] | Mapping[str, str]) -> str:
    return ",".join(f"{name}:{version}" for name, version in sorted(versions.items()))


def origin_tags(folder: Path, command: str) -> dict[str, str]:
    """Return MLflow's own tags of where a run comes from: user, command, and the git commit checked out in `folder`."""
    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": command}
    with suppress(OSError, KeyError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    if revision := git_revision(folder):
        tags["mlflow.source.git.commit"] = revision.removesuffix("-dirty")
    return tags


def git_revision(folder: Path) -> str | None:
    """Return the git commit checked out in `folder`, with `-dirty` when files differ; None outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
