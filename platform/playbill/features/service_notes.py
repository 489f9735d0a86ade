"""Which feature services can be read without Feast, as its registry has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from feast.data_format import ParquetFormat
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileSource

from playbill.errors import PlaybillError
from playbill.features.catalog import Catalog
from playbill.features.feast_door import FeastDoor
from playbill.features.reading_plan import KNOWN, ServiceNote, StoredNote, code_digest
from playbill.features.reports import FeatureEntity
from playbill_feast.offline.scan_filter import known_on
from playbill_feast.offline.sources import join_keys, local_path
from playbill_feast.online.columns import READABLE
from playbill_feast.online.feast_values import key_kinds, kind_of, view_fields


def notes_of(door: FeastDoor) -> Mapping[str, ServiceNote]:
    """Return a note of every service that our own stores hold in local files, and whose code is all known."""
    if known_on(door.config) is not None:
        return {}
    with door.registry_errors():
        names = [service.name for service in door.store.registry.list_feature_services(door.workspace.name)]
    notes = {}
    for name in names:
        try:
            note = _note(door, door.catalog(name))
        except PlaybillError:
            # A service of no model, such as one of titles in countries; who asks for it hears why.
            continue
        if note is not None:
            notes[name] = note
    return notes


def _note(door: FeastDoor, catalog: Catalog) -> ServiceNote | None:
    codes = {name: code_digest(view.feature_transformation.udf_string) for name, view in catalog.on_demand.items()}
    members, titles = (_stored(door, catalog, *entities) for entities in (("member", "request"), ("title",)))
    if members is None or titles is None or not set(codes.values()) <= KNOWN.keys():
        return None
    if catalog.schema.of("title_country") or catalog.schema.reads:
        return None
    if not all(
        view.materialization_intervals for view in catalog.views.values() if view.name in {m.view for m in members}
    ):
        return None
    return ServiceNote(
        columns=catalog.schema.columns,
        members=members,
        titles=titles,
        derived_members={view.name: codes[view.name] for view in catalog.derived("member", "request")},
        derived_titles={view.name: codes[view.name] for view in catalog.derived("title")},
    )


def _stored(door: FeastDoor, catalog: Catalog, *entities: FeatureEntity) -> tuple[StoredNote, ...] | None:
    """Return notes of the stored views behind the columns of some entities; None where Feast has to read one."""
    views = []
    for name, fields in catalog.plain(*entities).items():
        view = catalog.views[name]
        path = _file(door, view)
        if path is None or any(own != theirs for own, theirs in join_keys(view).items()):
            return None
        types = view_fields(view)
        if any(kind_of(types[field.name]) not in READABLE for field in fields):
            return None
        views.append(
            StoredNote(
                view=name,
                keys=tuple(key_kinds(view)),
                fields=tuple((field.name, kind_of(types[field.name])) for field in fields),
                ttl=view.ttl or None,
                path=path,
                at=view.batch_source.timestamp_field,
                created=view.batch_source.created_timestamp_column or None,
            )
        )
    return tuple(views)


def _file(door: FeastDoor, view: FeatureView) -> Path | None:
    """Return a view's parquet on this machine, None for any other source."""
    source = view.batch_source
    if not isinstance(source, FileSource) or source.field_mapping:
        return None
    if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
        return None
    return local_path(door.config, source.path)
