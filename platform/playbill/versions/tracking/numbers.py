"""The numbers of an evaluation as files of its run: what gates read, under a digest that the run carries.

A run's own metrics are a few headlines for the charts. All other numbers would make MLflow's pages slow, so they stand
in `gates/numbers.json`. Beside it lie the values of single requests, `gates/CANVAS.parquet`, from which two versions
are compared request by request. The tag `playbill.numbers` is the digest of the first file, which holds the digests of
the others: a file that is missing or was changed is never read as "there is no such number".
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from playbill.errors import IntegrityError, ServiceError
from playbill.versions.tracking.connection import Connection, is_missing
from playbill.versions.tracking.registry import PREFIX

NUMBERS = PREFIX + "numbers"
FOLDER, FILE = "gates", "numbers.json"
REQUEST, MEMBER = "request_id", "member"
"""Columns of a canvas's file: the request's row id, and a dense code of its member."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class StoredNumbers:
    """What `write_numbers` left in a run."""

    connection: Connection
    run_id: str
    metrics: Mapping[str, float]  # flat name -> number
    digests: Mapping[str, str] = field(default_factory=dict)  # canvas -> SHA-256 of its file of requests

    def requests(self, canvas: str) -> pl.DataFrame | None:
        """Return a canvas's values by request, None when none were kept.

        Raises:
            IntegrityError: The file is missing or was changed.
            ServiceError: MLflow or the artifact store cannot be reached.
        """
        if canvas not in self.digests:
            return None
        name = f"{canvas}.parquet"
        return pl.read_parquet(io.BytesIO(_fetch(self.connection, self.run_id, name, self.digests[canvas])))


def write_numbers(
    connection: Connection, run_id: str, metrics: Mapping[str, float], requests: Mapping[str, pl.DataFrame]
) -> str:
    """Store an evaluation's numbers as artifacts of a run, and return the digest for its tag `NUMBERS`.

    Metrics have flat names; those that are not finite are left out. `requests` has of each canvas an [N] frame with
    `REQUEST`, `MEMBER`, slices, and values by request.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digests: dict[str, str] = {}
        for canvas, frame in requests.items():
            path = folder / f"{canvas}.parquet"
            frame.write_parquet(path, compression="zstd")
            digests[canvas] = _sha256(path.read_bytes())
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        content = {"format": _FORMAT, "metrics": finite, "requests": digests}
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()
        (folder / FILE).write_bytes(text)
        with connection.guarded("storing the numbers of an evaluation"):
            connection.client.log_artifacts(run_id, str(folder), FOLDER)
    return _sha256(text)


def read_numbers(connection: Connection, run_id: str, digest: str) -> StoredNumbers:
    """Read what `write_numbers` stored.

    Raises:
        IntegrityError: The file is missing, was changed, or has another format.
        ServiceError: MLflow or the artifact store cannot be reached.
    """
    content: dict[str, Any] = json.loads(_fetch(connection, run_id, FILE, digest))
    if content["format"] != _FORMAT:
        raise IntegrityError(f"{FOLDER}/{FILE} of run {run_id} was written by another version of Playbill")
    return StoredNumbers(connection, run_id, content["metrics"], content["requests"])


def _fetch(connection: Connection, run_id: str, name: str, digest: str) -> bytes:
    what = f"{FOLDER}/{name} of run {run_id}"
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with connection.guarded(f"reading {what}"):
                path = connection.client.download_artifacts(run_id, f"{FOLDER}/{name}", scratch)
        except ServiceError as error:
            if not is_missing(error.__cause__):
                raise
            raise IntegrityError(f"{what} is missing in the artifact store") from error
        content = Path(path).read_bytes()
    if _sha256(content) != digest:
        raise IntegrityError(f"{what} was changed since it was written")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
