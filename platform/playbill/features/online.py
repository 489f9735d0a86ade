"""Features of a live request from the online store, held to the request's own moment, and single members pushed to it.

A value older than its view's ttl at the request's moment is null. A value from after that moment (a replayed
request, a clock set back) is never used: such members are read from the feature files instead, exactly as training
reads them.

On-demand views are computed after that by the same code as for training, so both paths agree to the bit. A request
has few rows, for which making a frame costs more than what is done with it: columns stay Arrow until the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from playbill.errors import ConfigError, DataError, Problem, StateError
from playbill.features.catalog import Catalog
from playbill.features.feast_door import FeastDoor
from playbill.features.historical import member_features
from playbill.features.own_views import own_event_views
from playbill.features.reports import REQUEST_AT, FeaturePushReport, OnlineFeatures
from playbill.features.snapshots import alive, empty, is_after, requested_rows, shaped, with_derived
from playbill.features.views import EVENT_COLUMNS, MEMBER_VIEWS, encode_member
from playbill.tables import Tables
from playbill_feast.frames import plain_arrow
from playbill_feast.online.columns import EVENT_TIME


def online_features(
    door: FeastDoor,
    service: str,
    member_ids: Sequence[str | None],
    at: datetime,
    request: Mapping[str, Any],
) -> OnlineFeatures:
    """Return the request's fields, then the member and request columns, a row per member."""
    catalog = door.catalog(service)
    _check_request(catalog, at, request)
    requested = requested_rows(member_ids, at, request)
    values, values_at = _read(door, catalog, requested, at.astimezone(UTC))
    frame = pl.DataFrame(pl.from_arrow(requested))
    future = is_after(values_at, at, frame.height)
    rows = frame.hstack(_request_columns(catalog, requested, values))
    if future.any():
        rows = _replayed(door, service, frame, rows, future)
    return OnlineFeatures(rows, values_at, ~future)


def _check_request(catalog: Catalog, at: datetime, request: Mapping[str, Any]) -> None:
    missing = sorted(set(catalog.schema.reads) - set(request))
    problems = [Problem(name, "request field is missing.") for name in missing]
    if at.tzinfo is None:
        problems.append(Problem("at", f"{at.isoformat()} has no time zone."))
    if problems:
        raise DataError("request for online features", problems)


def _request_columns(catalog: Catalog, requested: pa.Table, values: pa.Table) -> pl.DataFrame:
    """Return the member and request columns; on-demand views read the request's fields beside full-named values."""
    columns = catalog.schema.of("member", "request")
    if not requested.num_rows or not columns:
        return empty(columns)
    names = [REQUEST_AT if name == "event_at" else name for name in requested.column_names]
    inputs = pa.table([*requested.columns, *values.columns], names=[*names, *values.column_names])
    return shaped(with_derived(inputs, catalog, "member", "request"), columns)


def _replayed(
    door: FeastDoor, service: str, requested: pl.DataFrame, rows: pl.DataFrame, future: pl.Series
) -> pl.DataFrame:
    """Replace the rows of members whose online values are from after the moment."""
    numbered, chosen = rows.with_row_index("__row"), requested.filter(future)
    regenerated = member_features(door, service, chosen).with_columns(numbered.filter(future).get_column("__row"))
    return pl.concat([numbered.filter(~future), regenerated.select(numbered.columns)]).sort("__row").drop("__row")


def _read(door: FeastDoor, catalog: Catalog, requested: pa.Table, at: datetime) -> tuple[pa.Table, pl.DataFrame]:
    """Read every plain view: full-named columns, and the time of each view's values. Expired values are null."""
    wanted = {name: fields for name, fields in catalog.plain("member", "request").items() if name in catalog.views}
    door.require_materialized(catalog.views[name] for name in wanted)
    columns: dict[str, pa.ChunkedArray] = {}
    times: dict[str, pa.ChunkedArray] = {}
    for name, fields in wanted.items():
        view = catalog.views[name]
        found = door.read_online(view, requested, [field.name for field in fields], at)
        times[name] = found.column(EVENT_TIME)
        columns |= alive(name, view.ttl, found, at)
    return pa.table(columns), pl.DataFrame(pl.from_arrow(pa.table(times)))


def push_members(door: FeastDoor, member_ids: Sequence[str], at: datetime) -> FeaturePushReport:
    """Write what holds for some members at a moment, from the log and the journal. See `FeatureDoor.push`."""
    if at.tzinfo is None:
        raise ConfigError(f"push needs a moment with a time zone, got {at.isoformat()}")
    tables, moment = Tables(door.workspace).require(), at.astimezone(UTC)
    own = own_event_views(door.workspace.project.feature_repo)
    of_members = {name: view for name, view in own.items() if "member_id" in view.keys}
    encoders = {**MEMBER_VIEWS, **{name: view.encode for name, view in of_members.items()}}
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
    keys = {name: view.keys for name, view in of_members.items()}
    states = encode_member(events, tables.titles(), moment, encoders=known, keys=keys)
    written = {}
    for name, rows in states.items():
        with door.online_errors():
            door.store.provider.online_store.write_arrow(door.config, registered[name], plain_arrow(rows))
        written[name] = rows.height
    members = pl.Series("member_id", member_ids, dtype=pl.String)
    unknown = members.filter(~members.is_in(events.get_column("member_id").unique().to_list()))
    return FeaturePushReport(door.workspace.name, moment, written, tuple(unknown.to_list()))
