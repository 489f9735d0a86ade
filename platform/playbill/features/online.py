"""Features of a live request from the online store, held to the request's own moment.

Feast serves whatever was written last, whatever its age. Here a value older than its view's ttl at the request's
moment is null. A value from after that moment (a replayed request, a clock set back) is never used: such members
are read from the feature files instead, exactly as training reads them.

On-demand views are computed after that by the same code as for training, so both paths agree to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

import polars as pl
import pyarrow as pa
from feast.feature_view import FeatureView
from feast.field import Field

from playbill.errors import DataError, Problem, ServiceError
from playbill.features.catalog import Catalog
from playbill.features.entity_rows import plain_arrow
from playbill.features.feast_door import FeastDoor
from playbill.features.historical import member_features, request_fields
from playbill.features.values import REQUEST_AT, arrow_array, empty, shaped, with_derived

_TIME_SUFFIX = "__ts"
_ONE_SECOND = timedelta(seconds=1)
_LOCK = Lock()
"""Feast's SQLite store shares one connection between threads."""


def online_features(
    door: FeastDoor,
    service: str,
    member_ids: Sequence[str | None],
    at: datetime,
    request: Mapping[str, Any],
) -> pl.DataFrame:
    """Return member_id, event_at, the request's fields, then the member and request columns, a row per member."""
    catalog = door.catalog(service)
    columns = catalog.schema.of("member", "request")
    frame = _asked(catalog, member_ids, at, request)
    if frame.is_empty():
        return frame.hstack(empty(columns))
    known = list(dict.fromkeys(member for member in member_ids if member is not None))
    table, later = _read(door, catalog, known, at.astimezone(UTC))
    rows = frame.select("member_id", pl.col("event_at").alias(REQUEST_AT), *request)
    joined = rows.join(table, on="member_id", how="left", maintain_order="left")
    answer = frame.hstack(shaped(with_derived(plain_arrow(joined), catalog, "member", "request"), columns))
    return _replayed(door, service, answer, later) if later else answer


def _asked(
    catalog: Catalog, member_ids: Sequence[str | None], at: datetime, request: Mapping[str, Any]
) -> pl.DataFrame:
    problems = [
        Problem(name, "request field is missing.") for name in sorted(request_fields(catalog) - {REQUEST_AT, *request})
    ]
    if at.tzinfo is None:
        problems.append(Problem("at", f"{at.isoformat()} has no time zone."))
    if problems:
        raise DataError("request for online features", problems)
    moment = pl.lit(at.astimezone(UTC), dtype=pl.Datetime("us", "UTC"))
    fields = [pl.lit(value).alias(name) for name, value in request.items()]
    members = pl.Series("member_id", list(member_ids), dtype=pl.String)
    return members.to_frame().with_columns(moment.alias("event_at"), *fields)


def _replayed(door: FeastDoor, service: str, answer: pl.DataFrame, later: set[str]) -> pl.DataFrame:
    """Replace the rows of members whose online values are from after the moment."""
    numbered = answer.with_row_index("__row")
    stale = pl.col("member_id").is_in(list(later)).fill_null(False)
    asked = [name for name in answer.columns if "__" not in name]
    rows = numbered.filter(stale)
    regenerated = member_features(door, service, rows.select(asked)).with_columns(rows.get_column("__row"))
    kept = numbered.filter(~stale)
    return pl.concat([kept, regenerated.select(kept.columns)]).sort("__row").drop("__row")


def _read(door: FeastDoor, catalog: Catalog, members: Sequence[str], at: datetime) -> tuple[pl.DataFrame, set[str]]:
    """Read every plain view; return full-named columns by member, and the members with values after `at`."""
    views = {name: fields for name, fields in catalog.plain("member", "request").items() if name in catalog.views}
    _require_materialized(door, [catalog.views[name] for name in views])
    refs = [f"{name}:{field.name}" for name, fields in views.items() for field in fields]
    answer: dict[str, list[Any]] = _ask(door, refs, members) if members and refs else {}
    columns: dict[str, pa.Array] = {"member_id": pa.array(members, type=pa.string())}
    later: set[str] = set()
    for name, fields in views.items():
        written = [_written(answer, name, fields, row) for row in range(len(members))]
        later |= {member for member, moment in zip(members, written, strict=True) if _is_after(moment, at)}
        alive = [_is_alive(catalog.views[name], moment, at) for moment in written]
        for field in fields:
            full = f"{name}__{field.name}"
            values = answer.get(full, [])
            columns[full] = arrow_array([v if ok else None for v, ok in zip(values, alive, strict=True)], field)
    return pl.DataFrame(pl.from_arrow(pa.table(columns))), later


def _written(answer: Mapping[str, list[Any]], view: str, fields: Sequence[Field], row: int) -> datetime | None:
    """Return the time of a view's values, None where the store has none. The store keeps whole seconds."""
    seconds = max(int(answer[f"{view}__{field.name}{_TIME_SUFFIX}"][row] or 0) for field in fields)
    found = any(answer[f"{view}__{field.name}"][row] is not None for field in fields)
    return datetime.fromtimestamp(seconds, tz=UTC) if seconds or found else None


def _is_after(written: datetime | None, at: datetime) -> bool:
    # A time cut to whole seconds may stand for any moment of that second.
    return written is not None and written + _ONE_SECOND > at


def _is_alive(view: FeatureView, written: datetime | None, at: datetime) -> bool:
    if written is None:
        return False
    return not view.ttl or at - written <= view.ttl


def _require_materialized(door: FeastDoor, views: Sequence[FeatureView]) -> None:
    advice = f"Run `playbill -w {door.workspace.name} materialize`."
    path = door.workspace.online_store_path
    # Feast leaves an empty file where the store is gone.
    if not path.is_file() or not path.stat().st_size:
        raise ServiceError(f"the online store {path} is gone. {advice}")
    empty_views = sorted(view.name for view in views if not view.materialization_intervals)
    if empty_views:
        door.forget_catalogs()
        raise ServiceError(f"the online store has no values of {', '.join(empty_views)}. {advice}")


def _ask(door: FeastDoor, refs: Sequence[str], members: Sequence[str]) -> dict[str, list[Any]]:
    with _LOCK, door.registry_errors(), door.online_errors():
        response = door.store.get_online_features(
            features=list(refs), entity_rows={"member_id": list(members)}, full_feature_names=True
        )
    found: dict[str, list[Any]] = response.to_dict(include_event_timestamps=True)
    return found
