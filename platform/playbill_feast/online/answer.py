"""A request's rows, opened into Feast's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.utils import _augment_response_with_on_demand_transforms

from playbill_feast.online.request_plan import Plan, ViewPlan
from playbill_feast.online.requests import Entities
from playbill_feast.online.response import OpenedView, PackedOnlineResponse
from playbill_feast.online.rows import Rows
from playbill_feast.online.stored_view import past_ttl


def answer(
    plan: Plan,
    entities: Entities,
    rows: Rows,
    read: Sequence[Sequence[bytes | None]],
    now_us: int | None,
    tell_versions: bool,
) -> PackedOnlineResponse:
    """Open what was read.

    Args:
        plan: What was asked for.
        entities: For whom.
        rows: The database's rows.
        read: Packed rows, one list per view of the plan.
        now_us: The moment ages are counted to, or None to enforce no ttl.
        tell_versions: Tell each view's version in the protobuf.
    """
    opened = [_open(rows, view, found, now_us, tell_versions) for view, found in zip(plan.views, read, strict=True)]
    kept = plan.kept | entities.join_keys
    if not plan.on_demand:
        whole = all(name in kept for view in plan.views for name in view.names) and not plan.request_data
        return PackedOnlineResponse(entities.given, opened, kept=None if whole else kept)
    derived = _derived(plan, PackedOnlineResponse(entities.given, opened))
    return PackedOnlineResponse(entities.given, opened, derived, kept)


def _open(
    rows: Rows, view: ViewPlan, found: Sequence[bytes | None], now_us: int | None, tell_version: bool
) -> OpenedView:
    opened = rows.open(view.stored, found, view.wanted)
    version = None
    if tell_version:
        projection = view.view.projection
        number = getattr(view.view, "current_version_number", 0) or 0
        version = (projection.name_alias or projection.name, number)
    return OpenedView(view.names, view.types, opened, past_ttl(opened.event_us, view.ttl_us, now_us), version)


def _derived(plan: Plan, inputs: PackedOnlineResponse) -> list[tuple[str, Any, Any]]:
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
