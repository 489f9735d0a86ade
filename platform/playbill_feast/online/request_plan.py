"""A request for online features: planned once per list of features or service, read, and made into a response."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any
from uuid import uuid4

from feast import utils
from feast.feature_service import FeatureService
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from feast.utils import _augment_response_with_on_demand_transforms, ensure_request_data_values_exist
from feast.value_type import ValueType

from playbill_feast.clock import utc_now
from playbill_feast.online.backend import PackedDatabase
from playbill_feast.online.entity_keys import KeyKinds, keys_of_values
from playbill_feast.online.feast_values import key_kinds, kind_of, proto_value, view_fields
from playbill_feast.online.response import OpenedView, PackedOnlineResponse, RequestColumn
from playbill_feast.online.row_layout import PackedField
from playbill_feast.online.stored_view import past_ttl, stored_name, ttl_us_of

_PLANS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """One view's part of a request."""

    view: Any  # Feast's feature view, with the projection of the request
    stored: str  # Its name in the database
    keys: KeyKinds  # The request's columns that make up the key, in the order of the view's join keys
    fields: tuple[PackedField, ...]
    types: tuple[ValueType, ...]
    names: tuple[str, ...]  # The columns' names in the response
    ttl_us: int | None


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """A request without its entities."""

    views: tuple[ViewPlan, ...]
    groups: list[Any]  # Feast's own list of views and their features
    join_keys: frozenset[str]
    key_of_entity: Mapping[str, str]
    key_types: Mapping[str, ValueType]
    request_data: frozenset[str]
    on_demand: tuple[Any, ...]
    refs: list[str]
    returned: frozenset[str]
    """Names that belong into the response, beside join keys. Others are inputs of on-demand views."""
    full_names: bool


class PlanCache:
    """Plans by request, as long as the registry they were made from is the one in use.

    Feast reads its registry anew when its cache has expired, or when it is refreshed; every plan is then made anew
    too, so a response is never older than Feast's own.
    """

    def __init__(self) -> None:
        self._plans: dict[tuple[Any, ...], RequestPlan] = {}
        self._made_from: tuple[int, datetime] | None = None
        self._lock = Lock()

    def get(
        self, registry: BaseRegistry, project: str, features: list[str] | FeatureService, full_names: bool
    ) -> RequestPlan:
        """Return the plan of a request.

        Raises:
            Exception: Feast's own errors: an unknown feature, view or service, names that collide, a disabled view.
        """
        state = _state(registry)
        key = (project, full_names, *_key(features))
        if state is not None and state == self._made_from and (known := self._plans.get(key)) is not None:
            return known
        _tell_apart(registry)
        plan = make_plan(registry, project, features, full_names)
        self._keep(registry, key, plan)
        return plan

    def _keep(self, registry: BaseRegistry, key: tuple[Any, ...], plan: RequestPlan) -> None:
        # Making the plan may itself have made Feast read its registry anew.
        state = _state(registry)
        if state is None:
            return
        with self._lock:
            if state != self._made_from or len(self._plans) >= _PLANS_KEPT:
                self._plans, self._made_from = {}, state
            self._plans[key] = plan


def _state(registry: BaseRegistry) -> tuple[int, datetime] | None:
    """Return what identifies the registry's content in use, None when it is to be read anew."""
    created = getattr(registry, "cached_registry_proto_created", None)
    ttl = getattr(registry, "cached_registry_proto_ttl", None)
    if created is None or ttl is None or (ttl and utc_now() > created + ttl):
        return None
    return id(registry), created


def _tell_apart(registry: BaseRegistry) -> None:
    """Give the registry's content in use an identity of its own.

    Feast remembers what it listed by the memory address of that content, which the next content may take over: a
    view changed by `feast apply` was then served by its former definition, about one time in six.
    """
    content = getattr(registry, "cached_registry_proto", None)
    if content is not None and not content.version_id:
        content.version_id = uuid4().hex


def _key(features: list[str] | FeatureService) -> tuple[Any, ...]:
    if not isinstance(features, FeatureService):
        return tuple(features)
    chosen = (
        (view.name_to_use(), tuple(sorted(view.join_key_map.items())), tuple(field.name for field in view.features))
        for view in features.feature_view_projections
    )
    return (True, features.name, *chosen)


def make_plan(
    registry: BaseRegistry, project: str, features: list[str] | FeatureService, full_names: bool
) -> RequestPlan:
    """Resolve a request against the registry, by Feast's own rules."""
    refs, on_demand, key_of_entity, key_types, join_keys, groups, returned, request_data, _ = (
        utils._get_online_request_context(registry, project, features, full_names)
    )
    views = tuple(_view_plan(project, view, names, full_names) for view, names in groups)
    return RequestPlan(
        views=views,
        groups=groups,
        join_keys=frozenset(join_keys | _on_demand_keys(registry, project, on_demand)),
        key_of_entity=key_of_entity,
        key_types=key_types,
        request_data=frozenset(request_data),
        on_demand=tuple(on_demand),
        refs=refs,
        returned=frozenset(returned),
        full_names=full_names,
    )


def _on_demand_keys(registry: BaseRegistry, project: str, on_demand: list[Any]) -> set[str]:
    join_keys: set[str] = set()
    for view in on_demand:
        for entity in getattr(view, "entities", None) or []:
            named = registry.get_entity(entity, project, allow_cache=True) if isinstance(entity, str) else entity
            join_keys.add(named.join_key)
    join_keys.discard(DUMMY_ENTITY_ID)
    return join_keys


def _view_plan(project: str, view: Any, features: list[str], full_names: bool) -> ViewPlan:
    types = view_fields(view)
    prefix = f"{view.projection.name_to_use()}__" if full_names else ""
    renamed = view.projection.join_key_map or {}
    return ViewPlan(
        view=view,
        stored=stored_name(project, view),
        keys=[(renamed.get(name, name), kind) for name, kind in key_kinds(view)],
        fields=tuple(PackedField(name, kind_of(types.get(name, ValueType.UNKNOWN))) for name in features),
        types=tuple(types.get(name, ValueType.UNKNOWN) for name in features),
        names=tuple(prefix + name for name in features),
        ttl_us=ttl_us_of(view),
    )


_PLAIN = {
    ValueType.INT64: (int, "int64_val"),
    ValueType.INT32: (int, "int32_val"),
    ValueType.STRING: (str, "string_val"),
}
_LIMITS = {ValueType.INT32: 2**31, ValueType.INT64: 2**63}
EntityRows = list[dict[str, Any]] | Mapping[str, Any]


def as_columns(entity_rows: EntityRows) -> dict[str, Sequence[Any]]:
    """Turn a request's entity rows into columns.

    Raises:
        ValueError: Rows have different keys, columns different lengths, or there is nothing.
    """
    if not isinstance(entity_rows, list):
        columns = {
            name: values if isinstance(values, Sequence) else list(values.val) for name, values in entity_rows.items()
        }
        if len({len(values) for values in columns.values()}) > 1:
            raise ValueError("All entity rows must have the same columns.")
        return columns
    if not entity_rows:
        raise ValueError("entity_rows is empty, expected at least one row.")
    names = entity_rows[0].keys()
    for number, row in enumerate(entity_rows):
        if row.keys() != names:
            differing = sorted(map(str, names ^ row.keys()))
            raise ValueError(f"All entity_rows must have the same keys. Row {number} differs in {differing}.")
    return {name: [row[name] for row in entity_rows] for name in names}


class RequestEntities:
    """A request's columns, sorted into join keys and request data.

    Raises:
        ValueError: Columns have different lengths.
        RequestDataNotFoundInEntityRowsException: An on-demand view's request data is missing.
    """

    def __init__(self, plan: RequestPlan, entity_rows: EntityRows) -> None:
        columns = as_columns(entity_rows)
        self.count = len(next(iter(columns.values()), ()))
        self._plan = plan
        self._keys: dict[str, Sequence[Any]] = {}
        keys, data = [], []
        for name, values in columns.items():
            if name in plan.request_data:
                data.append(self._column(name, values, plan.key_types.get(name, ValueType.UNKNOWN)))
            elif (key := self._join_key(name)) is not None:
                keys.append(self._column(key, values, plan.key_types.get(name, ValueType.UNKNOWN)))
        ensure_request_data_values_exist(set(plan.request_data), {column.name: [] for column in data})
        self.columns = [*keys, *data]
        self.join_keys = frozenset(column.name for column in keys)

    def _join_key(self, name: str) -> str | None:
        if name in self._plan.join_keys:
            return name
        if name not in self._plan.key_of_entity:
            return None
        warnings.warn("Using entity name is deprecated. Use join_key instead.", stacklevel=2)
        return self._plan.key_of_entity[name]

    def _column(self, name: str, values: Sequence[Any], value_type: ValueType) -> RequestColumn:
        plain, field = _PLAIN.get(value_type, (None, ""))
        if plain is not None and all(type(value) is plain for value in values) and _fits(value_type, values):
            self._keys[name] = values
            return RequestColumn(name, values, None, field)
        if values and isinstance(values[0], Value):
            protos = list(values)
        else:
            protos = python_values_to_proto_values(list(values), value_type)
        self._keys[name] = [proto_value(proto) for proto in protos]
        return RequestColumn(name, [feast_value_type_to_python_type(proto) for proto in protos], protos, "")

    def keys(self, view: ViewPlan) -> list[bytes | None]:
        """Return the encoded keys of a view's rows.

        Raises:
            KeyError: The request lacks one of the view's join keys.
        """
        missing = [name for name, _ in view.keys if not self._keys.get(name)]
        if missing:
            raise KeyError(
                f"Missing join key values for keys: {missing} of feature view '{view.view.name}'. "
                f"Provided join_key_values: {sorted(self.join_keys)}"
            )
        return keys_of_values(view.keys, self._keys, self.count)


def _fits(value_type: ValueType, values: Sequence[Any]) -> bool:
    limit = _LIMITS.get(value_type)
    return limit is None or not values or (min(values) >= -limit and max(values) < limit)


def response_of(
    plan: RequestPlan,
    entities: RequestEntities,
    rows: PackedDatabase,
    read: Sequence[Sequence[bytes | None]],
    now_us: int | None,
    include_versions: bool,
) -> PackedOnlineResponse:
    """Open what was read: packed rows, a list per view of the plan. Ages count to `now_us`; None enforces no ttl."""
    opened = [
        _open(rows, view, packed, now_us, include_versions) for view, packed in zip(plan.views, read, strict=True)
    ]
    returned = plan.returned | entities.join_keys
    if not plan.on_demand:
        every = all(name in returned for view in plan.views for name in view.names) and not plan.request_data
        return PackedOnlineResponse(entities.columns, opened, returned=None if every else returned)
    derived = _derived(plan, PackedOnlineResponse(entities.columns, opened))
    return PackedOnlineResponse(entities.columns, opened, derived, returned)


def _open(
    rows: PackedDatabase, view: ViewPlan, packed: Sequence[bytes | None], now_us: int | None, include_version: bool
) -> OpenedView:
    opened = rows.open(view.stored, packed, view.fields)
    version = None
    if include_version:
        projection = view.view.projection
        number = getattr(view.view, "current_version_number", 0) or 0
        version = (projection.name_alias or projection.name, number)
    return OpenedView(view.names, view.types, opened, past_ttl(opened.event_us, view.ttl_us, now_us), version)


def _derived(plan: RequestPlan, inputs: PackedOnlineResponse) -> list[tuple[str, Any, Any]]:
    """Compute on-demand views by Feast's own code, on Feast's own message."""
    message = GetOnlineFeaturesResponse(results=[])
    vectors = inputs.vectors()
    message.metadata.feature_names.val.extend(name for name, _ in vectors)
    message.results.extend(vector for _, vector in vectors)
    types = OnlineStore._build_feature_types(plan.groups)
    _augment_response_with_on_demand_transforms(
        message, plan.refs, list(plan.on_demand), plan.full_names, feature_types=types
    )
    names = message.metadata.feature_names.val[len(vectors) :]
    return [
        (name, vector, types.get(name)) for name, vector in zip(names, message.results[len(vectors) :], strict=True)
    ]
