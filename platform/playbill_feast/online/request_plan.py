"""What a request for online features comes down to, worked out once per list of features or service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any
from uuid import uuid4

from feast import utils
from feast.feature_service import FeatureService
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.registry.base_registry import BaseRegistry
from feast.value_type import ValueType

from playbill.clock import WallClock
from playbill_feast.online.entity_keys import KeyKinds
from playbill_feast.online.feast_values import key_kinds, kind_of, view_fields
from playbill_feast.online.row_layout import PackedField
from playbill_feast.online.stored_view import stored_name, ttl_us_of

_PLANS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """One view's part of a request."""

    view: Any
    """Feast's feature view, with the projection it is asked for by."""
    stored: str
    """Its name in the database."""
    keys: KeyKinds
    """The request's columns that make up the key, in the order of the view's join keys."""
    wanted: tuple[PackedField, ...]
    types: tuple[ValueType, ...]
    names: tuple[str, ...]
    """The columns' names in the answer."""
    ttl_us: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A request without its entities."""

    views: tuple[ViewPlan, ...]
    groups: list[Any]
    """Feast's own list of views and their features."""
    join_keys: frozenset[str]
    key_of_entity: Mapping[str, str]
    key_types: Mapping[str, ValueType]
    request_data: frozenset[str]
    on_demand: tuple[Any, ...]
    refs: list[str]
    kept: frozenset[str]
    """Names that belong into the answer, beside join keys. Others are inputs of on-demand views."""
    full_names: bool


class Plans:
    """Plans by request, as long as the registry they were made from is the one in use.

    Feast reads its registry anew when its cache has expired, or when told to; every plan is then made anew too, so
    an answer is never older than Feast's own.
    """

    def __init__(self) -> None:
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self._made_from: tuple[int, datetime] | None = None
        self._lock = Lock()

    def get(self, registry: BaseRegistry, project: str, features: list[str] | FeatureService, full_names: bool) -> Plan:
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

    def _keep(self, registry: BaseRegistry, key: tuple[Any, ...], plan: Plan) -> None:
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
    if created is None or ttl is None or (ttl and WallClock().now() > created + ttl):
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


def make_plan(registry: BaseRegistry, project: str, features: list[str] | FeatureService, full_names: bool) -> Plan:
    """Resolve a request against the registry, by Feast's own rules."""
    refs, on_demand, key_of_entity, key_types, join_keys, groups, kept, request_data, _ = (
        utils._get_online_request_context(registry, project, features, full_names)
    )
    views = tuple(_view_plan(project, view, names, full_names) for view, names in groups)
    return Plan(
        views=views,
        groups=groups,
        join_keys=frozenset(join_keys | _on_demand_keys(registry, project, on_demand)),
        key_of_entity=key_of_entity,
        key_types=key_types,
        request_data=frozenset(request_data),
        on_demand=tuple(on_demand),
        refs=refs,
        kept=frozenset(kept),
        full_names=full_names,
    )


def _on_demand_keys(registry: BaseRegistry, project: str, on_demand: list[Any]) -> set[str]:
    found: set[str] = set()
    for view in on_demand:
        for entity in getattr(view, "entities", None) or []:
            named = registry.get_entity(entity, project, allow_cache=True) if isinstance(entity, str) else entity
            found.add(named.join_key)
    found.discard(DUMMY_ENTITY_ID)
    return found


def _view_plan(project: str, view: Any, features: list[str], full_names: bool) -> ViewPlan:
    types = view_fields(view)
    prefix = f"{view.projection.name_to_use()}__" if full_names else ""
    renamed = view.projection.join_key_map or {}
    return ViewPlan(
        view=view,
        stored=stored_name(project, view),
        keys=[(renamed.get(name, name), kind) for name, kind in key_kinds(view)],
        wanted=tuple(PackedField(name, kind_of(types.get(name, ValueType.UNKNOWN))) for name in features),
        types=tuple(types.get(name, ValueType.UNKNOWN) for name in features),
        names=tuple(prefix + name for name in features),
        ttl_us=ttl_us_of(view),
    )
