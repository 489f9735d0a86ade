"""What a registered feature service consists of, read from the registry and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from feast import FeatureStore
from feast.errors import FeatureServiceNotFoundException, FeatureViewNotFoundException
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.feature_view_projection import FeatureViewProjection
from feast.field import Field
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Array, Float32, Float64

from playbill.errors import DefinitionError, Problem, StateError, UnknownNameError
from playbill.features.reports import REQUEST_AT, FeatureColumn, FeatureEntity, FeatureKind, ServiceSchema

_NUMERIC = {"FLOAT", "DOUBLE", "INT32", "INT64", "BOOL"}
_CATEGORICAL = {"STRING"}
_ENTITIES: dict[frozenset[str], FeatureEntity] = {
    frozenset({"member_id"}): "member",
    frozenset({"member_id", "canvas"}): "member",
    frozenset({"title_id"}): "title",
    frozenset({"title_id", "country"}): "title_country",
    frozenset({"country"}): "title_country",
    frozenset(): "request",
}


@dataclass(frozen=True)
class Catalog:
    """A service's schema and the Feast objects behind it."""

    schema: ServiceSchema
    views: dict[str, FeatureView]
    """Every view that is needed, those that on-demand views read included."""
    on_demand: dict[str, OnDemandFeatureView]
    entities: dict[str, FeatureEntity]
    """Whose values a view (of either kind) holds."""

    def plain(self, *entities: FeatureEntity, vectors: bool | None = None) -> dict[str, list[Field]]:
        """Return the views to read for some entities: name -> the features needed of it.

        `vectors` leaves out what is read as numbers and strings, or (False) as vectors.
        """
        needed: dict[str, dict[str, Field]] = {}
        for column in self.schema.of(*entities):
            if vectors is not None and vectors is (column.item is None):
                continue
            for name, field in self._sources(column):
                needed.setdefault(name, {})[field.name] = field
        return {name: list(fields.values()) for name, fields in needed.items()}

    def derived(self, *entities: FeatureEntity) -> list[OnDemandFeatureView]:
        """Return the on-demand views to compute for some entities."""
        return [view for name, view in self.on_demand.items() if self.entities[name] in entities]

    def fields_read(self) -> tuple[str, ...]:
        """Return the fields of a request that member and request columns depend on, beside its member and moment.

        Views of members on a canvas read the canvas, and on-demand views what they declare.
        """
        views = (self.views[name] for name in self.plain("member", "request") if name in self.views)
        keys = {key for view in views for key in _keys(view)}
        derived = {name for view in self.derived("member", "request") for name in view.get_request_data_schema()}
        return tuple(sorted((keys | derived) - {"member_id", REQUEST_AT}))

    def refs(self, *entities: FeatureEntity) -> list[str]:
        """Return Feast's `view:feature` names of the columns of some entities."""
        return list(dict.fromkeys(f"{column.view}:{column.feature}" for column in self.schema.of(*entities)))

    def _sources(self, column: FeatureColumn) -> Iterator[tuple[str, Field]]:
        if column.view in self.views:
            view = self.views[column.view]
            yield column.view, next(field for field in view.features if field.name == column.feature)
            return
        for projection in self.on_demand[column.view].source_feature_view_projections.values():
            for field in projection.features:
                yield projection.name, field


def read_catalog(store: FeatureStore, service: str, workspace: str) -> Catalog:
    """Read a service and every view it needs.

    Raises:
        UnknownNameError: There is no such service.
        StateError: Nothing is registered, or the service names views that are not; all are named.
        DefinitionError: A feature cannot enter a model; all are named.
    """
    advice = f"Run `playbill -w {workspace} apply`."
    try:
        found = store.registry.get_feature_service(service, store.project)
    except FeatureServiceNotFoundException:
        known = [other.name for other in store.registry.list_feature_services(store.project)]
        if not known:
            raise StateError(f"workspace '{workspace}' has no feature services registered. {advice}") from None
        raise UnknownNameError("feature service", service, known) from None
    reader = _ViewReader(store)
    for projection in found.feature_view_projections:
        reader.read(projection.name)
    if reader.missing:
        names = ", ".join(f"'{name}'" for name in dict.fromkeys(reader.missing))
        raise StateError(f"feature service '{service}' needs {names}, not in the registry. {advice}")
    return _checked(service, found.feature_view_projections, reader)


class _ViewReader:
    """Collects views by name, following on-demand views to what they read."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.views: dict[str, FeatureView] = {}
        self.on_demand: dict[str, OnDemandFeatureView] = {}
        self.missing: list[str] = []

    def read(self, name: str) -> None:
        registry, project = self.store.registry, self.store.project
        try:
            self.views[name] = registry.get_feature_view(name, project)
            return
        except FeatureViewNotFoundException:
            pass
        try:
            view = registry.get_on_demand_feature_view(name, project)
        except FeatureViewNotFoundException:
            self.missing.append(name)
            return
        self.on_demand[name] = view
        for projection in view.source_feature_view_projections.values():
            self.read(projection.name)

    def entities(self) -> dict[str, FeatureEntity | None]:
        kinds = {name: _ENTITIES.get(_keys(view)) for name, view in self.views.items()}
        for name, view in self.on_demand.items():
            kinds[name] = _derived_entity([kinds[p.name] for p in view.source_feature_view_projections.values()])
        return kinds


def _keys(view: FeatureView) -> frozenset[str]:
    return frozenset(column.name for column in view.entity_columns) - {DUMMY_ENTITY_ID}


def _derived_entity(sources: list[FeatureEntity | None]) -> FeatureEntity | None:
    """Return `title_country` or `title` for what derives from titles, None for a mixture with members, else `request`.

    What holds in a country is the same for all of its titles, so it is told of a title in a country.
    """
    of_title = "title_country" in sources or "title" in sources
    if None in sources or (of_title and "member" in sources):
        return None
    return "title_country" if "title_country" in sources else "title" if of_title else "request"


def _checked(service: str, projections: list[FeatureViewProjection], reader: _ViewReader) -> Catalog:
    entities = reader.entities()
    columns, problems = [], []
    for projection in projections:
        entity = entities[projection.name]
        if projection.name_to_use() != projection.name or projection.join_key_map:
            problems.append(Problem(projection.name, "is renamed or joined by another key, which no model can use."))
        elif entity is None:
            problems.append(Problem(projection.name, _KEYED))
        else:
            good, bad = _columns(projection, entity)
            columns += good
            problems += bad
    if problems:
        raise DefinitionError(f"feature service '{service}'", problems)
    known = {name: entity for name, entity in entities.items() if entity is not None}
    schema = ServiceSchema(service, tuple(columns), _version(columns, reader))
    catalog = Catalog(schema, reader.views, reader.on_demand, known)
    return replace(catalog, schema=replace(schema, reads=catalog.fields_read()))


_KEYED = "must be keyed by member_id, by member_id and canvas, by title_id, by title_id and country, or by nothing."


def _columns(projection: FeatureViewProjection, entity: FeatureEntity) -> tuple[list[FeatureColumn], list[Problem]]:
    columns, problems = [], []
    for field in projection.features:
        kind, name = feature_kind(field), f"{projection.name}__{field.name}"
        if entity == "title_country" and kind != "numeric":
            what = f"is {field.dtype}; of a title in a country only numbers can enter a model."
            problems.append(Problem(f"{projection.name}.{field.name}", what, "Leave it out or derive a number."))
            continue
        if kind is not None:
            columns.append(FeatureColumn(name, projection.name, field.name, entity, kind))
        elif length := vector_length(field):
            own = (projection.name, field.name, entity)
            columns += [FeatureColumn(f"{name}[{item}]", *own, "numeric", item) for item in range(length)]
        else:
            what, hint = "neither a number nor a string", "Leave it out or derive one."
            if field.dtype in _FLOATS:
                what, hint = "of no known length", "Declare it with vector_length=N, and a model reads N numbers."
            problems.append(Problem(f"{projection.name}.{field.name}", f"is {field.dtype}, {what}.", hint))
    return columns, problems


_FLOATS = (Array(Float32), Array(Float64))


def vector_length(field: Field) -> int:
    """Return how many numbers a model reads of an array of floats that says so; 0 for any other feature."""
    return int(field.vector_length or 0) if field.dtype in _FLOATS else 0


def feature_kind(field: Field) -> FeatureKind | None:
    """Return how a model reads a feature, None for one that cannot enter a model."""
    name = value_type(field)
    return "numeric" if name in _NUMERIC else "categorical" if name in _CATEGORICAL else None


def value_type(field: Field) -> str:
    """Return Feast's name of a field's type, such as FLOAT or STRING."""
    return str(field.dtype.to_value_type().name)


def _version(columns: list[FeatureColumn], reader: _ViewReader) -> str:
    """Hash what decides the values: not descriptions, tags or times of registration."""
    views = {name: stored_definition(view) for name, view in reader.views.items()}
    derived = {name: derived_definition(view) for name, view in reader.on_demand.items()}
    content = {"columns": [column.name for column in columns], "views": views, "derived": derived}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def stored_definition(view: FeatureView) -> dict[str, Any]:
    """Return what of a view's definition decides its values, ready for JSON."""
    return {
        "keys": sorted(_keys(view)),
        "ttl_s": view.ttl.total_seconds() if view.ttl else 0,
        "features": sorted((field.name, value_type(field)) for field in view.features),
    }


def derived_definition(view: OnDemandFeatureView) -> dict[str, Any]:
    """Return what of an on-demand view's definition decides its values, ready for JSON."""
    return {
        "code": view.feature_transformation.udf_string,
        "features": sorted((field.name, value_type(field)) for field in view.features),
    }
