"""Feature values as Arrow and polars columns: types, on-demand views, and the final shape."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
from feast.field import Field

from playbill.features.catalog import Catalog, value_type
from playbill.features.reports import FeatureColumn, FeatureEntity

REQUEST_AT = "request_at"
"""The moment of the request, for on-demand views. Further request fields are taken from columns of that name."""

_MOMENT = pa.timestamp("us", tz="UTC")
_ARROW = {
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "BOOL": pa.bool_(),
    "STRING": pa.string(),
    "UNIX_TIMESTAMP": _MOMENT,
}


def arrow_array(values: Sequence[object], field: Field) -> pa.Array:
    """Return values as Feast hands them out online, typed as they are in the feature files."""
    return pa.array(values, type=_ARROW.get(value_type(field)))


def with_derived(table: pa.Table, catalog: Catalog, *entities: FeatureEntity) -> pa.Table:
    """Append the on-demand views of some entities, computed by Feast's code from full-named columns."""
    for view in catalog.derived(*entities):
        computed = view.transform_arrow(table, full_feature_names=True)
        for name in computed.column_names:
            if name not in table.column_names and not name.startswith("__index"):
                table = table.append_column(name, computed[name])
    return table


def shaped(table: pa.Table, columns: Sequence[FeatureColumn]) -> pl.DataFrame:
    """Return the columns as float32 numbers (null where missing or nan) and strings."""
    frame = pl.DataFrame(pl.from_arrow(table.select([column.name for column in columns])))
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
