"""A bundle: the folder that is a model version. Definitions as JSON, titles as parquet, weights as safetensors.

`manifest.json` holds the SHA-256 of every other file, and the bundle's digest is the SHA-256 of the manifest.
Reading checks both, parses data and never executes anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from playbill.datasets import Encoder
from playbill.definitions.specs import ResolvedModel
from playbill.errors import IntegrityError
from playbill.files import replaced_folder
from playbill.models import Network, NetworkConfig
from playbill.models.weights import load_network, save_tensors

FORMAT = 1
SPEC, ENCODER, NETWORK = "spec.json", "encoder.json", "network.json"
TITLES, WEIGHTS, MANIFEST = "titles.parquet", "weights.safetensors", "manifest.json"
FILES = (SPEC, ENCODER, NETWORK, TITLES, WEIGHTS)
FEATURE_FILES = "feature_files"  # key of `extra`: view -> digests of the feature files that the model was trained on
VECTORS = "vectors"  # key of `extra`: view -> which published vectors the model was trained on
_TITLE_SCHEMA = {"title_id": pl.String, "plays": pl.Float32}


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    folder: Path
    digest: str  # SHA-256 of its manifest
    resolved: ResolvedModel
    encoder: Encoder
    config: NetworkConfig
    # title_id and plays of the training part, one row for each of the encoder's titles, in its order
    titles: pl.DataFrame
    extra: dict[str, Any]  # what the training run wrote beside it, such as its watermark

    def network(self) -> Network:
        """Build the network with its weights, ready for scoring.

        Raises:
            IntegrityError: The weights do not fit the configuration.
        """
        return load_network(self.config, self.folder / WEIGHTS)


def write_bundle(
    folder: Path,
    *,
    resolved: ResolvedModel,
    encoder: Encoder,
    config: NetworkConfig,
    weights: Mapping[str, Tensor],
    plays: NDArray[Any],
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Write a bundle and return its digest. It appears whole or not at all; one that is there is replaced.

    `plays` [T] are those of each title in the training part, padding row included (`TrainingSet.plays`); `extra` is
    ready for JSON.
    """
    with replaced_folder(folder, "the bundle") as building:
        for name, text in ((SPEC, resolved.to_json()), (ENCODER, encoder.to_json()), (NETWORK, config.to_json())):
            (building / name).write_text(text, encoding="utf-8")
        title_ids = pl.Series("title_id", encoder.state.titles, dtype=pl.String)
        titles = title_ids.to_frame().with_columns(plays=pl.Series(plays[1:], dtype=pl.Float32))
        titles.write_parquet(building / TITLES)
        save_tensors(dict(weights), building / WEIGHTS)
        manifest = {
            "format": FORMAT,
            "files": {name: _sha256(building / name) for name in FILES},
            "extra": dict(extra or {}),
        }
        manifest_text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False).encode()
        (building / MANIFEST).write_bytes(manifest_text)
    return hashlib.sha256(manifest_text).hexdigest()


def verify_bundle(folder: Path, digest: str | None = None) -> str:
    """Check every file of a bundle against its manifest, and return its digest. Other files in the folder are not read.

    Raises:
        IntegrityError: A file is missing or differs, the format is unknown, or it is another bundle.
    """
    return _checked(folder, digest)[1]


def read_bundle(folder: Path, digest: str | None = None) -> Bundle:
    """Verify a bundle and read everything but the weights.

    Raises:
        IntegrityError: See `verify_bundle`, or a file cannot be read though it is unchanged.
    """
    manifest, found = _checked(folder, digest)
    try:
        resolved = ResolvedModel.from_json((folder / SPEC).read_text(encoding="utf-8"))
        config = NetworkConfig.from_json((folder / NETWORK).read_text(encoding="utf-8"))
        encoder = Encoder.from_json((folder / ENCODER).read_text(encoding="utf-8"))
        titles = pl.read_parquet(folder / TITLES).cast(dict(_TITLE_SCHEMA))  # type: ignore[arg-type]
    except (ValidationError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        reason = _first_mistakes(error) if isinstance(error, ValidationError) else str(error)
        raise IntegrityError(
            f"bundle {folder} was written by another version of Playbill, train again: {reason}"
        ) from None
    if tuple(titles["title_id"].to_list()) != encoder.state.titles:
        raise IntegrityError(f"bundle {folder}: {TITLES} and {ENCODER} list different titles")
    return Bundle(folder, found, resolved, encoder, config, titles, manifest["extra"])


def _first_mistakes(error: ValidationError, shown: int = 2) -> str:
    """Say in one line what a definition has that is not known here."""
    mistakes = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    more = f"; and {len(mistakes) - shown} more" if len(mistakes) > shown else ""
    return "; ".join(mistakes[:shown]) + more


def _checked(folder: Path, digest: str | None) -> tuple[dict[str, Any], str]:
    try:
        text = (folder / MANIFEST).read_bytes()
    except OSError:
        raise IntegrityError(f"{folder} is no bundle: it has no readable {MANIFEST}") from None
    found = hashlib.sha256(text).hexdigest()
    if digest is not None and found != digest:
        raise IntegrityError(f"bundle {folder} has digest {found}, its record says {digest}")
    manifest = _parsed(folder, text)
    if wrong := [name for name in FILES if _sha256(folder / name) != manifest["files"][name]]:
        raise IntegrityError(f"bundle {folder}: {', '.join(wrong)} missing or changed since it was written")
    return manifest, found


def _parsed(folder: Path, text: bytes) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(text)
        known, unnamed = manifest["format"] == FORMAT, sorted(set(FILES) - dict(manifest["files"]).keys())
        dict(manifest["extra"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{folder / MANIFEST} is damaged: {error}") from None
    if not known:
        raise IntegrityError(f"bundle {folder} has format {manifest['format']}, this Playbill reads {FORMAT}")
    if unnamed:
        raise IntegrityError(f"{folder / MANIFEST} does not name {', '.join(unnamed)}")
    return manifest


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
