"""The state of single members, encoded now and written to the online store: what happened since the last build counts.

Any Feast client can do the same with `FeatureStore.push` and the push sources of `feature_repo`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from playbill.errors import ConfigError, StateError
from playbill.features.encoder import EVENT_COLUMNS, MEMBER_VIEWS, encode_member
from playbill.features.feast_door import FeastDoor
from playbill.features.own_views import own_event_views
from playbill.features.reports import PushReport
from playbill.tables import Tables
from playbill_feast.frames import plain_arrow


def push_members(door: FeastDoor, member_ids: Sequence[str], at: datetime) -> PushReport:
    """Write what holds for some members at a moment, from the log and the journal. See `FeatureDoor.push`."""
    if at.tzinfo is None:
        raise ConfigError(f"push needs a moment with a time zone, got {at.isoformat()}")
    tables, moment = Tables(door.workspace).require(), at.astimezone(UTC)
    own = own_event_views(door.workspace.project.feature_repo)
    members_own = {name: view.encode for name, view in own.items() if view.keys == ("member_id",)}
    encoders = {**MEMBER_VIEWS, **members_own}
    columns = dict.fromkeys([*EVENT_COLUMNS, *(name for view in own.values() for name in view.log_columns)])
    events = tables.interactions(members=member_ids, until=moment, include_journal=True, columns=list(columns))
    with door.registry_errors():
        registered = {str(view.name): view for view in door.store.registry.list_feature_views(door.workspace.name)}
    known = {name: encoder for name, encoder in encoders.items() if name in registered}
    if not known:
        raise StateError(
            f"workspace '{door.workspace.name}' has no member views registered. "
            f"Run `playbill -w {door.workspace.name} apply` first."
        )
    states = encode_member(events, tables.titles(), moment, encoders=known)
    written = {}
    for name, rows in states.items():
        with door.online_errors():
            door.store.provider.online_store.write_arrow(door.config, registered[name], plain_arrow(rows))
        written[name] = rows.height
    members = pl.Series("member_id", member_ids, dtype=pl.String)
    unknown = members.filter(~members.is_in(events.get_column("member_id").unique().to_list()))
    return PushReport(door.workspace.name, moment, written, tuple(unknown.to_list()))
