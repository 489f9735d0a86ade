"""Is what a view serves at a moment its history as of that moment? For any view of a Feast store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import pandas as pd
import polars as pl
from feast import FeatureStore
from feast.feature_view import FeatureView

from playbill.errors import DefinitionError
from playbill.features import FeatureDoor
from playbill_feast.offline.store import scan_source
from playbill_feast.online.store import reading_at


def online_views(store: FeatureStore) -> list[FeatureView]:
    """Return the registered views that are served online."""
    return [view for view in store.list_feature_views() if view.online]


def services_of_members(door: FeatureDoor) -> list[str]:
    """Return the registered services that a model can use: others have views the door does not read."""
    found = []
    for service in door._feast.store.list_feature_services():
        with suppress(DefinitionError):
            door.schema(service.name)
            found.append(service.name)
    return found


def entities_of(store: FeatureStore, view: FeatureView) -> pl.DataFrame:
    """Return every entity that a view has ever had values of, in an order of their own."""
    keys = [column.name for column in view.entity_columns]
    return scan_source(store.config, view.batch_source, view.name).select(keys).unique().sort(keys).collect()


def served_and_history(
    store: FeatureStore, view: FeatureView, entities: pl.DataFrame, moment: datetime
) -> Iterator[tuple[str, Sequence[Any], Sequence[Any]]]:
    """Yield every feature with what Feast serves at a moment and what it retrieves as of it, an item per entity."""
    names = [field.name for field in view.features]
    refs = [f"{view.name}:{name}" for name in names]
    with reading_at(moment):
        online = store.get_online_features(features=refs, entity_rows=entities.to_dict(as_series=False)).to_df()
    rows = entities.to_pandas().assign(event_timestamp=pd.Timestamp(moment))
    offline = store.get_historical_features(rows, features=refs).to_df()
    for name in names:
        yield name, _plain(online[name]), _plain(offline[name])


def forget(store: FeatureStore) -> None:
    """Empty the online store, in which values only ever get newer."""
    views = online_views(store)
    store.provider.online_store.teardown(store.config, views, [])
    store.provider.online_store.update(store.config, [], views, [], [], partial=False)


def _plain(column: pd.Series) -> list[Any]:
    """Arrays as lists, missing as None, times in whole seconds: Feast serves no finer ones."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.floor("s")
    values = [list(value) if hasattr(value, "__len__") and not isinstance(value, str) else value for value in column]
    return [None if not isinstance(value, list) and pd.isna(value) else value for value in values]
