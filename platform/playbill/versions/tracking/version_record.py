"""What a registered version was trained from: the small files of its bundle, and its tags."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from playbill.config import Workspace
from playbill.definitions.specs import ResolvedModel
from playbill.definitions.zoo.versions import VersionRecord
from playbill.errors import IntegrityError
from playbill.versions.tracking.connection import Connection
from playbill.versions.tracking.download import Pair, fetch_part, pair_of
from playbill.versions.tracking.lineage import PREFIX
from playbill.versions.tracking.packaging import SPEC
from playbill.versions.tracking.registry import ModelVersion

MANIFEST, ENCODER = "manifest.json", "encoder.json"
FILES = (MANIFEST, SPEC, ENCODER)
"""Of a bundle, without what needs torch to be read."""


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
    _check(pair, texts)
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


def _check(pair: Pair, texts: Mapping[str, bytes]) -> None:
    """Check the manifest against the version's digest, and the other files against the manifest."""
    found = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    files = json.loads(texts[MANIFEST]).get("files", {}) if found[MANIFEST] == pair.digest else {}
    if wrong := [name for name in FILES if found[name] != files.get(name, pair.digest if name == MANIFEST else None)]:
        raise IntegrityError(f"the record of {pair.reference}: {', '.join(wrong)} changed since it was registered")


def _columns(encoder: Mapping[str, Any]) -> set[str]:
    names = ("numeric", "categorical", "title_snapshot", "title_categorical")
    return {column for name in names for column in encoder.get(name, ())}


def _views(manifest: Mapping[str, Any], version: ModelVersion) -> dict[str, str]:
    """Return each view's hash; versions from before the manifest had them hold them in a tag."""
    views: dict[str, str] | None = manifest.get("extra", {}).get("feature_views")
    return _pairs(version.tags.get(f"{PREFIX}feature_views", "")) if views is None else views


def _pairs(text: str) -> dict[str, str]:
    """Read `a:1,b:2`."""
    found = (item.partition(":") for item in text.split(",") if item)
    return {name: value for name, _, value in found}


def _parent(version: ModelVersion) -> str | None:
    parent = version.tags.get(f"{PREFIX}parent_version")
    return f"{version.model}:{parent}" if parent and parent.isdigit() else parent
