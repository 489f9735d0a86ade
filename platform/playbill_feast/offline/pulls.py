"""Pulls: the newest rows, or all rows, of one source between two moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.repo_config import RepoConfig

from playbill.errors import DataError, Problem, nearest
from playbill.features.values import plain_arrow
from playbill_feast.asof_join import in_utc, latest_values
from playbill_feast.offline.knowledge import as_known
from playbill_feast.offline.reading import reading
from playbill_feast.offline.scan_filter import Wanted
from playbill_feast.offline.sources import scan_source


@dataclass(frozen=True, slots=True)
class Pull:
    """What is pulled from a source. Columns have the source's own names: Feast maps them afterwards.

    Attributes:
        source: Whose rows.
        keys: Join key columns. Without any, Feast's stand-in for a key is added.
        features: Feature columns; none is every column.
        at: Event time column.
        created: Column that decides between rows of one moment, or None.
        since: Earliest event time, included.
        until: Latest event time, included.
        known_on: Leave out rows that were created later.
    """

    source: DataSource
    keys: Sequence[str]
    features: Sequence[str]
    at: str
    created: str | None
    since: datetime | None
    until: datetime | None
    known_on: datetime | None


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
    wanted = Wanted(pull.at, pull.since, pull.until)
    frame = scan_source(config, pull.source, pull.source.name, wanted, mapped=False)
    schema = frame.collect_schema()
    problems = []
    for name in _columns(pull):
        if name not in schema:
            close = nearest(name, schema.names())
            problems.append(Problem(name, "column is missing.", f"Did you mean '{close}'?" if close else ""))
    for name in filter(None, (pull.at, pull.created)):
        if name in schema and not isinstance(schema[name], pl.Datetime | pl.Date | pl.Null):
            problems.append(Problem(name, f"is {schema[name]}, and has to be a time."))
    if problems:
        where = getattr(pull.source, "path", "") or pull.source.name
        raise DataError(f"source {where}", problems)
    frame = frame.with_columns(in_utc(name, schema[name]) for name in filter(None, (pull.at, pull.created)))
    return as_known(frame, pull.at, pull.created, pull.known_on)


def _pulled(rows: pl.LazyFrame, pull: Pull) -> pa.Table:
    if not pull.keys:
        rows = rows.with_columns(pl.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID))
    return plain_arrow(rows.collect())
