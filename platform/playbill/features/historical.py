"""Features of past moments: member features through Feast's retrieval, title features as dense snapshots.

And computed once more: of past requests, to compare with what was served, and from states held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl

from playbill.errors import DataError, Problem
from playbill.features.axis import CHANGED_AT, CREATED_AT
from playbill.features.catalog import Catalog
from playbill.features.feast_door import FeastDoor
from playbill.features.reports import REQUEST_AT, FeatureEntity, TitleSnapshots
from playbill.features.snapshots import (
    ROWS_PER_CALL,
    country_values,
    dense_snapshots,
    empty,
    shaped,
    with_derived,
)
from playbill.features.store_errors import raises_product_errors
from playbill_feast.asof_join import ViewValues, as_of_join
from playbill_feast.frames import EVENT_AT, plain_arrow
from playbill_feast.offline.store import view_values


def member_features(door: FeastDoor, service: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the service's member and request columns, as of each row's `event_at`."""
    catalog = door.catalog(service)
    _check_rows(frame, {"member_id", *catalog.schema.reads})
    return _retrieved(door, catalog, frame, "member", "request")


def title_features(door: FeastDoor, service: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the service's title columns, as of each row's `event_at`; with `country`, those there too."""
    _check_rows(frame, {"title_id"})
    local: tuple[FeatureEntity, ...] = ("title_country",) if "country" in frame.columns else ()
    return _retrieved(door, door.catalog(service), frame, "title", *local)


def _retrieved(door: FeastDoor, catalog: Catalog, frame: pl.DataFrame, *entities: FeatureEntity) -> pl.DataFrame:
    columns = catalog.schema.of(*entities)
    if frame.is_empty() or not columns:
        return frame.hstack(empty(columns)) if frame.is_empty() else frame
    rows = frame.rename({"event_at": EVENT_AT}).with_columns(pl.col(EVENT_AT).alias(REQUEST_AT))
    refs = catalog.refs(*entities)
    parts = []
    for start in range(0, rows.height, ROWS_PER_CALL):
        part = rows.slice(start, ROWS_PER_CALL).to_pandas()
        with door.registry_errors():
            job = door.store.get_historical_features(part, features=refs, full_feature_names=True)
            table = job.to_arrow()
        parts.append(shaped(table, columns))
    return frame.hstack(pl.concat(parts))


def _check_rows(frame: pl.DataFrame, fields: set[str]) -> None:
    needed = {"event_at"} | fields
    problems = [Problem(name, "column is missing.") for name in sorted(needed - set(frame.columns))]
    if "event_at" in frame.columns and frame.get_column("event_at").null_count():
        problems.append(Problem("event_at", "has nulls."))
    if problems:
        raise DataError("rows to look features up for", problems)


def title_snapshots(
    door: FeastDoor,
    service: str,
    moments: Sequence[datetime],
    title_ids: Sequence[str],
    countries: Sequence[str | None] | None = None,
) -> TitleSnapshots:
    """Return the service's title columns at each moment, dense; with `countries`, those of titles in each one's too."""
    catalog = door.catalog(service)

    def plain(*entities: FeatureEntity, vectors: bool) -> list[ViewValues]:
        wanted = catalog.plain(*entities, vectors=vectors)
        return [
            view_values(door.config, catalog.views[name], [field.name for field in fields], full_names=True)
            for name, fields in wanted.items()
        ]

    def derive(*entities: FeatureEntity) -> Callable[[pl.DataFrame], pl.DataFrame]:
        return lambda rows: pl.DataFrame(pl.from_arrow(with_derived(plain_arrow(rows), catalog, *entities)))

    local = () if countries is None else catalog.schema.of("title_country")
    each = list(dict.fromkeys(moments)) if local else list(moments)
    views, vectors = plain("title", vectors=False), plain("title", vectors=True)
    found = dense_snapshots(catalog.schema.of("title"), views, derive("title"), each, title_ids, vectors)
    if countries is None or not local:
        return found
    of_country = country_values(
        local, plain("title_country", vectors=False), derive("title_country"), moments, countries, title_ids
    )
    place = {moment: number for number, moment in enumerate(each)}
    return replace(
        found,
        moments=tuple(moments),
        columns=(*found.columns, *(column.name for column in local)),
        values=np.concatenate([found.values[[place[moment] for moment in moments]], of_country], axis=2),
    )


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

    `states_at` has a column per plain member or request view: the moment its value is from; null is no value.
    """
    catalog = door.catalog(service)
    joined = rows.rename({"event_at": REQUEST_AT})
    for name, fields in catalog.plain("member", "request").items():
        if name in catalog.views:
            names = [field.name for field in fields]
            values = view_values(door.config, catalog.views[name], names, full_names=True)
            requested = rows.with_columns(states_at.get_column(name).alias(EVENT_AT))
            joined = joined.hstack(as_of_join(requested, EVENT_AT, values))
    columns = catalog.schema.of("member", "request")
    return shaped(with_derived(plain_arrow(joined), catalog, "member", "request"), columns)


@raises_product_errors
def from_states(
    catalog: Catalog, rows: pl.DataFrame, key: str, states: Callable[[str], pl.DataFrame], *entities: FeatureEntity
) -> pl.DataFrame:
    """Return the columns of some entities as of each row's `request_at`, strictly before it.

    `states` returns a view's states by its name, as the encoders compute them, and `key` is their join key in `rows`.
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
