"""A training set on disk as a Ray Dataset: every worker reads part files itself, nothing goes through the driver.

The only module of this package that imports Ray.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray.data
from ray.data.datasource import Partitioning

from playbill import ray_cluster
from playbill.datasets.export.stored import StoredDataset
from playbill.errors import StateError


def to_ray_dataset(
    folder: Path | str, fold: str | None = None, *, verify: bool = False, address: str | None = None
) -> Any:
    """Return the rows of a fold, or of all, as a `ray.data.Dataset` over the part files.

    fold and day are text columns, from the names of the folders. With `verify` every file is compared with the manifest
    first, which reads them all in this process. Where this process is in no cluster yet it joins the one at `address`:
    `workspace.ray_address`, else RAY_ADDRESS, else one is started here. It stays connected, as rows are read later.

    Raises:
        StateError: It is no training set, or the fold has no rows.
        UnknownNameError: There is no such fold.
        IntegrityError: The manifest, or with `verify` any file, was changed.
        ServiceError: There is no Ray cluster at the address.
    """
    stored = StoredDataset.open(folder, verify=verify)
    files = [str(path) for path in stored.files(fold)]
    if not files:
        raise StateError(f"training set {stored.folder} has no rows in fold '{fold}'")
    if not ray.is_initialized():
        ray_cluster.join(address)
    partitioning = Partitioning("hive", base_dir=str(stored.folder / "rows"), field_types={"fold": str, "day": str})
    return ray.data.read_parquet(files, partitioning=partitioning)
