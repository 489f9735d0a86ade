"""Fetching a version's bundle: verified against its record, and in place only when it is whole."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playbill.config import Workspace
from playbill.errors import IntegrityError, PlaybillError
from playbill.files import make_folder, put_in_place, storage_errors, to_disk
from playbill.versions.tracking.connection import Connection, import_mlflow, is_missing
from playbill.versions.tracking.lineage import DIGEST
from playbill.versions.tracking.packaging import BUNDLE_PATH
from playbill.versions.tracking.registry import ModelVersion

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
