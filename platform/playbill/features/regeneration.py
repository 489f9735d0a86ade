"""Features computed once more: of past requests, to compare with what was served, and from states held in memory."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from playbill.features.axis import CHANGED_AT
from playbill.features.catalog import Catalog
from playbill.features.feast_door import FeastDoor
from playbill.features.reports import FeatureEntity
from playbill.features.store_errors import raises_product_errors
from playbill.features.values import REQUEST_AT, shaped, with_derived
from playbill.features.windows import CREATED_AT
from playbill_feast.asof_join import ViewValues, as_of_join
from playbill_feast.frames import EVENT_AT, plain_arrow
from playbill_feast.offline.store import view_values


def known_then(door: FeastDoor, service: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the member and request columns as of each row's `event_at`, from rows recorded by that moment."""
    catalog = door.catalog(service)
    entities = rows.rename({"event_at": EVENT_AT}).with_columns(pl.col(EVENT_AT).alias(REQUEST_AT))
    with door.registry_errors():
        job = door.store.get_historical_features(
            entities.to_pandas(),
            features=catalog.refs("member", "request"),
            full_feature_names=True,
            filter_by_created_timestamp=True,
        )
        return shaped(job.to_arrow(), catalog.schema.of("member", "request"))


def of_states(door: FeastDoor, service: str, rows: pl.DataFrame, states_at: pl.DataFrame) -> pl.DataFrame:
    """Return the columns that a request at `event_at` has when each view's value is that of a moment of its own.

    Args:
        door: The workspace's store.
        service: Name of the feature service.
        rows: member_id and event_at.
        states_at: A column per plain member or request view: the moment its value is from; null is no value.
    """
    catalog = door.catalog(service)
    joined = rows.rename({"event_at": REQUEST_AT})
    for name, fields in catalog.plain("member", "request").items():
        if name in catalog.views:
            names = [field.name for field in fields]
            values = view_values(door.config, catalog.views[name], names, full_names=True)
            requested = rows.select("member_id", states_at.get_column(name).alias(EVENT_AT))
            joined = joined.hstack(as_of_join(requested, EVENT_AT, values))
    columns = catalog.schema.of("member", "request")
    return shaped(with_derived(plain_arrow(joined), catalog, "member", "request"), columns)


@raises_product_errors
def from_states(
    catalog: Catalog, rows: pl.DataFrame, key: str, states: Callable[[str], pl.DataFrame], *entities: FeatureEntity
) -> pl.DataFrame:
    """Return the columns of some entities as of each row's `request_at`, strictly before it.

    Args:
        catalog: Of the feature service.
        rows: The key and `request_at`.
        key: Join key of the entities' views.
        states: Returns a view's states by its name, as the encoders compute them.
        entities: Whose columns.
    """
    joined = rows.with_columns(pl.col(REQUEST_AT).alias(EVENT_AT))
    for name, fields in catalog.plain(*entities).items():
        values = ViewValues(
            name=name,
            frame=states(name).lazy(),
            keys={key: key},
            at=CHANGED_AT,
            created=CREATED_AT,
            features={f"{name}__{field.name}": field.name for field in fields},
            ttl=catalog.views[name].ttl or None,
        )
        joined = joined.hstack(as_of_join(joined, EVENT_AT, values))
    return shaped(with_derived(plain_arrow(joined), catalog, *entities), catalog.schema.of(*entities))
