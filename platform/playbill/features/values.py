"""Feature values as Arrow and polars columns: types, on-demand views, and the final shape."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
from feast.on_demand_feature_view import OnDemandFeatureView

from playbill.features.catalog import Catalog
from playbill.features.reports import FeatureColumn, FeatureEntity

REQUEST_AT = "request_at"
"""The moment of the request, for on-demand views. Further request fields are taken from columns of that name."""


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
