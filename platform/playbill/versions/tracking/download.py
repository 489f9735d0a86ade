"""A version's bundle, verified against its record and in place only when it is whole; and what it was trained from."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from playbill.config import Workspace
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo.versions import VersionRecord
from playbill.errors import IntegrityError, PlaybillError
from playbill.features import feature_of
from playbill.files import make_folder, put_in_place, storage_errors, to_disk
from playbill.versions.tracking.connection import Connection, import_mlflow, is_missing
from playbill.versions.tracking.packaging import BUNDLE_PATH, SPEC
from playbill.versions.tracking.registry import DIGEST, PREFIX, ModelVersion

Verify = Callable[[Path], str]
"""Reads a bundle folder and returns its digest; raises IntegrityError when a file is not what it says."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A version and the digest its bundle has to have."""

    model: str
    version: int
    digest: str

    @property
    def reference(self) -> str:
        """`model:version`."""
        return f"{self.model}:{self.version}"


def pair_of(version: ModelVersion) -> Pair:
    """Return a version with the digest of its record.

    Raises:
        IntegrityError: It has none.
    """
    if not version.digest:
        raise IntegrityError(f"{version.reference} has no tag '{DIGEST}', it was not registered by Playbill")
    return Pair(version.model, version.version, version.digest)


def download(workspace: Workspace, connection: Connection, pair: Pair, verify: Verify) -> Path:
    """Return the folder of a version's bundle. A sound copy is used without asking MLflow.

    Raises:
        IntegrityError: The bundle is missing, or differs from the digest.
        ServiceError: MLflow or the artifact store cannot be reached.
    """
    target = workspace.serving / f"{pair.model}-{pair.version}-{pair.digest}"
    if target.is_dir():
        try:
            _check(target, pair, verify)
            return target
        except IntegrityError:
            shutil.rmtree(target)
    scratch = workspace.serving / f".{target.name}-{uuid.uuid4().hex}"
    make_folder(scratch)
    try:
        with storage_errors(f"the copy of {pair.reference}", target):
            folder = _fetch(workspace, connection, pair, scratch)
            _check(folder, pair, verify)
            to_disk(folder)
            _move(folder, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def fetch_part(workspace: Workspace, connection: Connection, pair: Pair, scratch: Path, part: str) -> Path:
    """Fetch one file of a version's bundle into a folder, unchecked.

    Raises:
        IntegrityError: It is missing in the artifact store.
        ServiceError: MLflow or the artifact store cannot be reached.
    """
    return _fetch(workspace, connection, pair, scratch, f"/{part}")


def _fetch(workspace: Workspace, connection: Connection, pair: Pair, scratch: Path, part: str = "") -> Path:
    mlflow = import_mlflow()
    name = workspace.registered_name(pair.model)
    with connection.guarded(f"downloading {pair.reference}"):
        try:
            # `models:/` URIs are looked up in the process-wide registry, so the place is asked for first.
            place = connection.client.get_model_version_download_uri(name, str(pair.version))
            uri = f"{place.rstrip('/')}/{BUNDLE_PATH}{part}"
            found = mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=str(scratch), tracking_uri=connection.uri
            )
        except Exception as error:
            if not is_missing(error):
                raise
            raise IntegrityError(f"the bundle of {pair.reference} is missing in the artifact store") from error
    return Path(found)


def _check(folder: Path, pair: Pair, verify: Verify) -> None:
    try:
        digest = verify(folder)
    except IntegrityError as error:
        raise IntegrityError(f"the bundle of {pair.reference}: {error}") from error
    except PlaybillError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise IntegrityError(f"the bundle of {pair.reference} cannot be read: {error}") from error
    if digest != pair.digest:
        raise IntegrityError(f"the bundle of {pair.reference} has digest {digest}, its record says {pair.digest}")


def _move(folder: Path, target: Path) -> None:
    try:
        put_in_place(folder, target)
    except OSError:
        # Another process finished the same verified download first.
        if not target.is_dir():
            raise


MANIFEST, ENCODER = "manifest.json", "encoder.json"
FILES = (MANIFEST, SPEC, ENCODER)  # of a bundle, without what needs torch to be read


def read_record(workspace: Workspace, connection: Connection, version: ModelVersion) -> VersionRecord:
    """Read a version's record; see `Tracking.record`."""
    pair = pair_of(version)
    here = workspace.serving / f"{pair.model}-{pair.version}-{pair.digest}"
    with tempfile.TemporaryDirectory() as scratch:
        if not all((here / name).is_file() for name in FILES):
            here = Path(scratch)
            for name in FILES:
                fetch_part(workspace, connection, pair, here, name)
        texts = {name: (here / name).read_bytes() for name in FILES}
    _check_record(pair, texts)
    try:
        resolved, encoder = ResolvedModel.from_json(texts[SPEC].decode()), json.loads(texts[ENCODER])
    except (ValidationError, ValueError):
        raise IntegrityError(
            f"the record of {pair.reference} was written by another version of Playbill, train again"
        ) from None
    return VersionRecord(
        model=version.model,
        version=version.version,
        resolved=resolved,
        service=encoder["service"],
        service_version=encoder["service_version"],
        columns=tuple(sorted(_columns(encoder))),
        views=_views(json.loads(texts[MANIFEST]), version),
        aliases=version.aliases,
        parent=_parent(version),
    )


def _check_record(pair: Pair, texts: Mapping[str, bytes]) -> None:
    found = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    files = json.loads(texts[MANIFEST]).get("files", {}) if found[MANIFEST] == pair.digest else {}
    if wrong := [name for name in FILES if found[name] != files.get(name, pair.digest if name == MANIFEST else None)]:
        raise IntegrityError(f"the record of {pair.reference}: {', '.join(wrong)} changed since it was registered")


def _columns(encoder: Mapping[str, Any]) -> set[str]:
    names = ("numeric", "categorical", "title_snapshot", "title_categorical", "title_vectors")
    return {feature_of(column) for name in names for column in encoder.get(name, ())}


def _views(manifest: Mapping[str, Any], version: ModelVersion) -> dict[str, str]:
    views: dict[str, str] | None = manifest.get("extra", {}).get("feature_views")
    return _pairs(version.tags.get(f"{PREFIX}feature_views", "")) if views is None else views


def _pairs(text: str) -> dict[str, str]:
    found = (item.partition(":") for item in text.split(",") if item)
    return {name: value for name, _, value in found}


def _parent(version: ModelVersion) -> str | None:
    parent = version.tags.get(f"{PREFIX}parent_version")
    return f"{version.model}:{parent}" if parent and parent.isdigit() else parent
