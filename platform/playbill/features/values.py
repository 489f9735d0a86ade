"""Feature values as Arrow and polars columns: types, ages, on-demand views, and the final shape. Imports no Feast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from playbill.features.reports import FeatureColumn, FeatureEntity
from playbill_feast.online.columns import EVENT_TIME

if TYPE_CHECKING:
    from feast.on_demand_feature_view import OnDemandFeatureView

    from playbill.features.catalog import Catalog

REQUEST_AT = "request_at"
"""The moment of the request, for on-demand views. Further request fields are taken from columns of that name."""
_MOMENT = pa.timestamp("us", tz="UTC")


def with_derived(table: pa.Table, catalog: Catalog, *entities: FeatureEntity) -> pa.Table:
    """Append the on-demand views of some entities, computed by Feast's code from full-named columns."""
    for view in catalog.derived(*entities):
        computed = view.transform_arrow(table.select(_read_by(view, table)), full_feature_names=True)
        for name in computed.column_names:
            if name not in table.column_names and not name.startswith("__index"):
                table = table.append_column(name, computed[name])
    return table


def _read_by(view: OnDemandFeatureView, table: pa.Table) -> list[str]:
    """Return the columns that a view may read: handing it all of them costs more than most views do."""
    sources = view.source_feature_view_projections.values()
    names = {f"{source.name_to_use()}__{field.name}" for source in sources for field in source.features}
    names |= view.get_request_data_schema().keys()
    return [name for name in table.column_names if name in names]


def shaped(table: pa.Table | pl.DataFrame, columns: Sequence[FeatureColumn]) -> pl.DataFrame:
    """Return the columns as float32 numbers (null where missing or nan) and strings."""
    chosen = table.select([column.name for column in columns])
    frame = chosen if isinstance(chosen, pl.DataFrame) else pl.DataFrame(pl.from_arrow(chosen))
    return frame.select(
        pl.col(column.name).cast(pl.Float32).fill_nan(None)
        if column.kind == "numeric"
        else pl.col(column.name).cast(pl.String)
        for column in columns
    )


def empty(columns: Sequence[FeatureColumn]) -> pl.DataFrame:
    """Return no rows of the columns."""
    return pl.DataFrame(
        schema={column.name: pl.Float32 if column.kind == "numeric" else pl.String for column in columns}
    )


def requested_rows(member_ids: Sequence[str | None], at: datetime, request: Mapping[str, Any]) -> pa.Table:
    """Return a row per member with the moment and the request's fields."""
    count = len(member_ids)
    columns = {"member_id": pa.array(member_ids, pa.string()), "event_at": pa.array([at] * count, _MOMENT)}
    return pa.table({**columns, **{name: pa.array([value] * count) for name, value in request.items()}})


def request_columns(rows: pa.Table, values: pa.Table) -> pa.Table:
    """Return what on-demand views of a request read: its own fields, and full-named values beside them."""
    names = [REQUEST_AT if name == "event_at" else name for name in rows.column_names]
    return pa.table([*rows.columns, *values.columns], names=[*names, *values.column_names])


def is_after(values_at: pl.DataFrame, at: datetime) -> pl.Series:
    """Mark the rows that have a value from after a moment."""
    latest = values_at.max_horizontal()
    return (latest > at).fill_null(False)


def alive(view: str, ttl: timedelta | None, found: pa.Table, at: datetime) -> dict[str, pa.ChunkedArray]:
    """Return a view's columns under their full names, null where the value is expired at a moment."""
    columns = {f"{view}__{name}": found.column(name) for name in found.column_names if name != EVENT_TIME}
    if not ttl:
        return columns
    expired = pc.less(found.column(EVENT_TIME), pa.scalar(at - ttl, _MOMENT))
    if not pc.any(expired).as_py():
        return columns
    nothing = {name: pa.scalar(None, column.type) for name, column in columns.items()}
    return {name: pc.if_else(expired, nothing[name], column) for name, column in columns.items()}
