"""Feature values as Arrow and polars columns, and title features as dense arrays. Imports no Feast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from playbill.clock import to_microseconds
from playbill.errors import DataError, Problem
from playbill.features.reports import REQUEST_AT, FeatureColumn, FeatureEntity, TitleSnapshots
from playbill.tables.frames import epoch_us
from playbill_feast.asof_join import AsOfRows, ViewValues, as_of_join, latest_values
from playbill_feast.frames import EVENT_AT, in_utc
from playbill_feast.online.columns import EVENT_TIME

if TYPE_CHECKING:
    from feast.on_demand_feature_view import OnDemandFeatureView

    from playbill.features.catalog import Catalog

_MOMENT = pa.timestamp("us", tz="UTC")


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


def shaped(table: pa.Table | pl.DataFrame, columns: Sequence[FeatureColumn]) -> pl.DataFrame:
    """Return the columns as float32 numbers (null where missing or nan) and strings."""
    if not isinstance(table, pl.DataFrame):
        chosen = table.select(list(dict.fromkeys(column.source for column in columns)))
        table = pl.DataFrame(pl.from_arrow(chosen))
    return pl.DataFrame([_shaped(table.get_column(column.source), column) for column in columns])


def _shaped(values: pl.Series, column: FeatureColumn) -> pl.Series:
    # Series by series: of a request's one row, expressions would take five times as long.
    if column.item is not None:
        values = values.list.get(column.item, null_on_oob=True)
    if column.kind == "categorical":
        return values.cast(pl.String).alias(column.name)
    numbers = values.cast(pl.Float32)
    if int(np.isnan(numbers.to_numpy()).sum()) > numbers.null_count():
        numbers = numbers.fill_nan(None)
    return numbers.alias(column.name)


def empty(columns: Sequence[FeatureColumn]) -> pl.DataFrame:
    """Return no rows of the columns."""
    return pl.DataFrame(
        schema={column.name: pl.Float32 if column.kind == "numeric" else pl.String for column in columns}
    )


def requested_rows(member_ids: Sequence[str | None], at: datetime, request: Mapping[str, Any]) -> pa.Table:
    """Return a row per member with the moment and the request's fields."""
    count = len(member_ids)
    columns = {"member_id": pa.array(member_ids, pa.string()), "event_at": pa.array([at] * count, _MOMENT)}
    return pa.table({**columns, **{name: pa.array([value] * count) for name, value in request.items()}})


def is_after(values_at: pl.DataFrame, at: datetime, count: int) -> pl.Series:
    """Mark the `count` rows that have a value from after a moment; none where there are no views."""
    if not values_at.width:
        return pl.repeat(False, count, dtype=pl.Boolean, eager=True)
    moment = to_microseconds(at)
    return pl.Series(np.logical_or.reduce([epoch_us(column) > moment for column in values_at]))


def alive(view: str, ttl: timedelta | None, found: pa.Table, at: datetime) -> dict[str, pa.ChunkedArray]:
    """Return a view's columns under their full names, null where the value is expired at a moment."""
    columns = {f"{view}__{name}": found.column(name) for name in found.column_names if name != EVENT_TIME}
    if not ttl:
        return columns
    expired = pc.less(found.column(EVENT_TIME), pa.scalar(at - ttl, _MOMENT))
    if not pc.any(expired).as_py():
        return columns
    nothing = {name: pa.scalar(None, column.type) for name, column in columns.items()}
    return {name: pc.if_else(expired, nothing[name], column) for name, column in columns.items()}


ROWS_PER_CALL = 1_000_000
_TITLE, _SEEN_FROM = "__title", "__seen_from"

Derive = Callable[[pl.DataFrame], pl.DataFrame]
"""Appends the columns of on-demand views to full-named columns of the views they read."""


def dense_snapshots(
    columns: Sequence[FeatureColumn],
    views: Iterable[ViewValues],
    derive: Derive,
    moments: Sequence[datetime],
    title_ids: Sequence[str],
    vectors: Iterable[ViewValues] = (),
) -> TitleSnapshots:
    """Return title columns at each moment, dense, of the stored `views` that they need (with full names).

    What is read of `vectors` is read at the last moment only: a catalogue's vectors at every hour would not fit.

    Raises:
        DataError: A moment has no time zone.
    """
    if naive := [moment for moment in moments if moment.tzinfo is None]:
        raise DataError("snapshot moments", [Problem(str(moment), "has no time zone.") for moment in naive])
    items = [column for column in columns if column.item is not None]
    numeric = [column for column in columns if column.kind == "numeric" and column.item is None]
    categorical = [column for column in columns if column.kind == "categorical"]
    values = np.full((len(moments), len(title_ids), len(numeric)), np.nan, dtype=np.float32)
    titles = pl.Series("title_id", title_ids, dtype=pl.String)
    seen = [_seen(view, titles, moments) for view in views]
    step, last = max(1, ROWS_PER_CALL // max(1, len(title_ids))), max(moments, default=None)
    named = titles.to_frame().select(pl.lit(None, dtype=pl.String).alias(column.name) for column in categorical)
    for start in range(0, len(moments), step):
        part = moments[start : start + step]
        table = _at_moments(seen, derive, part, titles)
        found = shaped(table, numeric).to_numpy()
        values[start : start + step] = found.reshape(len(part), len(title_ids), len(numeric))
        if last in part:
            named = shaped(table.slice(part.index(last) * len(title_ids), len(title_ids)), categorical)
    return TitleSnapshots(
        moments=tuple(moments),
        title_ids=tuple(title_ids),
        columns=tuple(column.name for column in numeric),
        values=values,
        categorical=titles.to_frame().hstack(named),
        vector_columns=tuple(column.name for column in items),
        vectors=_vectors_at(items, vectors, last, titles) if items else None,
    )


def country_values(
    columns: Sequence[FeatureColumn],
    views: Iterable[ViewValues],
    derive: Derive,
    moments: Sequence[datetime],
    countries: Sequence[str | None],
    title_ids: Sequence[str],
) -> npt.NDArray[np.float32]:
    """Return [S, T, F] columns of titles in the country of each moment, nan where it is None or has no value.

    `views` are those that the columns need, keyed by title, by country or by both, with full names.
    """
    values = np.full((len(moments), len(title_ids), len(columns)), np.nan, dtype=np.float32)
    known = [place for place, country in enumerate(countries) if country is not None]
    titles = pl.Series("title_id", title_ids, dtype=pl.String)
    seen = [_known_by(view, titles, countries, max(moments)) for view in views] if known else []
    step = max(1, ROWS_PER_CALL // max(1, len(title_ids)))
    for start in range(0, len(known), step):
        part = known[start : start + step]
        at = pl.Series(EVENT_AT, [moments[place].astimezone(UTC) for place in part], dtype=pl.Datetime("us", "UTC"))
        situations = pl.DataFrame([at, pl.Series("country", [countries[place] for place in part], dtype=pl.String)])
        rows = situations.join(titles.to_frame(), how="cross", maintain_order="left_right")
        joined = rows.with_columns(pl.col(EVENT_AT).alias(REQUEST_AT))
        same = AsOfRows(rows, EVENT_AT)
        for view in seen:
            joined = joined.hstack(same.join(view))
        found = shaped(derive(joined), columns).to_numpy()
        values[part] = found.reshape(len(part), len(title_ids), len(columns))
    return values


def _known_by(view: ViewValues, titles: pl.Series, countries: Sequence[str | None], last: datetime) -> ViewValues:
    """Read a view once: only the titles and countries asked for, and nothing later."""
    wanted = {"title_id": titles, "country": pl.Series(countries, dtype=pl.String)}
    rows = view.rows().filter(in_utc(view.at, view.frame.collect_schema()[view.at]) <= last.astimezone(UTC))
    for row_key, key in view.keys.items():
        rows = rows.filter(pl.col(key).is_in(wanted[row_key].unique().implode()))
    return replace(view, frame=rows.collect().lazy(), counts=None)


def _vectors_at(
    columns: Sequence[FeatureColumn], views: Iterable[ViewValues], moment: datetime | None, titles: pl.Series
) -> npt.NDArray[np.float32]:
    """Return [T, V] the vectors of titles at a moment; nan where there is none."""
    if moment is None:
        return np.full((len(titles), len(columns)), np.nan, np.float32)
    seen = [_seen(view, titles, [moment]) for view in views]
    found = shaped(_at_moments(seen, lambda rows: rows, [moment], titles), columns)
    return np.ascontiguousarray(found.to_numpy(), np.float32)


def _seen(view: ViewValues, titles: pl.Series, moments: Sequence[datetime]) -> ViewValues:
    """Read a title view once: only the titles asked for, by number, and only what a moment can see."""
    grid = pl.Series(sorted({moment.astimezone(UTC) for moment in moments}), dtype=pl.Datetime("us", "UTC"))
    at = in_utc(view.at, view.frame.collect_schema()[view.at])
    (key,) = view.keys.values()
    # Of the values between two moments only the last can be seen; the rest would only be sorted.
    seen_from = at.map_batches(lambda column: grid.search_sorted(column), return_dtype=pl.UInt32)
    # In the order of the files: of rows that are equally new the later one counts, as one of a corrected build.
    named = _numbered(titles).unique().lazy()
    rows = view.rows().join(named, left_on=key, right_on="title_id", maintain_order="left")
    frame = latest_values(
        rows.with_columns(seen_from.alias(_SEEN_FROM)),
        [_TITLE, _SEEN_FROM],
        view.at,
        view.created,
        list(view.features.values()),
    )
    return replace(view, keys={_TITLE: _TITLE}, frame=frame.collect().lazy(), counts=None)


def _at_moments(
    views: Sequence[ViewValues], derive: Derive, moments: Sequence[datetime], titles: pl.Series
) -> pl.DataFrame:
    """Return moments x titles rows in that order, with every plain and on-demand title column."""
    at = pl.Series(EVENT_AT, [moment.astimezone(UTC) for moment in moments], dtype=pl.Datetime("us", "UTC"))
    rows = at.to_frame().join(_numbered(titles), how="cross", maintain_order="left_right")
    joined = rows.select(EVENT_AT, "title_id", pl.col(EVENT_AT).alias(REQUEST_AT))
    for view in views:
        joined = joined.hstack(as_of_join(rows, EVENT_AT, view))
    return derive(joined)


def _numbered(titles: pl.Series) -> pl.DataFrame:
    """Give every title a number: joining by numbers is several times faster than by text."""
    return titles.to_frame().with_columns(pl.col("title_id").rank("dense").cast(pl.UInt32).alias(_TITLE))
