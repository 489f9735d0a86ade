"""Features of a live request from the online store, held to the request's own moment.

A value older than its view's ttl at the request's moment is null. A value from after that moment (a replayed
request, a clock set back) is never used: such members are read from the feature files instead, exactly as training
reads them.

On-demand views are computed after that by the same code as for training, so both paths agree to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
from feast.feature_view import FeatureView

from playbill.errors import DataError, Problem
from playbill.features.catalog import Catalog
from playbill.features.entity_rows import plain_arrow
from playbill.features.feast_door import FeastDoor
from playbill.features.historical import member_features, request_fields
from playbill.features.packed.frames import EVENT_TIME
from playbill.features.reports import OnlineFeatures
from playbill.features.values import REQUEST_AT, empty, shaped, with_derived

_MOMENT = pl.Datetime("us", "UTC")


def online_features(
    door: FeastDoor,
    service: str,
    member_ids: Sequence[str | None],
    at: datetime,
    request: Mapping[str, Any],
) -> OnlineFeatures:
    """Return the request's fields, then the member and request columns, a row per member."""
    catalog = door.catalog(service)
    columns = catalog.schema.of("member", "request")
    _check(catalog, at, request)
    at = at.astimezone(UTC)
    members = pl.Series("member_id", list(member_ids), dtype=pl.String)
    moment = pl.lit(at, dtype=_MOMENT)
    fields = [pl.lit(value).alias(name) for name, value in request.items()]
    asked = members.to_frame().with_columns(moment.alias("event_at"), *fields)
    values, values_at = _read(door, catalog, members, at)
    if asked.is_empty():
        return OnlineFeatures(asked.hstack(empty(columns)), values_at, pl.Series([], dtype=pl.Boolean))
    joined = asked.rename({"event_at": REQUEST_AT}).hstack(values)
    rows = asked.hstack(shaped(with_derived(plain_arrow(joined), catalog, "member", "request"), columns))
    future = _is_after(values_at, at)
    if future.any():
        rows = _replayed(door, service, asked, rows, future)
    return OnlineFeatures(rows, values_at, ~future)


def _check(catalog: Catalog, at: datetime, request: Mapping[str, Any]) -> None:
    problems = [
        Problem(name, "request field is missing.") for name in sorted(request_fields(catalog) - {REQUEST_AT, *request})
    ]
    if at.tzinfo is None:
        problems.append(Problem("at", f"{at.isoformat()} has no time zone."))
    if problems:
        raise DataError("request for online features", problems)


def _is_after(values_at: pl.DataFrame, at: datetime) -> pl.Series:
    latest = values_at.max_horizontal()
    return (latest > at).fill_null(False)


def _replayed(
    door: FeastDoor, service: str, asked: pl.DataFrame, rows: pl.DataFrame, future: pl.Series
) -> pl.DataFrame:
    """Replace the rows of members whose online values are from after the moment."""
    numbered, chosen = rows.with_row_index("__row"), asked.filter(future)
    regenerated = member_features(door, service, chosen).with_columns(numbered.filter(future).get_column("__row"))
    return pl.concat([numbered.filter(~future), regenerated.select(numbered.columns)]).sort("__row").drop("__row")


def _read(door: FeastDoor, catalog: Catalog, members: pl.Series, at: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read every plain view: full-named columns, and the time of each view's values. Expired values are null."""
    wanted = {name: fields for name, fields in catalog.plain("member", "request").items() if name in catalog.views}
    door.require_materialized(catalog.views[name] for name in wanted)
    keys = members.to_frame().to_arrow()
    columns: list[pl.Series] = []
    times: list[pl.Series] = []
    for name, fields in wanted.items():
        view = catalog.views[name]
        found = door.read_online(view, keys, [field.name for field in fields], at)
        written = found.get_column(EVENT_TIME)
        times.append(written.alias(name))
        columns += _alive(view, found.drop(EVENT_TIME), written, at)
    return pl.DataFrame(columns), pl.DataFrame(times)


def _alive(view: FeatureView, found: pl.DataFrame, written: pl.Series, at: datetime) -> Iterator[pl.Series]:
    """Return a view's columns under their full names, null where the value is expired at `at`."""
    expired = (written < at - view.ttl).fill_null(False) if view.ttl else None
    for column in found:
        full = column.alias(f"{view.name}__{column.name}")
        yield full if expired is None or not expired.any() else full.set(expired, None)
