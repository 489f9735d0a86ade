"""Features of past moments: member features through Feast's retrieval, title features as dense snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa

from playbill.errors import DataError, Problem
from playbill.features.asof import ViewValues, as_of_join, in_utc, latest_values
from playbill.features.catalog import Catalog
from playbill.features.entity_rows import EVENT_AT, plain_arrow
from playbill.features.feast_door import FeastDoor
from playbill.features.offline_store import view_values
from playbill.features.reports import FeatureColumn, FeatureEntity, TitleSnapshots
from playbill.features.values import REQUEST_AT, empty, shaped, with_derived

ROWS_PER_CALL = 1_000_000
_TITLE, _SEEN_FROM = "__title", "__seen_from"


def member_features(door: FeastDoor, service: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the service's member and request columns, as of each row's `event_at`."""
    catalog = door.catalog(service)
    _check(frame, {"member_id"} | request_fields(catalog))
    return _retrieved(door, catalog, frame, "member", "request")


def title_features(door: FeastDoor, service: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the service's title columns, as of each row's `event_at`."""
    _check(frame, {"title_id"})
    return _retrieved(door, door.catalog(service), frame, "title")


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


def _check(frame: pl.DataFrame, fields: set[str]) -> None:
    needed = {"event_at"} | fields - {REQUEST_AT}
    problems = [Problem(name, "column is missing.") for name in sorted(needed - set(frame.columns))]
    if "event_at" in frame.columns and frame.get_column("event_at").null_count():
        problems.append(Problem("event_at", "has nulls."))
    if problems:
        raise DataError("rows to look features up for", problems)


def request_fields(catalog: Catalog) -> set[str]:
    """Return the names of the request fields that the member and request columns are computed from."""
    return {name for view in catalog.derived("member", "request") for name in view.get_request_data_schema()}


def title_snapshots(
    door: FeastDoor, service: str, moments: Sequence[datetime], title_ids: Sequence[str]
) -> TitleSnapshots:
    """Return the service's title columns at each moment, dense."""
    if naive := [moment for moment in moments if moment.tzinfo is None]:
        raise DataError("snapshot moments", [Problem(str(moment), "has no time zone.") for moment in naive])
    catalog = door.catalog(service)
    columns = catalog.schema.of("title")
    numeric = [column for column in columns if column.kind == "numeric"]
    categorical = [column for column in columns if column.kind == "categorical"]
    values = np.full((len(moments), len(title_ids), len(numeric)), np.nan, dtype=np.float32)
    titles = pl.Series("title_id", title_ids, dtype=pl.String)
    views = _title_views(door, catalog, titles, moments)
    step = max(1, ROWS_PER_CALL // max(1, len(title_ids)))
    for start in range(0, len(moments), step):
        part = moments[start : start + step]
        frame = shaped(_at_moments(catalog, views, part, titles), numeric)
        dense = frame.to_numpy().reshape(len(part), len(title_ids), len(numeric))
        values[start : start + step] = dense
    return TitleSnapshots(
        moments=tuple(moments),
        title_ids=tuple(title_ids),
        columns=tuple(column.name for column in numeric),
        values=values,
        categorical=_categorical(catalog, views, moments, titles, categorical),
    )


def _categorical(
    catalog: Catalog,
    views: Sequence[ViewValues],
    moments: Sequence[datetime],
    titles: pl.Series,
    columns: Sequence[FeatureColumn],
) -> pl.DataFrame:
    if not moments:
        nulls = [pl.lit(None, dtype=pl.String).alias(column.name) for column in columns]
        return titles.to_frame().with_columns(nulls)
    table = _at_moments(catalog, views, [max(moments)], titles)
    return titles.to_frame().hstack(shaped(table, columns))


def _title_views(door: FeastDoor, catalog: Catalog, titles: pl.Series, moments: Sequence[datetime]) -> list[ViewValues]:
    """Read the title views once: only the titles asked for, by number, and only what a moment can see."""
    numbers = _numbered(titles).unique().lazy()
    grid = pl.Series(sorted({moment.astimezone(UTC) for moment in moments}), dtype=pl.Datetime("us", "UTC"))
    views = []
    for name, fields in catalog.plain("title").items():
        view = view_values(door.config, catalog.views[name], [field.name for field in fields], full_names=True)
        at = in_utc(view.at, view.frame.collect_schema()[view.at])
        (key,) = view.keys.values()
        # Of the values between two moments only the last can be seen; the rest would only be sorted.
        seen_from = at.map_batches(lambda column: grid.search_sorted(column), return_dtype=pl.UInt32)
        frame = latest_values(
            view.rows().join(numbers, left_on=key, right_on="title_id").with_columns(seen_from.alias(_SEEN_FROM)),
            [_TITLE, _SEEN_FROM],
            view.at,
            view.created,
            list(view.features.values()),
        )
        views.append(replace(view, keys={_TITLE: _TITLE}, frame=frame.collect().lazy(), counts=None))
    return views


def _at_moments(
    catalog: Catalog, views: Sequence[ViewValues], moments: Sequence[datetime], titles: pl.Series
) -> pa.Table:
    """Return moments x titles rows in that order, with every plain and on-demand title column."""
    at = pl.Series(EVENT_AT, [moment.astimezone(UTC) for moment in moments], dtype=pl.Datetime("us", "UTC"))
    rows = at.to_frame().join(_numbered(titles), how="cross", maintain_order="left_right")
    joined = rows.select(EVENT_AT, "title_id", pl.col(EVENT_AT).alias(REQUEST_AT))
    for view in views:
        joined = joined.hstack(as_of_join(rows, EVENT_AT, view))
    return with_derived(plain_arrow(joined), catalog, "title")


def _numbered(titles: pl.Series) -> pl.DataFrame:
    """Give every title a number: joining by numbers is several times faster than by text."""
    return titles.to_frame().with_columns(pl.col("title_id").rank("dense").cast(pl.UInt32).alias(_TITLE))
