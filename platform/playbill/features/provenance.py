"""Which definitions and which values a feature service reads: what a training set's record says of its features."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from feast import FileSource
from feast.feature_view import FeatureView
from feast.on_demand_feature_view import OnDemandFeatureView

from playbill.clock import from_microseconds
from playbill.features.catalog import derived_definition, stored_definition
from playbill.features.feast_door import FeastDoor
from playbill.features.reports import FeatureProvenance, ViewProvenance
from playbill.features.view_folder import ViewFolder
from playbill_feast.frames import as_utc
from playbill_feast.offline.parquet_files import files_digest, parts_of
from playbill_feast.offline.sources import local_path, scan_source

SHOWN = 16
"""Letters of a file's digest."""


def provenance(door: FeastDoor, service: str) -> FeatureProvenance:
    """Return the record of a service's features. Every file behind it is read once."""
    catalog = door.catalog(service)
    with door.registry_errors():
        registry = door.store.registry.proto()
        registered = door.store.registry.get_feature_service(service, door.workspace.name)
    views = [
        *(_stored(door, view) for view in catalog.views.values()),
        *(_derived(view) for view in catalog.on_demand.values()),
    ]
    return FeatureProvenance(
        service=service,
        service_version=catalog.schema.version,
        project=door.workspace.name,
        registry_version=registry.version_id or None,
        registry_updated=_moment(registered.last_updated_timestamp),
        views=tuple(sorted(views, key=lambda view: view.view)),
    )


def file_digests(door: FeastDoor, service: str) -> dict[str, list[str]]:
    """Return view -> digests of the files behind it, old to new. A source that is no local file has none.

    Raises:
        StateError: A view's file does not exist.
    """
    found = {}
    for name, view in sorted(door.catalog(service).views.items()):
        source = view.batch_source
        path = local_path(door.config, source.path) if isinstance(source, FileSource) else None
        if path is not None:
            scan_source(door.config, source, view.name)
            found[name] = [files_digest(file)[:SHOWN] for file in parts_of(path)]
    return found


def _derived(view: OnDemandFeatureView) -> ViewProvenance:
    return ViewProvenance(view.name, "on_demand", _hash(derived_definition(view)), view.current_version_number)


def _stored(door: FeastDoor, view: FeatureView) -> ViewProvenance:
    source = view.batch_source
    created = source.created_timestamp_column
    times = {"event": source.timestamp_field, **({"created": created} if created else {})}
    ends = [
        end(pl.col(column)).alias(f"{name}_{side}")
        for name, column in times.items()
        for side, end in (("from", pl.Expr.min), ("until", pl.Expr.max))
    ]
    found = (
        scan_source(door.config, source, view.name).select(pl.len().alias("rows"), *ends).collect().row(0, named=True)
    )
    path = local_path(door.config, source.path) if isinstance(source, FileSource) else None
    return ViewProvenance(
        view=view.name,
        kind="stored",
        definition=_hash(stored_definition(view)),
        version=view.current_version_number,
        rows=found["rows"],
        event_from=_moment(found["event_from"]),
        event_until=_moment(found["event_until"]),
        created_from=_moment(found.get("created_from")),
        created_until=_moment(found.get("created_until")),
        **(_built(path) if path else {}),
    )


def _moment(value: Any) -> datetime | None:
    return as_utc(value) if isinstance(value, datetime) else None


def _built(path: Path) -> dict[str, Any]:
    """Return the hash of a local source's files, old to new, and what they were built from, where that is known."""
    files = {"files": files_digest(path)}
    state = ViewFolder(path).state()
    if state is None:
        return files
    return {
        **files,
        "encoder": state.version,
        "snapshot_id": state.snapshot_id,
        "built_since": _microsecond(state.since_us),
        "built_until": _microsecond(state.until_us),
    }


def _microsecond(number: int | None) -> datetime | None:
    return from_microseconds(number) if number else None


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
