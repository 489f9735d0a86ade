"""The plain reference: pandas `merge_asof`, one view at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from playbill_feast.conformance.cells import cells


def merge_asof_reference(
    rows: pd.DataFrame, values: pd.DataFrame, keys: Sequence[str], ttl: timedelta | None, feature: str
) -> list[Any]:
    """Return a feature's value for every row as `pandas.merge_asof` finds it.

    Args:
        rows: Entity rows: the keys and `event_timestamp`.
        values: History: the keys, `event_timestamp`, `created_timestamp` and the feature.
        keys: Join keys; none for a view without entity. A null key matches nothing.
        ttl: Values older than this are null; None is no limit.
        feature: Column of `values`.

    Returns:
        One value a row, in the order of `rows`; None where nothing held.
    """
    by = list(keys)
    left = rows[[*by, "event_timestamp"]].assign(place=np.arange(len(rows))).dropna(subset=[*by, "event_timestamp"])
    newest = values.dropna(subset=by).sort_values(["event_timestamp", "created_timestamp"])
    newest = newest.drop_duplicates([*by, "event_timestamp"], keep="last")
    joined = pd.merge_asof(
        left.sort_values("event_timestamp"),
        newest[[*by, "event_timestamp", feature]],
        on="event_timestamp",
        by=by or None,
        tolerance=pd.Timedelta(ttl) if ttl else None,
    )
    found: list[Any] = [None] * len(rows)
    for place, value in zip(joined["place"], cells(joined[feature]), strict=True):
        found[place] = value
    return found
