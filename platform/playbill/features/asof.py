"""The as-of join: for every row the newest value that held at its moment. Knows polars only.

One sort and one merge, O(n log n); nothing is multiplied out, so a hot key costs no more than others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from playbill.errors import DataError, Problem

_AT, _ROW, _VALUE_AT, _CREATED = "__at", "__row", "__value_at", "__created"
_MOMENT = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True)
class ViewValues:
    """Values of one view and how they are joined.

    Attributes:
        name: The view, for messages.
        frame: One row per (keys, moment).
        keys: Column of the rows -> column of the values. Empty for a view without entity.
        at: Time column of the values.
        created: Column that decides between values of one moment (the later wins), or None.
        features: Output column -> column of the values.
        ttl: Values older than this are null; None is no limit. Age exactly `ttl` is kept.
    """

    name: str
    frame: pl.LazyFrame
    keys: Mapping[str, str]
    at: str
    created: str | None
    features: Mapping[str, str]
    ttl: timedelta | None = None


def as_of_join(rows: pl.DataFrame, at: str, view: ViewValues) -> pl.DataFrame:
    """Look up a view's values for every row, as of the row's own moment.

    A null key, a null moment, and a value that is expired or lies in the future give nulls. Ties of time go
    to the later `created`, then to the later row.

    Args:
        rows: Has the `view.keys` columns and `at`. Moments without a zone are UTC.
        at: Time column of `rows`.
        view: What to look up.

    Returns:
        The output columns of `view.features` only, one row per row of `rows`, in the same order.

    Raises:
        DataError: A column is missing, or keys of different kinds would be compared.
    """
    _check_columns(view)
    keys = [f"__key_{index}" for index in range(len(view.keys))]
    left = _left(rows, at, view, keys)
    right = _right(view, keys, left)
    joined = left.sort(_AT, nulls_last=False).join_asof(
        right,
        left_on=_AT,
        right_on=_VALUE_AT,
        by=keys or None,
        strategy="backward",
        check_sortedness=False,
        coalesce=False,
    )
    names = list(view.features)
    if view.ttl:
        alive = pl.col(_VALUE_AT) >= pl.col(_AT) - view.ttl
        joined = joined.with_columns(pl.when(alive).then(pl.col(name)).alias(name) for name in names)
    result = joined.sort(_ROW).select(names)
    if result.height != rows.height:
        raise AssertionError(f"as-of join of {view.name} made {result.height} rows of {rows.height}")
    return result


def latest_values(
    frame: pl.LazyFrame, keys: Sequence[str], at: str, created: str | None, features: Sequence[str]
) -> pl.LazyFrame:
    """Return the newest row of every key; ties go to the later `created`, then to the later row.

    Rows without a key or time are left out. Without keys the newest row of all is returned.
    """
    wanted = list(dict.fromkeys([*keys, *features, at, *([created] if created else [])]))
    order = [at, *([created] if created else [])]
    rows = frame.select(wanted).drop_nulls([*keys, at])
    if not keys:
        return rows.sort(order, nulls_last=False, maintain_order=True).tail(1)
    # Most rows are older than their key's newest; leaving them out first makes the sort small.
    newest = rows.filter(pl.col(at) == pl.col(at).max().over(keys))
    ordered = newest.sort(order, nulls_last=False, maintain_order=True)
    return ordered.unique(subset=list(keys), keep="last", maintain_order=True)


def in_utc(column: str, kind: pl.DataType) -> pl.Expr:
    """Return a time column as UTC microseconds; a column without zone is UTC already."""
    moment = pl.col(column)
    if isinstance(kind, pl.Date) or (isinstance(kind, pl.Datetime) and kind.time_zone is None):
        return moment.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return moment.cast(_MOMENT)


def _left(rows: pl.DataFrame, at: str, view: ViewValues, keys: Sequence[str]) -> pl.DataFrame:
    absent = [name for name in [*view.keys, at] if name not in rows.columns]
    if absent:
        raise DataError(f"rows to join with {view.name}", [Problem(name, "column is missing.") for name in absent])
    types = view.frame.collect_schema()
    typed = [
        _like(name, rows.schema[name], types.get(source, pl.Null()), view.name).alias(key)
        for (name, source), key in zip(view.keys.items(), keys, strict=True)
    ]
    return rows.select(*typed, in_utc(at, rows.schema[at]).alias(_AT)).with_row_index(_ROW)


def _right(view: ViewValues, keys: Sequence[str], left: pl.DataFrame) -> pl.DataFrame:
    schema = view.frame.collect_schema()
    values = view.frame.select(
        *(pl.col(source).alias(key) for source, key in zip(view.keys.values(), keys, strict=True)),
        in_utc(view.at, schema[view.at]).alias(_VALUE_AT),
        *([pl.col(view.created).alias(_CREATED)] if view.created else []),
        *(pl.col(source).alias(name) for name, source in view.features.items()),
    ).drop_nulls([*keys, _VALUE_AT])
    if keys:
        values = values.join(left.lazy().select(keys).unique(), on=list(keys), how="semi")
    order = [_VALUE_AT, *([_CREATED] if view.created else [])]
    return values.sort(order, nulls_last=False, maintain_order=True).drop(_CREATED, strict=False).collect()


def _check_columns(view: ViewValues) -> None:
    schema = view.frame.collect_schema()
    needed = [*view.keys.values(), view.at, *view.features.values(), *([view.created] if view.created else [])]
    if absent := sorted({name for name in needed if name not in schema}):
        raise DataError(f"values of {view.name}", [Problem(name, "column is missing.") for name in absent])


def _like(name: str, source: pl.DataType, target: pl.DataType, view: str) -> pl.Expr:
    """Cast a key of the rows to the type of the values' key, where the two can be equal at all."""
    if source == target or source == pl.Null():
        return pl.col(name).cast(target)
    if source.is_numeric() and target.is_numeric():
        # pandas turns an integer column with nulls into floats.
        return pl.col(name).cast(target, strict=False)
    if source == pl.String() and isinstance(target, pl.Categorical | pl.Enum):
        return pl.col(name).cast(target)
    raise DataError(f"rows to join with {view}", [Problem(name, f"key is {source}, but the values have {target}.")])
