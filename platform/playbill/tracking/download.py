"""Fetching a version's bundle: verified against its record, and in place only when it is whole."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from playbill.config import Workspace
from playbill.errors import IntegrityError, PlaybillError
from playbill.tracking.connection import NOT_FOUND, Connection, error_code, import_mlflow
from playbill.tracking.lineage import DIGEST
from playbill.tracking.packaging import BUNDLE_PATH
from playbill.tracking.registry import ModelVersion

Verify = Callable[[Path], str]
"""Reads a bundle folder and returns its digest; raises IntegrityError when a file is not what it says."""


def download(workspace: Workspace, connection: Connection, version: ModelVersion, verify: Verify) -> Path:
    """Return the folder of a version's bundle, downloaded unless a sound copy is there.

    Raises:
        IntegrityError: The version has no digest, or its bundle is missing or differs from it.
        ServiceError: MLflow or the artifact store cannot be reached.
    """
    if not version.digest:
        raise IntegrityError(f"{version.reference} has no tag '{DIGEST}', it was not registered by Playbill")
    target = workspace.serving / f"{version.model}-{version.version}-{version.digest}"
    if target.is_dir():
        try:
            _check(target, version, verify)
            return target
        except IntegrityError:
            shutil.rmtree(target)
    scratch = workspace.serving / f".{target.name}-{uuid.uuid4().hex}"
    scratch.mkdir(parents=True)
    try:
        folder = _fetch(workspace, connection, version, scratch)
        _check(folder, version, verify)
        _move(folder, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _fetch(workspace: Workspace, connection: Connection, version: ModelVersion, scratch: Path) -> Path:
    mlflow = import_mlflow()
    name = workspace.registered_name(version.model)
    with connection.guarded(f"downloading {version.reference}"):
        try:
            # `models:/` URIs are looked up in the process-wide registry, so the place is asked for first.
            place = connection.client.get_model_version_download_uri(name, str(version.version))
            uri = f"{place.rstrip('/')}/{BUNDLE_PATH}"
            found = mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=str(scratch), tracking_uri=connection.uri
            )
        except Exception as error:
            if not _is_missing(error):
                raise
            raise IntegrityError(f"the bundle of {version.reference} is missing in the artifact store") from error
    return Path(found)


def _is_missing(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError) or error_code(error) in NOT_FOUND:
        return True
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None) == 404 or "No such artifact" in str(error)


def _check(folder: Path, version: ModelVersion, verify: Verify) -> None:
    try:
        digest = verify(folder)
    except IntegrityError as error:
        raise IntegrityError(f"the bundle of {version.reference}: {error}") from error
    except PlaybillError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise IntegrityError(f"the bundle of {version.reference} cannot be read: {error}") from error
    if digest != version.digest:
        raise IntegrityError(
            f"the bundle of {version.reference} has digest {digest}, its record says {version.digest}"
        )


def _move(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError:
        # Another process finished the same verified download first.
        if not target.is_dir():
            raise
