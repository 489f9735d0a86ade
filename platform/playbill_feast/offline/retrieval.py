"""What the offline store computes: features as of entity rows or of all moments of a time range, and pulls of a source.

A retrieval joins several views to the entity rows. A pull returns the newest rows, or all rows, of one source between
two moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.repo_config import RepoConfig
from feast.utils import compute_non_entity_date_range

from playbill_feast.asof_join import AsOfRows, ViewValues, latest_values
from playbill_feast.entity_rows import entity_table
from playbill_feast.errors import Mistake, StoreDataError, suggestion
from playbill_feast.frames import EVENT_AT, as_utc, in_utc, plain_arrow, utc_literal
from playbill_feast.offline.scan_filter import ScanFilter, as_known, as_known_on
from playbill_feast.offline.sources import join_keys, output_names, reading, require_columns, scan_source, view_values
from playbill_feast.offline.sql_reader import MAX_FILTER_KEYS, read_query
from playbill_feast.offline.sql_source import SqlSource


@dataclass(frozen=True, slots=True)
class RetrievalRequest:
    """One retrieval."""

    config: RepoConfig
    features: Mapping[FeatureView, Sequence[str]]  # View -> names of its requested features, in order
    full_names: bool  # Name outputs `view__feature`
    created_by_row: bool  # Only values created at or before each row's moment count
    known_on: datetime | None  # Only values created at or before this moment count

    @property
    def outputs(self) -> list[str]:
        """Names of the feature columns of the result, in order."""
        return [
            name for view, features in self.features.items() for name in output_names(view, features, self.full_names)
        ]


def entity_rows_of(entity_df: Any, request: RetrievalRequest) -> tuple[pa.Table, str]:
    """Return the entity rows and their time column, checked against the request.

    Raises:
        StoreDataError: They are no table, have no usable time column, lack keys, or have a column that a feature will
            have; every mistake is named.
    """
    if isinstance(entity_df, str):
        entity_df = _queried(entity_df, request.features)
    table, at = entity_table(entity_df)
    keys = {key for view in request.features for key in join_keys(view)}
    names = set(table.column_names)
    problems = [Mistake(key, "join key is missing.") for key in sorted(keys - names)]
    for name in sorted(names.intersection(request.outputs)):
        advice = "Rename it, or ask for full_feature_names." if not request.full_names else "Rename it."
        problems.append(Mistake(name, "is also the name of a requested feature.", advice))
    if problems:
        raise StoreDataError("entity rows", problems)
    return table, at


def metadata_of(table: pa.Table, at: str, features: list[str]) -> RetrievalMetadata:
    """Return what Feast keeps about a retrieval."""
    moments = table.column(at)
    return RetrievalMetadata(
        features=features,
        keys=[name for name in table.column_names if name != at],
        min_event_timestamp=pa.compute.min(moments).as_py(),
        max_event_timestamp=pa.compute.max(moments).as_py(),
    )


def range_metadata(
    request: RetrievalRequest, dates: tuple[datetime, datetime], features: list[str]
) -> RetrievalMetadata:
    """Return what Feast keeps about a retrieval without entity rows."""
    keys = list(dict.fromkeys(key for view in request.features for key in join_keys(view)))
    return RetrievalMetadata(features, keys, min_event_timestamp=dates[0], max_event_timestamp=dates[1])


def retrieve(request: RetrievalRequest, entities: pa.Table, at: str) -> pa.Table:
    """Return the entity rows unchanged and in order, then the features; mistakes of all views come together."""
    keys = dict.fromkeys(key for view in request.features for key in join_keys(view))
    rows = pl.DataFrame(pl.from_arrow(entities.select([*keys, at])))
    views = _views(request, rows, at)
    require_columns(views)
    result = entities
    for part in _joined(request, rows, at, views):
        if part.height != entities.num_rows:
            raise AssertionError(f"{part.height} feature rows for {entities.num_rows} entity rows")
        for name, column in zip(part.columns, plain_arrow(part).columns, strict=True):
            result = result.append_column(name, column)
    if result.num_rows != entities.num_rows or not result.column(at).equals(entities.column(at)):
        raise AssertionError(f"{result.num_rows} rows came of {entities.num_rows} entity rows, or in another order")
    return result


def snapshot_range(
    views: Sequence[FeatureView], start: datetime | None, end: datetime | None
) -> tuple[datetime, datetime]:
    """Return the time range of a retrieval without entity rows, in UTC.

    Without a start it goes back by the longest ttl, or 30 days, as Feast has it.

    Raises:
        StoreDataError: It ends before it starts.
    """
    first, last = (as_utc(value) for value in compute_non_entity_date_range(list(views), start, end))
    if first > last:
        raise StoreDataError("time range", [Mistake("start_date", f"{first} is after end_date {last}.")])
    return first, last


def moments_between(request: RetrievalRequest, start: datetime, end: datetime) -> pa.Table:
    """Return the entity rows of a retrieval without any: every key and moment that a view has a value of.

    Views of different keys give rows of their own, with nulls for the keys they lack. Views without a key give
    rows only when no view has one. Rows are ordered by time, then by keys.
    """
    with as_known_on(request.known_on):
        views = [view_values(request.config, view, features, True) for view, features in request.features.items()]
    require_columns(views)
    keyed = [view for view in views if view.keys] or views
    keys = list(dict.fromkeys(key for view in keyed for key in view.keys))
    frames = []
    for feature_view, view in zip(request.features, views, strict=True):
        if view in keyed:
            with reading(request.config, feature_view.batch_source, view.name):
                frames.append(_moments_of(view, start, end).collect())
    rows = pl.concat(frames, how="diagonal_relaxed").unique().select(*keys, EVENT_AT)
    return plain_arrow(rows.sort(EVENT_AT, *keys, nulls_last=True))


def _moments_of(view: ViewValues, start: datetime, end: datetime) -> pl.LazyFrame:
    at = in_utc(view.at, view.frame.collect_schema()[view.at])
    keys = [pl.col(source).alias(key) for key, source in view.keys.items()]
    rows = view.rows().filter(at.is_between(utc_literal(start), utc_literal(end)))
    return rows.select(*keys, at.alias(EVENT_AT)).drop_nulls().unique()


def _views(request: RetrievalRequest, rows: pl.DataFrame, at: str) -> list[ViewValues]:
    """Open the sources of all views. The mistakes of all of them are raised together."""
    last = rows.get_column(at).max()
    local = request.config.offline_store.engine == "local"
    views: list[ViewValues] = []
    problems: list[Mistake] = []
    with as_known_on(request.known_on):
        for view, features in request.features.items():
            in_database = isinstance(view.batch_source, SqlSource)
            # Ray's workers read slices of files, which a filter would make them search from the start.
            until = last if isinstance(last, datetime) and (local or in_database) else None
            keys = _distinct(view, rows) if in_database else None
            try:
                values = view_values(request.config, view, features, request.full_names, until, keys)
            except StoreDataError as error:
                problems += error.problems
                continue
            views.append(replace(values, created_by_row=request.created_by_row))
    if problems:
        raise StoreDataError("feature views", problems)
    return views


def _distinct(view: FeatureView, rows: pl.DataFrame) -> dict[str, list[Any]]:
    distinct: dict[str, list[Any]] = {}
    for name, column in join_keys(view).items():
        values = rows.get_column(name).drop_nulls().unique()
        # pandas makes floats of an integer column with nulls, which a database need not compare with integers.
        if values.len() <= MAX_FILTER_KEYS and not values.dtype.is_float():
            distinct[column] = values.to_list()
    return distinct


def _joined(
    request: RetrievalRequest, rows: pl.DataFrame, at: str, views: Sequence[ViewValues]
) -> Iterator[pl.DataFrame]:
    settings = request.config.offline_store
    if settings.engine == "ray":
        # Ray takes seconds to import, and only this engine needs it.
        from playbill_feast.offline.ray_asof import join_partitioned

        yield join_partitioned(rows, at, views, settings.ray)
        return
    lookup = AsOfRows(rows, at)
    for feature_view, view in zip(request.features, views, strict=True):
        with reading(request.config, feature_view.batch_source, view.name):
            part = lookup.join(view)
        yield part


def _queried(query: str, views: Mapping[FeatureView, Sequence[str]]) -> pl.DataFrame:
    sources = [view.batch_source for view in views]
    urls = {source.url for source in sources if isinstance(source, SqlSource)}
    if len(urls) != 1 or not all(isinstance(source, SqlSource) for source in sources):
        what = "is SQL, which is only understood when every view has a SqlSource of one and the same database."
        raise StoreDataError("entity rows", [Mistake("entity_df", what, "Give a pandas, polars or Arrow table.")])
    return read_query(urls.pop(), query)


@dataclass(frozen=True, slots=True)
class Pull:
    """What is pulled from a source. Columns have the source's own names: Feast maps them afterwards."""

    source: DataSource
    keys: Sequence[str]  # Join key columns. Without any, Feast's stand-in for a key is added
    features: Sequence[str]  # Feature columns; none is every column
    at: str
    created: str | None  # Column that decides between rows of one moment, or None
    since: datetime | None  # Earliest event time, included
    until: datetime | None  # Latest event time, included
    known_on: datetime | None  # Leave out rows that were created later


def pull_latest(config: RepoConfig, pull: Pull) -> pa.Table:
    """Return the newest row of every key: keys, features, times. Ties go to the later created, then the later row."""
    with reading(config, pull.source, pull.source.name):
        rows = _rows(config, pull)
        return _pulled(latest_values(rows, pull.keys, pull.at, pull.created, pull.features), pull)


def pull_all(config: RepoConfig, pull: Pull) -> pa.Table:
    """Return every row in the source's order, old parts before new ones."""
    with reading(config, pull.source, pull.source.name):
        rows = _rows(config, pull)
        return _pulled(rows.select(_columns(pull)) if pull.features else rows, pull)


def _columns(pull: Pull) -> list[str]:
    created = [pull.created] if pull.created else []
    return list(dict.fromkeys([*pull.keys, *pull.features, pull.at, *created]))


def _rows(config: RepoConfig, pull: Pull) -> pl.LazyFrame:
    scan_filter = ScanFilter(pull.at, pull.since, pull.until)
    frame = scan_source(config, pull.source, pull.source.name, scan_filter, mapped=False)
    schema = frame.collect_schema()
    problems = []
    for name in _columns(pull):
        if name not in schema:
            problems.append(Mistake(name, "column is missing.", suggestion(name, schema.names())))
    for name in filter(None, (pull.at, pull.created)):
        if name in schema and not isinstance(schema[name], pl.Datetime | pl.Date | pl.Null):
            problems.append(Mistake(name, f"is {schema[name]}, and has to be a time."))
    if problems:
        where = getattr(pull.source, "path", "") or pull.source.name
        raise StoreDataError(f"source {where}", problems)
    frame = frame.with_columns(in_utc(name, schema[name]) for name in filter(None, (pull.at, pull.created)))
    return as_known(frame, pull.at, pull.created, pull.known_on)


def _pulled(rows: pl.LazyFrame, pull: Pull) -> pa.Table:
    if not pull.keys:
        rows = rows.with_columns(pl.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID))
    return plain_arrow(rows.collect())
