"""Keys and features as polars frames: the columnar way in and out of the packed store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from playbill.errors import DataError, Problem, nearest
from playbill_feast.online.columns import feature_table
from playbill_feast.online.entity_keys import keys_of_arrow
from playbill_feast.online.feast_values import key_kinds, kind_of, view_fields
from playbill_feast.online.row_codec import PackedRows
from playbill_feast.online.row_layout import PackedField


def fields_of(view: Any, features: Sequence[str]) -> tuple[PackedField, ...]:
    """Return some features of a view as they are stored.

    Raises:
        DataError: The view has no such feature; all are named.
    """
    types = view_fields(view)
    problems = [
        Problem(name, "is no feature of the view.", f"Did you mean '{close}'?" if close else "")
        for name in features
        if name not in types and (close := nearest(name, types) or "") is not None
    ]
    if problems:
        raise DataError(f"feature view '{view.name}'", problems)
    return tuple(PackedField(name, kind_of(types[name])) for name in features)


def keys_of_frame(view: Any, keys: pa.Table | pl.DataFrame) -> list[bytes | None]:
    """Encode the keys of a frame's rows; a null anywhere has no key."""
    table = keys.to_arrow() if isinstance(keys, pl.DataFrame) else keys
    kinds = key_kinds(view)
    # A view without entities has one row, whatever is asked.
    return keys_of_arrow(kinds, table) if kinds else [b""] * table.num_rows


def feature_frame(rows: PackedRows, names: Sequence[str], alive: np.ndarray[Any, Any] | None) -> pl.DataFrame:
    """Return the same as a frame."""
    return pl.DataFrame(pl.from_arrow(feature_table(rows, names, alive)))
